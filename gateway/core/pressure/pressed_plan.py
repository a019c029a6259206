"""A plan under pressure: the same with a smaller thinking budget.

    the plan                                                  under pressure
    does not think, or makes no tokens                        stays
    has a budget                                              what `Squeeze.budget` leaves of it
    has none, in a dialect with a template, and the model     what it leaves of `default_budget`, where that is less
    is known to think                                         than `max_tokens`
    could not be answered within the smaller budget           stays

The last row: where a node does not hold budgets, the gateway ends thinking by going on with the answer from its token
ids. Where that is not possible (tools, pictures, several answers), the budget would end the answer with the thinking,
or have the request refused. A budget that its dialect cannot carry has the request sent as chat, which may refuse it.
"""

from typing import NamedTuple

from gateway.core.bodies import parse_trusted
from gateway.core.body_edits import edit_body
from gateway.core.budgets.continuation import countable, shows_pictures
from gateway.core.errors import InvalidRequest
from gateway.core.plan import Plan
from gateway.core.pressure.squeeze import Squeeze, ThinkingClaim
from gateway.core.reading.outline import Outline
from gateway.core.thinking.decision import ThinkingRules
from gateway.core.thinking.grant import Grant, applied

_HEADER = b"x-fleetgate-thinking-budget"
_PICTURES = (b'"input_image"', b'"input_file"')
"""The types of parts of responses that token ids cannot carry: a quote in text is escaped."""


class PressedPlan(NamedTuple):
    """The plan to go by. `claim` is None where pressure leaves the request alone, now and while it runs."""

    plan: Plan
    claim: ThinkingClaim | None


def press(plan: Plan, squeeze: Squeeze, rules: ThinkingRules | None, traffic_class: str) -> PressedPlan:
    """What pressure makes of `plan`, for which `rules` hold."""
    if type(plan.ask.body) is Outline:
        return PressedPlan(plan, None)  # the places of its fields are those of what the client sent
    claim = _claim_of(plan, squeeze, rules, traffic_class)
    if claim is None:
        return PressedPlan(plan, None)
    budget = squeeze.budget(claim)
    if plan.thinking_budget is None:
        if squeeze.factor >= 1.0 or (plan.max_tokens is not None and budget >= plan.max_tokens):
            return PressedPlan(plan, None)
    elif budget >= plan.thinking_budget:
        return PressedPlan(plan, claim)
    full = plan.grant
    headers = _told(plan, budget)
    grant = Grant(full.max_tokens, full.thinking, budget, full.effort, full.low, full.hide, headers)
    if not _is_sent(plan, grant):
        return PressedPlan(plan, None)
    body = parse_trusted(plan.body)
    changed = edit_body(plan.body, body, plan.dialect.carry(body, grant), frozenset())
    return PressedPlan(plan.with_grant(grant, changed), claim)


def _claim_of(plan: Plan, squeeze: Squeeze, rules: ThinkingRules | None, traffic_class: str) -> ThinkingClaim | None:
    ask, full = plan.ask, plan.thinking_budget
    if full == 0 or plan.thinking is False or not plan.dialect.output_fields:
        return None
    if full is None and not (squeeze.thinks and plan.dialect.templated):
        return None
    if ask.body.get("use_beam_search") or not (squeeze.native or _continuable(plan)):
        return None
    least = 0
    if rules is not None:
        with_tools = rules.floor_with_tools if ask.tools else None
        least = max(rules.guaranteed_budget or 0, rules.floor or 0, with_tools or 0)
    return ThinkingClaim(max(squeeze.rules.default_budget, least) if full is None else full, least, traffic_class)


def _continuable(plan: Plan) -> bool:
    """Whether the gateway can end the thinking of an answer to `plan`, and go on with the answer."""
    ask = plan.ask
    if not countable(ask.body):
        return False
    if not plan.dialect.templated:
        return True
    return not (ask.tools or shows_pictures(ask.body) or any(mark in ask.raw for mark in _PICTURES))


def _is_sent(plan: Plan, grant: Grant) -> bool:
    """Whether a node can be sent `grant` in place of the plan's own."""
    if plan.dialect.carries(grant) or not plan.carried:
        return True
    body = plan.ask.body
    if plan.ask.background or plan.pinned_to is not None:
        return False
    if plan.dialect.mints_ids and plan.kept is None and body.get("store") is not False:
        return False  # chat stores nothing
    try:
        over = plan.dialect.over_chat(body)
    except InvalidRequest:
        return False
    return over is not None and not over.loses_work


def _told(plan: Plan, budget: int) -> tuple[tuple[bytes, bytes], ...]:
    others = tuple(header for header in plan.headers if header[0] != _HEADER)
    return (*others, (_HEADER, applied(str(budget), "pressure", plan.ask.intent.asked)))
