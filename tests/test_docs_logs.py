"""docs/logs.md is the reference of the log: every event with its levels and fields, every field of a request's line.

The events are read from the source: each call of a logger, and of the few functions that log what they are given.
"""

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from gateway.core.telemetry.request_stats import RequestStats, log_table

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "logs.md").read_text()
LEVELS = {level: level for level in ("info", "warning", "error", "critical")} | {"exception": "error"}
PASSED_ON = {"_log_refusal": {"requests"}, "_log_throttled": {"address", "requests"}}
"""Functions that log a warning of the event that they are given, and the fields that they add."""

LIBRARIES = "exc_info"
"""Becomes the field `exception`."""

Events = dict[str, tuple[set[str], set[str]]]


def logged_events() -> Events:
    """Every event that the gateway logs: its levels and its fields."""
    found: Events = defaultdict(lambda: (set(), set()))
    for file in sorted((ROOT / "gateway").rglob("*.py")):
        for scope in ast.walk(ast.parse(file.read_text())):
            if isinstance(scope, ast.FunctionDef | ast.AsyncFunctionDef):
                for event, levels, fields in _of_function(scope):
                    found[event][0].update(levels)
                    found[event][1].update(fields)
    found["request"] = ({"info", "warning", "error"}, set())
    return dict(found)


def _of_function(scope: ast.AST) -> Iterator[tuple[str, set[str], set[str]]]:
    chosen = [node for node in ast.walk(scope) if isinstance(node, ast.IfExp)]
    loggers = {level for each in chosen for level in _levels_in(each)}
    for call in ast.walk(scope):
        if not isinstance(call, ast.Call) or not call.args:
            continue
        first, name = call.args[0], _name(call.func)
        fields = {("exception" if each.arg == LIBRARIES else each.arg) for each in call.keywords if each.arg}
        event = first.value if isinstance(first, ast.Constant) and isinstance(first.value, str) else None
        if name in PASSED_ON and event is not None:
            yield event, {"warning"}, fields | PASSED_ON[name]
        elif name == "emit" and event is not None and loggers:
            yield event, loggers, fields
        elif name == "emit":  # the event was chosen together with the level
            for pair in (node for each in chosen for node in ast.walk(each) if isinstance(node, ast.Tuple)):
                constant = pair.elts[1]
                assert isinstance(constant, ast.Constant)
                yield str(constant.value), _levels_in(pair), fields
        elif name in LEVELS and _is_logger(call.func) and event is not None:
            yield event, {LEVELS[name]}, fields | ({"exception"} if name == "exception" else set())


def _name(function: ast.expr) -> str:
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


def _is_logger(function: ast.expr) -> bool:
    return isinstance(function, ast.Attribute) and _name(function.value) in ("log", "_text")


def _levels_in(node: ast.AST) -> set[str]:
    return {LEVELS[each.attr] for each in ast.walk(node) if isinstance(each, ast.Attribute) and each.attr in LEVELS}


def rows(section: str) -> list[list[str]]:
    """The cells of a section's table, without its head."""
    text = PAGE.partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if not line.startswith("| event |")]


def names(cell: str) -> set[str]:
    return set(re.findall(r"`(\w+)`", cell))


def test_every_event_is_explained_with_its_levels_and_fields() -> None:
    explained = {}
    for event, levels, fields, meaning in rows("Events"):
        assert meaning, event
        explained[event.strip("`")] = (set(levels.split(", ")), names(fields))
    assert len(explained) == len(rows("Events")), "each once"
    assert [*explained] == sorted(explained)
    assert explained == logged_events()


def test_every_field_of_a_request_is_explained() -> None:
    explained = [cells[0].strip("`") for cells in rows("The line of a request") if cells[0] != "field"]
    assert explained == [*log_table(RequestStats).names, "requests"]


def test_there_are_events() -> None:
    assert len(logged_events()) > 60
