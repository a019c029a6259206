"""What mypyc makes another program of is not in the modules that it compiles (docs/architecture.md)."""

import ast
import tomllib
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.core.dialects.counts import plain_values

ROOT = Path(__file__).parents[1]
WAITS = (ast.Await, ast.Yield, ast.YieldFrom, ast.AsyncFor, ast.AsyncWith)
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)


def compiled_modules() -> Iterator[Path]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    hook = project["tool"]["hatch"]["build"]["targets"]["wheel"]["hooks"]["mypyc"]
    included, excluded = tuple(hook["include"]), tuple(hook["exclude"])
    for path in sorted((ROOT / "gateway").rglob("*.py")):
        place = f"/{path.relative_to(ROOT).as_posix()}"
        if place.startswith(included) and not place.endswith(excluded):
            yield path


def within(node: ast.AST) -> Iterator[ast.AST]:
    """`node` and what is in it, but for functions, which run on their own."""
    yield node
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, FUNCTIONS):
            yield from within(child)


def waiting_handlers(source: str) -> list[int]:
    """The lines where an `except` or `finally` waits or yields."""
    found = []
    for node in ast.walk(ast.parse(source)):
        body = node.body if isinstance(node, ast.ExceptHandler) else getattr(node, "finalbody", [])
        for each in body:
            found += [each.lineno for inner in within(each) if isinstance(inner, WAITS)]
    return found


def test_no_handler_waits() -> None:
    """While one waits, what it handles is everybody's: a `raise` there may raise another request's error."""
    modules = list(compiled_modules())
    assert len(modules) > 200
    found = {str(path.relative_to(ROOT)): waiting_handlers(path.read_text()) for path in modules}
    assert {path: lines for path, lines in found.items() if lines} == {}


@pytest.mark.parametrize(
    ("handler", "waits"),
    [
        ("except OSError:\n        await b()", True),
        ("finally:\n        await b()", True),
        ("except OSError:\n        async with c:\n            pass", True),
        ("except OSError:\n        x = lambda: (yield)", False),
        ("except OSError:\n        pass\n    await b()", False),
    ],
)
def test_a_handler_that_waits_is_found(handler: str, waits: bool) -> None:
    assert bool(waiting_handlers(f"async def a():\n    try:\n        await b()\n    {handler}\n")) == waits


def names_of_several_errors(source: str) -> list[str]:
    """`function: name` where several handlers of a function give one name to errors of different types."""
    found = []
    for function in ast.walk(ast.parse(source)):
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            types: defaultdict[str, set[str]] = defaultdict(set)
            for node in (inner for line in function.body for inner in within(line)):
                if isinstance(node, ast.ExceptHandler) and node.name is not None and node.type is not None:
                    types[node.name].add(ast.unparse(node.type))
            found += [f"{function.name}: {name}" for name, several in types.items() if len(several) > 1]
    return found


def test_handlers_of_different_errors_name_them_differently() -> None:
    """A name has the type of its first handler: an error of another type is a TypeError at the second one."""
    found = {str(path.relative_to(ROOT)): names_of_several_errors(path.read_text()) for path in compiled_modules()}
    assert {path: names for path, names in found.items() if names} == {}


@pytest.mark.parametrize(("second", "found"), [("error", ["a: error"]), ("other", [])])
def test_a_name_of_several_errors_is_found(second: str, found: list[str]) -> None:
    handlers = f"    except KeyError as error:\n        pass\n    except OSError as {second}:\n        pass\n"
    assert names_of_several_errors(f"def a():\n    try:\n        b()\n{handlers}") == found


@pytest.mark.parametrize("name", ["echo", "ignore_eos", "use_beam_search"])
@pytest.mark.parametrize(("given", "switch"), [("yes", True), (1, True), ("off", False), (0.0, False)])
def test_a_switch_in_other_words_becomes_true_or_false_and_no_number(name: str, given: object, switch: bool) -> None:
    assert plain_values({name: given, "n": "2"}, ())[name] is switch
