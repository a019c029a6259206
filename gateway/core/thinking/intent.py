"""How clients ask for thinking: many spellings, one intent. Sans-IO.

`SPELLINGS` is the table: one line says where a spelling stands in a body and what its value means. A body without
any of these fields costs one set operation. Every dialect takes every spelling; which of them its node heeds by
itself is the dialect's to say (`Dialect.heeds`), all others are carried into the node's own spelling by the plan.

Null is as good as absent. A value of the wrong kind and two fields that contradict each other are refused.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, NoReturn

from gateway.core.bodies import Body
from gateway.core.errors import InvalidRequest
from gateway.core.json_text import json_kind
from gateway.core.lax_numbers import read_count

UNLIMITED = -1
"""A budget that a client spells out as none (vLLM's own value for it)."""

EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
"""Weakest first; `none` is thinking switched off."""


class Intent(NamedTuple):
    """What a client wants of thinking; None where it says nothing.

    `budget` is in tokens, `UNLIMITED` where the client says so. `effort` is never `none`: that is `on` False.
    `low` is the Nemotron templates' own low effort, `hide` a wish to leave reasoning out of the answer. `heeded` says
    that the node understands all of it as it stands in the body. `budget_field` is where the budget stands. `most` is
    what is left of a task's tokens: no budget is above it.
    """

    on: bool | None = None
    budget: int | None = None
    effort: str | None = None
    low: bool = False
    hide: bool | None = None
    heeded: bool = True
    budget_field: str | None = None
    most: int | None = None

    @property
    def wants_thinking(self) -> bool | None:
        """Whether thinking is wanted, by a switch or by what makes sense with thinking only; None: not said."""
        if self.on is None and (self.budget or self.effort):
            return True
        return self.on

    @property
    def asked(self) -> str | None:
        """The wish in one word, for the headers that tell what became of it."""
        if self.on is False:
            return "off"
        if self.budget is not None:
            return "unlimited" if self.budget == UNLIMITED else str(self.budget)
        return self.effort or ("on" if self.on else None)


UNSAID: Final = Intent()

Wish = Mapping[str, Any]
"""Parts of an intent, by field."""


def _switch(value: Any, path: str) -> Wish:
    return {"on": _kind(value, path, bool, "true or false")}


def _budget(value: Any, path: str) -> Wish:
    if _kind(value, path, int, "a number of tokens") < UNLIMITED:
        raise _wrong(path, "a number of tokens, 0 for none or -1 for no limit")
    return {"budget": value}


def _lax_budget(value: Any, path: str) -> Wish:
    """Where a node reads a budget in any spelling of a number."""
    if type(value) is bool:
        raise _wrong(path, f"a number of tokens, not {json_kind(value)}")
    return _budget(read_count(value, path), path)


def _effort(value: Any, path: str) -> Wish:
    if type(value) is not str or value not in EFFORTS:
        raise _wrong(path, "one of " + ", ".join(EFFORTS))
    return {"on": False} if value == "none" else {"effort": value}


def _low_effort(value: Any, path: str) -> Wish:
    return {"effort": "low", "low": True} if _kind(value, path, bool, "true or false") else {}


def _hide(value: Any, path: str) -> Wish:
    return {"hide": _kind(value, path, bool, "true or false")}


def _show(value: Any, path: str) -> Wish:
    return {"hide": not _kind(value, path, bool, "true or false")}


def _task_budget(value: Any, path: str) -> Wish:
    """Anthropic's budget of a whole task, over all its requests: `total` tokens, of which `remaining` are left."""
    budget = _kind(value, path, dict, "an object")
    if budget.get("type") not in (None, "tokens"):
        raise _wrong(f"{path}.type", "tokens")
    left = "total" if budget.get("remaining") is None else "remaining"
    tokens = _lax_budget(budget.get(left), f"{path}.{left}")["budget"]
    if tokens == UNLIMITED:
        raise _wrong(f"{path}.{left}", "a number of tokens")
    return {"most": tokens}


def _type(value: Any, path: str) -> Wish:
    switches = {"enabled": True, "adaptive": True, "disabled": False, "between_tools": False}
    if type(value) is not str or value not in switches:
        raise _wrong(path, "one of " + ", ".join(switches))
    return {"on": switches[value]}


class Spelling(NamedTuple):
    """One way to ask: `path` in the body, dots between levels, and what a value there means."""

    path: str
    means: Callable[[Any, str], Wish]


SPELLINGS = (
    Spelling("thinking_token_budget", _budget),  # vLLM
    Spelling("chat_template_kwargs.enable_thinking", _switch),  # vLLM, SGLang, NVIDIA
    Spelling("chat_template_kwargs.low_effort", _low_effort),  # Nemotron 3's templates
    Spelling("enable_thinking", _switch),  # Qwen's clouds
    Spelling("thinking_budget", _budget),
    Spelling("reasoning_budget", _budget),  # NVIDIA's hosted API
    Spelling("nvext.max_thinking_tokens", _budget),  # NVIDIA Dynamo
    Spelling("nvidia.enable_thinking", _switch),  # seen in clients
    Spelling("nvidia.reasoning_budget", _budget),
    Spelling("nvidia.low_effort", _low_effort),
    Spelling("reasoning_effort", _effort),  # OpenAI's chat
    Spelling("reasoning.effort", _effort),  # OpenAI's responses, OpenRouter
    Spelling("reasoning.max_tokens", _budget),  # OpenRouter
    Spelling("reasoning.enabled", _switch),
    Spelling("reasoning.exclude", _hide),
    Spelling("thinking.type", _type),  # Anthropic, DeepSeek
    Spelling("thinking.budget_tokens", _lax_budget),
    Spelling("output_config.effort", _effort),  # Anthropic
    Spelling("output_config.task_budget", _task_budget),
    Spelling("include_reasoning", _show),  # vLLM, OpenRouter
)
"""Every spelling, in every dialect."""


@dataclass(frozen=True, slots=True)
class _FieldSpellings:
    """A top-level field, and the spellings in it: the whole field, or members of it."""

    whole: Spelling | None
    members: tuple[tuple[str, Spelling], ...]


def _places() -> dict[str, _FieldSpellings]:
    found: dict[str, _FieldSpellings] = {}
    for spelling in SPELLINGS:
        top, _, member = spelling.path.partition(".")
        place = found.get(top, _FieldSpellings(None, ()))
        whole = place.whole if member else spelling
        found[top] = _FieldSpellings(whole, (*place.members, (member, spelling)) if member else place.members)
    return found


_PLACES: Mapping[str, _FieldSpellings] = _places()
INTENT_FIELDS: Final = frozenset(_PLACES)
"""The top-level fields that can say something about thinking: a body with none of them has no intent."""


def read_intent(body: Body, heeds: frozenset[str]) -> Intent:
    """The intent of a body; `heeds` are the paths that the node reads by itself. Raises `InvalidRequest`."""
    said: dict[str, tuple[Any, str]] = {}
    heeded = True
    for top in body:
        if top in INTENT_FIELDS:
            for value, spelling in _values(body[top], top):
                wish = spelling.means(value, spelling.path)
                _add(said, wish, spelling.path)
                heeded = heeded and (not wish or "most" in wish or spelling.path in heeds)
    if not said:
        return UNSAID
    _check_budget_fits_switch(said)
    budget_field = said["budget"][1] if "budget" in said else None
    intent = Intent(**{name: value for name, (value, _) in said.items()}, heeded=heeded, budget_field=budget_field)
    return intent if intent.most is None else _within_task(intent, intent.most)


def _within_task(intent: Intent, most: int) -> Intent:
    """The intent, which no node heeds where the task's budget bounds it."""
    free = intent.budget in (None, UNLIMITED) or intent.budget > most
    return intent._replace(heeded=False) if free and intent.on is not False else intent


def _values(value: Any, top: str) -> list[tuple[Any, Spelling]]:
    """What is said inside one top-level field."""
    place = _PLACES[top]
    if value is None:
        return []
    if place.whole is not None:
        return [(value, place.whole)]
    members = _kind(value, top, dict, "an object")
    return [(members[name], spelling) for name, spelling in place.members if members.get(name) is not None]


def _add(said: dict[str, tuple[Any, str]], wish: Wish, path: str) -> None:
    for name, value in wish.items():
        before, where = said.setdefault(name, (value, path))
        if before != value:
            _contradict(where, path)


def _check_budget_fits_switch(said: Mapping[str, tuple[Any, str]]) -> None:
    switch, budget = said.get("on"), said.get("budget")
    if switch is not None and budget is not None and switch[0] is False and budget[0] > 0:
        _contradict(switch[1], budget[1])


def _contradict(one: str, other: str) -> NoReturn:
    raise InvalidRequest(
        f"The fields {one!r} and {other!r} contradict each other: send one of them.",
        param=other,
        code="contradiction",
    )


def _kind(value: Any, path: str, kind: type[Any], expected: str) -> Any:
    if type(value) is not kind:
        raise _wrong(path, f"{expected}, not {json_kind(value)}")
    return value


def _wrong(path: str, expected: str) -> InvalidRequest:
    return InvalidRequest(f"The field {path!r} must be {expected}.", param=path, code="invalid_type")
