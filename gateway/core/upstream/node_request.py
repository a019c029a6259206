"""The request that one node is sent for a plan: the decision, and the building of the request.

A plan is the same for every node; the request depends on what the node has proven that it can do. A node that meets all
needs of a plan (`NEEDS`) is sent the request in the client's dialect. For any other node the dialect decides
(`STRATEGIES`): the gateway enforces the budget itself, or translates the request to chat. The chat that stands for a
translated request is a plan of its own, decided by the same table.

    a plan may need       met by a node
    its fields read       of a version that reads them in the dialect (`Ask.taken_since`); an unknown one does not count
    a cache salt          of a version that reads salts in the dialect; an unknown version does not count
    hidden reasoning *    whose parser splits reasoning from content, or is not known not to
    thinking off *        that answered without thinking when it was off, or is not known not to
    a thinking budget     that held one, of a version that does so in the dialect or an unknown one, where the dialect's
                          fields can carry the budget

    * in dialects with a chat template (`Dialect.templated`); in others thinking off is a budget of 0

A model that the config sends over chat (`Plan.over_chat`) has every dialect translated that has a translation. So has
a streamed request whose answer is to be resumed (`Plan.resumes`), since only chat has token ids; where chat cannot say
what it asks for, or could not be resumed either, it is sent in its own dialect. And so has a response that the gateway
is to keep (`Plan.kept`), wherever chat can say what it asks for: whoever keeps it gives its items their ids. Neither is
translated where its node may do more in its own dialect (`OverChat.loses_work`): run tools by itself.
"""

from collections.abc import Callable, Iterator
from enum import Enum
from typing import NamedTuple

from gateway.core.bodies import Body, parse_trusted
from gateway.core.budgets.continuation import SLACK, Overshoot
from gateway.core.dialects.base import Ask
from gateway.core.dialects.chat import Chat
from gateway.core.dialects.over_chat.base import OverChat
from gateway.core.errors import InvalidRequest
from gateway.core.fleet.capabilities import Capabilities
from gateway.core.json_text import dump
from gateway.core.plan import Plan
from gateway.core.reading.outline import Outline, too_many_to_rewrite
from gateway.core.resume.followed_request import GENERATING
from gateway.core.resume.resumability import Resumability, resumability
from gateway.core.upstream.node_held_budget import NodeHeldBudget
from gateway.core.upstream.node_request_kinds import (
    EnforcedBudget,
    EnforcedPlainBudget,
    HiddenReasoning,
    NodeRequest,
    TokenizedRequest,
    TranslatedRequest,
)
from gateway.core.upstream.resumable_request import ResumableRequest

NO_END = 1 << 62
"""A budget in tokens that no answer spends: the enforcement follows thinking, and never ends it."""


class Strategy(Enum):
    """How a plan is sent."""

    PASS_THROUGH = "pass through"
    """In the client's dialect."""
    TRUST_NODE = "trust the node"
    """The same; the gateway watches that the node holds the plan's budget, if it has one."""
    ENFORCE = "enforce"
    """In the client's dialect; the gateway holds the budget, and finds where thinking ends."""
    TRANSLATE = "translate"
    """As chat."""
    TOKENIZE = "tokenize"
    """The chat is tokenized, and not answered."""


_REWRITING = (Strategy.ENFORCE, Strategy.TRANSLATE, Strategy.TOKENIZE)


class DialectStrategies(NamedTuple):
    """The strategies of a dialect for nodes that meet all needs of a plan (`able`), and for all others (`unable`)."""

    able: Strategy
    unable: Strategy


_ONLY_PASSED_THROUGH = DialectStrategies(Strategy.PASS_THROUGH, Strategy.PASS_THROUGH)

