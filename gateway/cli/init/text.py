"""The config file that `fleetgate init` writes."""

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any

import yaml

from gateway.cli.init.example import Example
from gateway.config.limits import LimitSettings
from gateway.config.listen import Admin, Listen
from gateway.server.node_survey import SurveyedNode

COLUMN = 32
"""Where comments begin, as in the example."""

WIDTH = 120
PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]*")


@dataclass(frozen=True, slots=True)
class InitAnswers:
    """What is to stand in the file. `node_key`: the variable with the nodes' key. `limits`: by their settings' names.
    None and empty: not given."""

    nodes: Sequence[SurveyedNode]
    node_key: str | None = None
    host: str = Listen().host
    port: int = Listen().port
    admin_port: int = Admin().port
    tenant: str | None = None
    digest: str = ""
    limits: dict[str, int] = field(default_factory=dict)
    max_budget: int | None = None
    redis: str | None = None


def config_text(answers: InitAnswers, example: Example, file: str, today: date) -> str:
    """The file's text; `file` is its name."""
    parts = [
        _heading(file, today),
        _nodes(answers, example, today),
        _listen(answers, example),
        _admin(answers, example),
        _models(answers, example),
        _tenants(answers, example),
        _thinking(answers, example),
        _redis(answers, example),
    ]
    return "\n\n".join("\n".join(line.rstrip() for line in part) for part in parts) + "\n"


def _heading(file: str, today: date) -> Iterator[str]:
    yield f"# Made by `fleetgate init` on {today}. What is not set here has its default; `fleetgate init --example`"
    yield "# shows every setting with its unit and default. What is commented out is a suggestion."
    yield "#"
    yield f"#   fleetgate check -c {file} --probe      explains every mistake, and asks nodes and Redis"
    yield f"#   fleetgate serve -c {file}"
    yield "#"
    yield "# The file is read again when it changes, and at `fleetgate reload`. Open streams are not touched. Settings"
    yield "# marked (restart) are only read at start."


def _nodes(answers: InitAnswers, example: Example, today: date) -> Iterator[str]:
    yield from example.about("nodes")
    yield "nodes:"
    for node in answers.nodes:
        yield from _folded(2, f"{described(node)} ({today})")
        yield f"  - url: {_scalar(node.url)}"
        if answers.node_key is not None:
            yield from _line(4, "api_key", f"{{env: {answers.node_key}}}", example, "nodes")
    for name in ("max_concurrency", "weight", "price"):
        yield from _line(4, name, None, example, "nodes")


def _listen(answers: InitAnswers, example: Example) -> Iterator[str]:
    yield from example.about("listen")
    yield "listen:"
    yield from _line(2, "host", _scalar(answers.host), example, "listen")
    yield from _line(2, "port", str(answers.port), example, "listen")
    for name in ("trusted_proxies", "cors_origins"):
        yield from _line(2, name, None, example, "listen")


def _admin(answers: InitAnswers, example: Example) -> Iterator[str]:
    yield from example.about("admin")
    yield "admin:"
    yield from _line(2, "host", Admin().host, example, "admin")
    yield from _line(2, "port", str(answers.admin_port), example, "admin")
    yield from _line(2, "token", None, example, "admin")


def _models(answers: InitAnswers, example: Example) -> Iterator[str]:
    names = list(dict.fromkeys(name for node in answers.nodes for name in node.models)) or ["nemotron-3-ultra"]
    yield from example.about("models")
    lines = ["models:", *(f"  - name: {_scalar(name)}" for name in names)]
    lines += _line(4, "aliases", "[gpt-4o]", example, "models")
    lines += _line(4, "price", "{input: 0.5, output: 2.5}", example, "models")
    yield from _suggested(lines)


def _tenants(answers: InitAnswers, example: Example) -> Iterator[str]:
    yield from example.about("tenants")
    named = answers.tenant is not None
    lines = ["tenants:", f"  - name: {_scalar(answers.tenant or 'research')}"]
    lines += _line(4, "keys", "", example, "tenants")
    lines += [f"      - sha256: {answers.digest or '...'}"]
    given = {name: str(answers.limits[name]) for name in LimitSettings.model_fields if name in answers.limits}
    lines += _line(4, "limits", "" if given or not named else None, example, "tenants", last=True)
    for name in LimitSettings.model_fields:
        is_set = name in given or not named
        value = given.get(name, example.setting("tenants", name).value)
        lines += _line(6, name, value if is_set else None, example, "tenants")
    yield from lines if named else _suggested(lines)


def _thinking(answers: InitAnswers, example: Example) -> Iterator[str]:
    yield from example.about("thinking")
    most = example.setting("thinking", "max_budget").value if answers.max_budget is None else str(answers.max_budget)
    lines = ["thinking:", *_line(2, "max_budget", most, example, "thinking")]
    yield from _suggested(lines) if answers.max_budget is None else lines
    if answers.max_budget is not None:
        for name in ("default_budget", "answer_reserve", "hide_reasoning"):
            yield from _line(2, name, None, example, "thinking")


def _redis(answers: InitAnswers, example: Example) -> Iterator[str]:
    yield from example.about("redis")
    url = example.setting("redis", "url").value if answers.redis is None else _scalar(answers.redis)
    lines = ["redis:", *_line(2, "url", url, example, "redis")]
    yield from _suggested(lines) if answers.redis is None else lines
    yield ""
    yield from example.about("response_secret")
    yield from _line(0, "response_secret", None, example, "response_secret")


def _suggested(lines: Iterable[str]) -> Iterator[str]:
    """Commented out, as the example has it: without its `# ` the whole is a section."""
    return (f"# {line}" for line in lines)


def described(node: SurveyedNode) -> str:
    """What was found of a node, in a line: whatever a node says of itself, no part of it is a line of its own."""
    return "".join(char if char.isprintable() else "?" for char in _found(node))


def _found(node: SurveyedNode) -> str:
    if node.problem is not None:
        return node.problem
    models = ", ".join(f"{name}{f' ({window:,} tokens)' if window else ''}" for name, window in node.models.items())
    budgets = {
        True: "; thinking budgets hold",
        False: "; it does not hold thinking budgets by itself: the gateway does",
        None: "",
    }
    return f"vLLM {node.version} serves {models}{budgets[node.holds_budgets]}"


def _line(
    indent: int, name: str, given: str | None, example: Example, section: str, last: bool = False
) -> Iterator[str]:
    """A setting with its comment from the example; where none is given, commented out with the example's value."""
    shown = example.setting(section, name, last)
    start = f"{' ' * indent}{'# ' if given is None else ''}{name}: {shown.value if given is None else given}"
    yield f"{start:<{COLUMN - 2}}  # {shown.comment[0]}" if shown.comment else start
    yield from (f"{' ' * indent}#{' ' * (COLUMN - indent - 1)}# {words}" for words in shown.comment[1:])


def _folded(indent: int, words: str) -> Iterator[str]:
    """A comment of as many lines as it needs."""
    line = ""
    for word in words.split():
        if line and indent + 3 + len(line) + len(word) > WIDTH:
            yield f"{' ' * indent}# {line}"
            line = ""
        line = f"{line} {word}".lstrip()
    yield f"{' ' * indent}# {line}"


def _scalar(text: str) -> str:
    """A string as YAML, plain where that is read as the same string."""
    plain: Any = yaml.safe_load(text) if PLAIN.fullmatch(text) else None
    return text if plain == text else json.dumps(text, ensure_ascii=not text.isprintable())
