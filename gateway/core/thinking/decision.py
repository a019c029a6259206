"""How much a request may think: what the client wants, what the operator's rules allow, and what comes of it.

Theory. A wish passes through the rules in one order, each step may change what the one before it left, and the last
one that did is named as the source:

| step | rule | effect |
|---|---|---|
| switch | `mode` forbidden, required | off, on, whatever is asked |
| | asked | as asked |
| | `default` | on or off where nothing is asked |
| budget | asked | tokens; an effort is tokens by `efforts`; at most what is left of the client's task |
| | `default_budget` | where nothing is asked |
| cap | `max_budget` | at most this |
| room | `answer_reserve` | at most max_tokens less the reserve |
| tools | `floor_with_tools` | under it raised to it (within cap and room), else refused or off |
| floor | `floor` | under it switched off |

A thinking that is `required` is never switched off: it keeps what little the room allows.

So in every result: budget <= `max_budget`, budget <= max_tokens - `answer_reserve`, and a forbidden tenant thinks not.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

from gateway.core.bodies import Body
from gateway.core.errors import InvalidRequest
from gateway.core.thinking.grant import Headers, applied
from gateway.core.thinking.intent import EFFORTS, UNLIMITED, Intent
from gateway.core.thinking.resolved import Resolved

Mode = Literal["allowed", "forbidden", "required"]
Below = Literal["raise", "refuse"]


@dataclass(frozen=True, slots=True)
class ThinkingRules:
    """What one layer of the config says; None leaves it to the layer below. Budgets, reserve and floors in tokens.

    `efforts` maps an effort's word to a budget. `below` says what becomes of a budget under `floor_with_tools`.
    `guaranteed_budget` bounds what pressure takes (see `core.pressure`), and grants nothing.
    """

    mode: Mode | None = None
    default: bool | None = None
    default_budget: int | None = None
    max_budget: int | None = None
    efforts: Mapping[str, int] | None = None
    answer_reserve: int | None = None
    floor: int | None = None
    floor_with_tools: int | None = None
    below: Below | None = None
    hide: bool | None = None
    guaranteed_budget: int | None = None


_OFF = frozenset({"0", "off", "f", "false", "n", "no"})


class ThinkingDecision(NamedTuple):
    """`thinking` and `budget` as in `Grant`."""

    thinking: bool | None
    budget: int | None
    hide: bool
    headers: Headers


class _Budget(NamedTuple):
    """Tokens (None: no limit), and where they come from."""

    tokens: int | None
    source: str

    def at_most(self, limit: int | None, source: str) -> "_Budget":
        if limit is None or (self.tokens is not None and self.tokens <= limit):
            return self
        return _Budget(limit, source)


def decide(intent: Intent, terms: Resolved[ThinkingRules], max_tokens: int | None, tools: bool) -> ThinkingDecision:
    """What becomes of `intent`; `max_tokens` is what was granted, `tools` whether the answer may call some.

    Raises `InvalidRequest` where the rules say refuse.
    """
    rules = terms.rules
    hide = rules.hide is True
    headers: Headers = (
        ((b"x-fleetgate-reasoning", f"hidden; source={terms.by('hide', 'hide')}".encode()),) if hide else ()
    )
    on, source = _switch(intent, terms)
    if on is False:
        return ThinkingDecision(False, 0, hide, headers + _switch_header(False, source, intent))
    room = None if max_tokens is None else max(0, max_tokens - (rules.answer_reserve or 0))
    task = None if rules.mode == "required" and intent.most == 0 else intent.most
    budget = _wanted_budget(intent, terms).at_most(task, "request")
    budget = budget.at_most(rules.max_budget, _source(terms, "max_budget", "max"))
    if budget.tokens is not None or rules.answer_reserve is not None:
        budget = budget.at_most(room, "answer-reserve" if rules.answer_reserve else "max-tokens")
    if tools and rules.floor_with_tools:
        budget = _with_tools(budget, intent, terms, room)
    if _too_small(budget, rules.floor or 0) and rules.mode != "required":
        under = budget.source if budget.tokens == 0 or not rules.floor else terms.by("floor", "floor")
        return ThinkingDecision(False, 0, hide, headers + _switch_header(False, under, intent))
    if on is not None and source != "request":
        headers += _switch_header(on, source, intent)
    return ThinkingDecision(on, budget.tokens, hide, headers + _budget_header(budget, intent))


def refuse_unholdable(body: Body, budget: int | None) -> None:
    """Refuse what no node and no gateway can hold `budget` in (tokens; None: there is none to hold).

    Raises `InvalidRequest` for a beam search: vLLM does not apply a budget there, and its beams cannot be counted.
    """
    if budget is None or "use_beam_search" not in body or _is_off(body["use_beam_search"]):
        return
    raise InvalidRequest(
        "A thinking budget cannot be enforced in a beam search: remove 'use_beam_search', or, if the budget is your "
        "own, remove it.",
        param="use_beam_search",
        code="thinking_budget_not_enforceable",
    )


def _is_off(switch: object) -> bool:
    """Whether a node reads `switch` as false (it is as lenient as pydantic)."""
    return switch in (None, False, 0) or (type(switch) is str and switch.lower() in _OFF)


def _switch(intent: Intent, terms: Resolved[ThinkingRules]) -> tuple[bool | None, str]:
    """On, off or as the model has it, and why."""
    rules = terms.rules
    if rules.mode in ("forbidden", "required"):
        return rules.mode == "required", terms.by("mode", rules.mode)
    if intent.on is not None:
        return intent.on, "request"
    if rules.default is None:
        return None, "request"
    if intent.wants_thinking:
        return True, "request"
    return rules.default, terms.by("default", "default")


def _wanted_budget(intent: Intent, terms: Resolved[ThinkingRules]) -> _Budget:
    """What is asked for, by number or by effort, else the default. A required thinking heeds no wish for none."""
    rules = terms.rules
    wanted = not (rules.mode == "required" and (intent.on is False or intent.budget == 0))
    if wanted and intent.budget is not None:
        return _Budget(None if intent.budget == UNLIMITED else intent.budget, "request")
    if wanted and intent.effort is not None and rules.efforts:
        return _Budget(budget_of_effort(intent.effort, rules.efforts), terms.by("efforts", "effort"))
    return _Budget(rules.default_budget, _source(terms, "default_budget", "default"))


def budget_of_effort(effort: str, efforts: Mapping[str, int]) -> int:
    """The budget for a word: its own, else that of the next weaker word which has one, else of the next stronger."""
    at = EFFORTS.index(effort)
    for word in (*reversed(EFFORTS[: at + 1]), *EFFORTS[at + 1 :]):
        if word in efforts:
            return efforts[word]
    raise AssertionError("an effort map has entries")


def _with_tools(budget: _Budget, intent: Intent, terms: Resolved[ThinkingRules], room: int | None) -> _Budget:
    """A tiny budget beside tools is not kept: its forced end can land inside a tool call's arguments.

    None at all is no danger, and needs no raise.
    """
    rules = terms.rules
    floor = rules.floor_with_tools or 0
    asked_none = budget.source == "request" and budget.tokens == 0
    if budget.tokens is None or budget.tokens >= floor or asked_none:
        return budget
    raised = _Budget(floor, terms.by("floor_with_tools", "floor-with-tools"))
    fits = raised.at_most(rules.max_budget, "").at_most(room, "").tokens == floor
    if rules.below != "refuse" and fits:
        return raised
    if rules.below == "refuse" or rules.mode == "required":
        raise InvalidRequest(
            f"With tools at least {floor} tokens of thinking are required, and {budget.tokens} are available: "
            "send a larger budget or max_tokens, or no tools.",
            param=intent.budget_field or "tools",
            code="thinking_budget_too_small",
        )
    return _Budget(0, raised.source)


def _too_small(budget: _Budget, floor: int) -> bool:
    """Under the floor, or nothing left of what was wanted: then thinking is better off than cut."""
    if budget.tokens is None:
        return False
    return budget.tokens < floor or (budget.tokens == 0 and budget.source != "request")


def _source(terms: Resolved[ThinkingRules], field: str, rule: str) -> str:
    return terms.by(field, rule) if field in terms.layers else "request"


def _switch_header(on: bool, source: str, intent: Intent) -> Headers:
    return ((b"x-fleetgate-thinking", applied("on" if on else "off", source, intent.asked)),)


def _budget_header(budget: _Budget, intent: Intent) -> Headers:
    if budget.tokens is None:
        return ()
    return ((b"x-fleetgate-thinking-budget", applied(str(budget.tokens), budget.source, intent.asked)),)