STRATEGIES: dict[str, DialectStrategies] = {
    "chat": DialectStrategies(Strategy.TRUST_NODE, Strategy.ENFORCE),
    "completions": DialectStrategies(Strategy.PASS_THROUGH, Strategy.ENFORCE),
    "messages": DialectStrategies(Strategy.TRUST_NODE, Strategy.TRANSLATE),
    "responses": DialectStrategies(Strategy.PASS_THROUGH, Strategy.TRANSLATE),
    "compact": DialectStrategies(Strategy.TRANSLATE, Strategy.TRANSLATE),
    "input_tokens": DialectStrategies(Strategy.TOKENIZE, Strategy.TOKENIZE),
    "count_tokens": _ONLY_PASSED_THROUGH,
    "embeddings": _ONLY_PASSED_THROUGH,
    "pooling": _ONLY_PASSED_THROUGH,
    "rerank": _ONLY_PASSED_THROUGH,
    "score": _ONLY_PASSED_THROUGH,
    "tokenize": _ONLY_PASSED_THROUGH,
    "detokenize": _ONLY_PASSED_THROUGH,
}
"""The decision, by the dialect's name."""


def _switches_off(plan: Plan) -> bool:
    """Whether the chat template ends thinking, which every dialect that has one tells it alike."""
    return plan.thinking is False and plan.thinking_budget is not None and plan.dialect.templated


def _takes_salt(plan: Plan, node: Capabilities) -> bool:
    return (node.version or ()) >= plan.dialect.salt_since


def _holds_budget(plan: Plan, node: Capabilities) -> bool:
    recent = node.version is None or node.version >= plan.dialect.budget_since
    return plan.carried and recent and bool(node.native_budget)


class Need(NamedTuple):
    """Something that plans may need of a node: whether a plan does, and whether a node meets it."""

    applies: Callable[[Plan], bool]
    is_met: Callable[[Plan, Capabilities], bool]


NEEDS: tuple[Need, ...] = (
    Need(lambda plan: plan.ask.taken_since != (), lambda plan, node: (node.version or ()) >= plan.ask.taken_since),
    Need(lambda plan: plan.salted, _takes_salt),
    Need(lambda plan: plan.hide and plan.dialect.templated, lambda _, node: node.splits_reasoning is not False),
    Need(_switches_off, lambda _, node: node.native_off is not False),
    Need(lambda plan: plan.thinking_budget is not None and not _switches_off(plan), _holds_budget),
)


def choose_strategy(plan: Plan, capabilities: Capabilities) -> Strategy:
    """How `plan` is sent to a node with these capabilities."""
    able, unable = STRATEGIES[plan.dialect.name]
    if plan.over_chat and unable is Strategy.TRANSLATE:
        return Strategy.TRANSLATE
    for need in NEEDS:
        if need.applies(plan) and not need.is_met(plan, capabilities):
            return unable
    return able


def node_request(plan: Plan, node: bytes, capabilities: Capabilities, overshoot: Overshoot = SLACK) -> NodeRequest:
    """The request for `plan` to the node tagged `node`; `overshoot` bounds a budget that the node holds.

    Raises `InvalidRequest` where that node cannot serve the plan.
    """
    needs = plan.grant.thinking_budget is not None or plan.over_chat or plan.grant.hide or plan.salted
    needs = needs or plan.ask.taken_since != ()
    resumed = plan.resumes and plan.ask.stream
    needs = needs or _is_of_gateway(plan)
    if not needs and not (resumed and STRATEGIES[plan.dialect.name].unable is Strategy.TRANSLATE):
        direct = NodeRequest(plan.dialect.path, plan.body_for(node), plan.ask, plan.dialect)
        return _resumable(direct, plan, capabilities) if resumed else direct
    request: NodeRequest | None = None
    for step in node_request_steps(plan, node, capabilities, overshoot):
        request = step
    assert request is not None
    return request


