"""Which kind of request each node is sent, for every dialect, plan and set of capabilities.

`node_requests.json` holds the answers: for each dialect and plan one letter per set of capabilities, runs of a letter
counted. `python -m tests.upstream.test_node_request` writes it anew: its diff shows what a change decides otherwise.
"""

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gateway.core.dialects import DIALECTS, Dialect, StoredResponses
from gateway.core.errors import InvalidRequest
from gateway.core.fleet.capabilities import Capabilities
from gateway.core.plan import Plan
from gateway.core.thinking.grant import Grant
from gateway.core.upstream.node_request import STRATEGIES, node_request

GOLDEN = Path(__file__).with_name("node_requests.json")

THINKING = {
    "unlimited": (None, None),
    "off": (False, 0),
    "off, no budget": (False, None),
    "budget 0": (None, 0),
    "budget 500": (None, 500),
    "budget 2048": (None, 2048),
}
BODIES: dict[str, dict[str, Any]] = {
    "chat": {"messages": [{"role": "user", "content": "a"}]},
    "completions": {"prompt": "a"},
    "responses": {"input": "a"},
    "input_tokens": {"input": "a"},
    "compact": {"input": "a"},
    "messages": {"messages": [{"role": "user", "content": "a"}], "max_tokens": 4096},
}
VARIANTS: dict[str, dict[str, Any]] = {
    "": {},
    "two choices": {"n": 2},
    "begun": {"add_generation_prompt": False},
    "wants usage": {"stream_options": {"include_usage": True}},
}
"""Fields that change how the answer's stream is followed."""

CAPABILITIES = [
    Capabilities(budget, off, version, splits, think_end=(7,))
    for splits, budget, off, version in itertools.product(
        (None, True, False), (None, False, True), (None, True, False), (None, (0, 22), (0, 32))
    )
]


def plans() -> Iterator[tuple[str, Plan]]:
    """Every plan with its name."""
    dialects: tuple[Dialect, ...] = (*DIALECTS, StoredResponses())
    for dialect in dialects:
        variants = VARIANTS if dialect.name in ("chat", "messages") else {"": {}}
        for variant, fields in variants.items():
            for stream in (False, True):
                body = {"model": "m", **BODIES.get(dialect.name, {}), **fields, **({"stream": True} if stream else {})}
                ask = dialect.read(json.dumps(body).encode())
                for name, (thinking, budget) in THINKING.items():
                    for hide, salted, over_chat in itertools.product((False, True), repeat=3):
                        grant = Grant(4096, thinking, budget, hide=hide)
                        flags = {"stream": stream, "hide": hide, "salt": salted, "over chat": over_chat}
                        said = [type(dialect).__name__, variant, name, *(flag for flag, on in flags.items() if on)]
                        plan = Plan(ask, dialect, "m", ask.raw, grant=grant)
                        plan.salted, plan.over_chat = salted, over_chat
                        yield ", ".join(filter(None, said)), plan


def kind_of(plan: Plan, capabilities: Capabilities) -> str:
    """What is sent and how its answer is followed; the code of the error where it cannot be sent."""
    try:
        request = node_request(plan, b"node", capabilities)
    except InvalidRequest as error:
        return f"{error.code} ({error.param})"
    flags = [name for name in ("assembles", "needs_stream", "rewrites") if getattr(request, name)]
    filters = ">".join(_chain(request.stream_filter()))
    return f"{'>'.join(_chain(request))} to {request.path}, {filters}; {' '.join(flags)}".strip("; ")


def _chain(outermost: Any) -> Iterator[str]:
    """The names of an object's class and of the classes of what it wraps."""
    yield type(outermost).__name__
    for name in ("_inner", "inner", "_outer"):
        wrapped = getattr(outermost, name, None)
        if wrapped is not None:
            yield from _chain(wrapped)


def answers() -> dict[str, Any]:
    """What `node_requests.json` holds for the code as it is."""
    letters: dict[str, str] = {}
    found: dict[str, str] = {}
    for name, plan in plans():
        kinds = [kind_of(plan, capabilities) for capabilities in CAPABILITIES]
        runs = [(letter_of(kind, letters), len(list(run))) for kind, run in itertools.groupby(kinds)]
        found[name] = " ".join(f"{letter}{count}" for letter, count in runs)
    return {"kinds": {letter: kind for kind, letter in letters.items()}, "plans": found}


def letter_of(kind: str, letters: dict[str, str]) -> str:
    return letters.setdefault(kind, chr(ord("A") + len(letters)) if len(letters) < 26 else f"A{chr(39 + len(letters))}")


def test_every_plan_is_sent_to_every_node_as_decided() -> None:
    golden = json.loads(GOLDEN.read_text())
    found = answers()
    assert found["kinds"] == golden["kinds"]
    changed = {name for name in found["plans"] if found["plans"][name] != golden["plans"].get(name)}
    assert changed == set() and found["plans"].keys() == golden["plans"].keys()


def test_every_dialect_has_its_strategies() -> None:
    assert STRATEGIES.keys() == {dialect.name for dialect in DIALECTS}


if __name__ == "__main__":
    GOLDEN.write_text(json.dumps(answers(), indent=0) + "\n")