def node_request_steps(
    plan: Plan, node: bytes, capabilities: Capabilities, overshoot: Overshoot = SLACK
) -> Iterator[NodeRequest | None]:
    """`node_request` in steps, for large bodies: None after each, and the request after the last."""
    strategy = choose_strategy(plan, capabilities)
    if type(plan.ask.body) is Outline and strategy in _REWRITING:
        raise too_many_to_rewrite()
    if strategy is Strategy.TOKENIZE:
        counted = _over_chat(plan, parse_trusted(plan.body))
        yield None
        yield TokenizedRequest(plan, counted)
        return
    if strategy is not Strategy.TRANSLATE and not _gains_by_chat(plan, capabilities):
        yield _resumable(_in_own_dialect(plan, strategy, node, capabilities, overshoot), plan, capabilities)
        return
    body = parse_trusted(plan.body)
    yield None
    over = _over_chat(plan, body) if strategy is Strategy.TRANSLATE else _over_chat_if_possible(plan, body)
    yield None
    chat = None if over is None else _as_chat(plan, over)
    yield None
    for_resuming = strategy is not Strategy.TRANSLATE and not _is_of_gateway(plan)
    if chat is not None and for_resuming and resumability(chat.ask) is Resumability.NO:
        chat = None
    if chat is None or over is None:
        yield _in_own_dialect(plan, strategy, node, capabilities, overshoot)
        return
    try:
        inner = node_request(chat, node, capabilities, overshoot)
    except InvalidRequest as error:
        raise over.in_own_words(error) from None
    chat.resumes, chat.loops = plan.resumes, plan.loops
    yield _resumable(TranslatedRequest(plan, inner, over), chat, capabilities)


def _gains_by_chat(plan: Plan, capabilities: Capabilities) -> bool:
    """Whether `plan` is sent as chat so that its answer can be kept or resumed. A response that its node is to store is
    not: chat stores nothing."""
    if type(plan.ask.body) is Outline:
        return False
    if _is_of_gateway(plan):
        return True
    if not (plan.resumes and plan.ask.stream and STRATEGIES[plan.dialect.name].unable is Strategy.TRANSLATE):
        return False
    return not plan.dialect.mints_ids or plan.ask.body.get("store") is False or capabilities.stores_responses is False


def _is_of_gateway(plan: Plan) -> bool:
    """Whether the gateway is to keep the answer, or has put a kept conversation before its request: only the gateway
    can say so in the answer."""
    return plan.kept is not None or plan.ask.continued is not None


def _over_chat(plan: Plan, body: Body) -> OverChat:
    """The translation of `plan`."""
    over = plan.dialect.over_chat(body)
    assert over is not None, "a dialect that is translated has a translation"
    return over


def _over_chat_if_possible(plan: Plan, body: Body) -> OverChat | None:
    """The same; None where chat cannot say what is asked for, or its node would do less."""
    try:
        over = _over_chat(plan, body)
    except InvalidRequest:
        return None
    return None if over.loses_work else over


def _resumable(request: NodeRequest, plan: Plan, capabilities: Capabilities) -> NodeRequest:
    """`request` such that its answer can be resumed, and its loops are ended, where that is wanted and possible: token
    ids are asked for where it is to be resumed, and where the gateway holds a budget. `plan`: that of the chat or
    completions request that the node gets."""
    wanted = plan.resumes or (plan.loops.any and request.reads_ids)
    if not wanted or not (plan.ask.stream or request.needs_stream) or not request.shows_life:
        return request
    if request.path not in GENERATING or (how := resumability(plan.ask)) is Resumability.NO:
        return request
    return ResumableRequest(request, plan, capabilities, how)


def _in_own_dialect(
    plan: Plan, strategy: Strategy, node: bytes, capabilities: Capabilities, overshoot: Overshoot
) -> NodeRequest:
    body, budget = plan.body_for(node), plan.thinking_budget
    if strategy is Strategy.ENFORCE:
        enforced = EnforcedBudget if plan.ask.stream else EnforcedPlainBudget
        return enforced(plan, body, NO_END if budget is None else budget, capabilities)
    request = (HiddenReasoning if plan.hide else NodeRequest)(plan.dialect.path, body, plan.ask, plan.dialect)
    if strategy is Strategy.TRUST_NODE and budget is not None:
        return NodeHeldBudget(request, plan, budget, capabilities, overshoot)
    return request


def _as_chat(plan: Plan, over: OverChat) -> Plan:
    """The plan of the chat that stands for `plan`: the same grant in chat's fields."""
    chat = Chat()
    body = over.chat | chat.carry(over.chat, plan.grant)
    asked = plan.ask
    ask = Ask(dump(body), body, asked.model, asked.stream, asked.intent, asked.max_tokens)
    ask.background = asked.background
    made = Plan(ask, chat, plan.model, ask.raw, None, plan.pinned_to, plan.grant, plan.bytes_per_token)
    made.salted, made.counted, made.least = plan.salted, plan.counted, plan.least
    return made
