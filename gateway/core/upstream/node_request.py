"""One attempt as one node gets it: what is sent, and how what comes back becomes the client's answer.

The plan is the same for every node, the sending is not: a node that does not hold a thinking budget is asked
otherwise than one that does. Three things can stand between the node's bytes and the client's, and they compose:
pass-through (`NodeRequest` itself), the enforcement of a budget, and the translation of another dialect to chat.
"""

from collections.abc import Iterator

from gateway.core.bodies import dump, parse_again
from gateway.core.budgets.assembly import AnswerAssembly
from gateway.core.budgets.backstop import Backstop, MessagesBackstop
from gateway.core.budgets.continuation import SLACK, BudgetTerms, Overshoot, budget_terms, countable, opening_request
from gateway.core.budgets.enforcement import Enforcement
from gateway.core.budgets.hiding import HidingFilter, hide_whole, hider_of
from gateway.core.budgets.judging import begins_in_thought, is_evidence, is_plain
from gateway.core.dialects.base import Ask, Dialect
from gateway.core.dialects.chat import Chat, wants_usage
from gateway.core.dialects.over_chat.base import OverChat
from gateway.core.dialects.stream_filter import ChainedFilter, StreamFilter
from gateway.core.errors import InvalidRequest
from gateway.core.fleet.capabilities import Capabilities
from gateway.core.plan import Plan
from gateway.core.usage.token_usage import Usage

MESSAGES_HOLD_BUDGETS = MESSAGES_TAKE_SALTS = (0, 32)
"""The first version of vLLM that is known to read a budget and a salt in messages; 0.22 takes no notice of them."""

NO_END = 1 << 62
"""A budget in tokens that nobody spends: thinking is followed, and never ended."""


class NodeRequest:
    """What came goes on as it came. The other ways inherit from this one and say what they do otherwise.

    `path` and `body` are the node's, `ask` and `dialect` the client's.
    """

    __slots__ = ("ask", "body", "dialect", "path")

    assembles = False
    """Whether the node streams and the client gets one plain answer: then a watch's `feed` gives nothing, and its
    `release` the whole body."""

    needs_stream = False
    """Whether only a streamed answer will do: what thinking has to be counted, or taken out, by the event."""

    rewrites = False
    """Whether `plain` changes what it is given: then the node's answer is held until it is whole, however long."""

    @property
    def budget_report(self) -> "BudgetReport | None":
        """After the answer: what it says of the node, None where nothing was to be seen."""
        return None

    @property
    def shows_life(self) -> bool:
        """Whether an answer shows that a model works behind the node's server, which by itself counts tokens, reads
        stored responses, and takes work for later."""
        return self.dialect.computes and not self.ask.background

    def __init__(self, path: str, body: bytes, ask: Ask, dialect: Dialect) -> None:
        self.path = path
        self.body = body
        self.ask = ask
        self.dialect = dialect

    def stream_filter(self) -> StreamFilter:
        """A fresh follower for a streamed answer: the node's bytes in, the client's bytes out."""
        return self.dialect.stream_filter(self.ask)

    def plain(self, status: int, body: bytes) -> bytes:
        """The client's body for a node's (or an assembled) plain answer, an error's included."""
        return body

    def usage(self, body: bytes) -> Usage | None:
        """What a plain answer of the node says that it used."""
        return self.dialect.usage(body)

    def gave_up(self, body: bytes) -> bool:
        """Whether a plain answer of the node says that it ended it early for reasons of its own."""
        return self.dialect.gave_up(body)


class HiddenReasoning(NodeRequest):
    """The same without reasoning: the node is asked as ever, and what it thought is taken out of its answer."""

    __slots__ = ()

    rewrites = True

    def stream_filter(self) -> StreamFilter:
        return HidingFilter(super().stream_filter(), hider_of(self.dialect))

    def plain(self, status: int, body: bytes) -> bytes:
        return hide_whole(hider_of(self.dialect), body) if status == 200 else body


class BudgetReport:
    """What a finished answer says of the node: whether it thought far beyond the budget that it was to hold, whether
    that is evidence (see `judging`), and how many tokens an event of its thinking had (None: not known)."""

    __slots__ = ("evidence", "overran", "pace")

    def __init__(self, overran: bool, evidence: bool, pace: float | None) -> None:
        self.overran = overran
        self.evidence = evidence
        self.pace = pace


class NodeHeldBudget(NodeRequest):
    """A request whose thinking budget the node holds, with the backstop behind it; `inner` is how it is sent."""

    __slots__ = (
        "_backstop",
        "_budget",
        "_capabilities",
        "_inner",
        "_limit",
        "_max_tokens",
        "_overran",
        "_switch",
        "rewrites",
    )

    def __init__(
        self, inner: NodeRequest, plan: Plan, budget: int, capabilities: Capabilities, overshoot: Overshoot
    ) -> None:
        super().__init__(inner.path, inner.body, inner.ask, inner.dialect)
        self.rewrites = inner.rewrites
        self._inner = inner
        self._limit = overshoot.limit(budget)
        self._capabilities = capabilities
        self._budget = budget
        self._max_tokens = plan.max_tokens
        self._switch = plan.thinking
        self._backstop: Backstop | MessagesBackstop | None = None
        self._overran = False

    def stream_filter(self) -> StreamFilter:
        plain = type(self._inner) is NodeRequest
        if not begins_in_thought(self.ask.body):
            return self._inner.stream_filter()
        if plain and self.dialect.name == "messages":
            self._backstop = MessagesBackstop(self._limit, self._capabilities.pace)
            return self._backstop
        if self.dialect.name != "chat" or not countable(self.ask.body):
            return self._inner.stream_filter()
        backstop = Backstop(self._terms, not plain or wants_usage(self.ask), self._limit, self._capabilities.pace)
        self._backstop = backstop
        return backstop if plain else ChainedFilter(backstop, self._inner.stream_filter())

    def _terms(self) -> BudgetTerms:
        return budget_terms(self._inner.body, self._budget, self._max_tokens, self._capabilities, self.ask.stream)

    def plain(self, status: int, body: bytes) -> bytes:
        return self._inner.plain(status, body)

    def usage(self, body: bytes) -> Usage | None:
        usage = self._inner.usage(body)
        beyond = usage is not None and (usage.reasoning or 0) > self._limit * self.ask.choices
        self._overran = beyond and begins_in_thought(self.ask.body)
        return usage

    @property
    def budget_report(self) -> BudgetReport | None:
        backstop = self._backstop
        overran = self._overran if backstop is None else backstop.overran
        pace = None if backstop is None else backstop.pace
        body = self.ask.body
        if pace is not None and not is_plain(body):
            pace = None
        return BudgetReport(overran, overran and self._switch is not False and is_evidence(body), pace)


class EnforcedBudget(NodeRequest):
    """A chat or completions request whose thinking budget the gateway holds itself."""

    __slots__ = ("_terms",)

    needs_stream = True

    def __init__(self, plan: Plan, body: bytes, budget: int, capabilities: Capabilities) -> None:
        self._terms, first = opening_request(
            parse_again(body),
            chat=plan.dialect.name == "chat",
            budget=budget,
            max_tokens=plan.max_tokens,
            capabilities=capabilities,
            stream=plan.ask.stream,
            hide=plan.hide,
        )
        super().__init__(plan.dialect.path, dump(first), plan.ask, plan.dialect)

    def stream_filter(self) -> StreamFilter:
        return Enforcement(self._terms)


class EnforcedPlainBudget(EnforcedBudget):
    """The same for a client that asked for no stream."""

    __slots__ = ()

    assembles = True

    def stream_filter(self) -> StreamFilter:
        return AnswerAssembly(Enforcement(self._terms), self._terms.chat)


class SentOverChat(NodeRequest):
    """Another dialect's request that is sent as chat: `inner` is how the chat is sent, `over` what it stands for."""

    __slots__ = ("_inner", "_over", "assembles", "needs_stream")

    rewrites = True

    def __init__(self, plan: Plan, inner: NodeRequest, over: OverChat) -> None:
        super().__init__(inner.path, inner.body, plan.ask, plan.dialect)
        self._inner = inner
        self._over = over
        over.hide = plan.hide
        self.assembles = inner.assembles
        self.needs_stream = inner.needs_stream

    def stream_filter(self) -> StreamFilter:
        if type(self._inner) in (NodeRequest, HiddenReasoning):  # the translator reads every chunk: nobody else has to
            return self._over.stream_filter()
        inner = self._inner.stream_filter()
        return inner if self.assembles else ChainedFilter(inner, self._over.stream_filter())

    def plain(self, status: int, body: bytes) -> bytes:
        return self._over.plain(status, self._inner.plain(status, body))

    def usage(self, body: bytes) -> Usage | None:
        return self._inner.usage(body)

    def gave_up(self, body: bytes) -> bool:
        return self._inner.gave_up(body)

    @property
    def budget_report(self) -> BudgetReport | None:
        return self._inner.budget_report


def node_request(plan: Plan, node: bytes, capabilities: Capabilities, overshoot: Overshoot = SLACK) -> NodeRequest:
    """How `plan` is sent to the node tagged `node`, which can do what `abilities` say; `slack` is what a budget that it
    holds may be exceeded by.

    Raises `InvalidRequest` where that node cannot serve it as planned.
    """
    if plan.grant.thinking_budget is None and not (plan.over_chat or plan.grant.hide or plan.salted):
        return NodeRequest(plan.dialect.path, plan.body_for(node), plan.ask, plan.dialect)
    sending: NodeRequest | None = None
    for step in node_request_steps(plan, node, capabilities, overshoot):
        sending = step
    assert sending is not None
    return sending


def node_request_steps(
    plan: Plan, node: bytes, capabilities: Capabilities, overshoot: Overshoot = SLACK
) -> Iterator[NodeRequest | None]:
    """`sending_to` in steps, for bodies that take long: gives None after each, and the sending after the last."""
    over = None
    if _goes_over_chat(plan, capabilities):
        body = parse_again(plan.body)
        yield None
        over = plan.dialect.over_chat(body)
        yield None
    if over is None:
        yield _holding_to(plan, plan.thinking_budget, node, capabilities, overshoot)
        return
    chat = _as_chat(plan, over)
    yield None
    try:
        inner = node_request(chat, node, capabilities, overshoot)
    except InvalidRequest as error:
        raise over.in_own_words(error) from None
    yield SentOverChat(plan, inner, over)


def _holding_to(
    plan: Plan, budget: int | None, node: bytes, capabilities: Capabilities, overshoot: Overshoot
) -> NodeRequest:
    """As the client asked, with the budget held by the node or by the gateway."""
    body = plan.body_for(node)
    mixed = plan.hide and capabilities.splits_reasoning is False and plan.dialect.name == "chat"
    if not mixed and (budget is None or _holds(plan, capabilities)):
        sending = (HiddenReasoning if plan.hide else NodeRequest)(plan.dialect.path, body, plan.ask, plan.dialect)
        counted = budget is not None and plan.dialect.name in ("chat", "messages")
        return (
            NodeHeldBudget(sending, plan, budget, capabilities, overshoot)
            if counted and budget is not None
            else sending
        )
    held = (
        EnforcedBudget if plan.ask.stream else EnforcedPlainBudget
    )  # who counts thinking also knows where it ends in a text
    return held(plan, body, NO_END if budget is None else budget, capabilities)


def _goes_over_chat(plan: Plan, capabilities: Capabilities) -> bool:
    """Whether the node is asked in chat in place of the client's dialect: where the config says so, and where the
    dialect cannot tell the node the plan's budget or salt, or the node is not known to heed it there (messages: since
    0.32)."""
    if plan.salted and plan.dialect.name == "messages" and (capabilities.version or (0,)) < MESSAGES_TAKE_SALTS:
        return True
    if plan.over_chat or plan.dialect.name not in ("messages", "responses"):
        return plan.over_chat
    if plan.hide and capabilities.splits_reasoning is False:  # see `_holding_to`
        return True
    if plan.thinking_budget is None:
        return False
    if plan.thinking is False:  # the template's switch is the same in every dialect
        return capabilities.native_off is False
    holds = capabilities.native_budget and (
        capabilities.version is None or capabilities.version >= MESSAGES_HOLD_BUDGETS
    )
    return not (plan.carried and holds)


def _holds(plan: Plan, capabilities: Capabilities) -> bool:
    """Whether the node keeps to the plan's budget by itself, told in the client's own dialect."""
    if plan.dialect.name not in ("chat", "completions"):
        return True
    if plan.thinking is False and plan.dialect.name == "chat":  # the template does it
        return capabilities.native_off is not False
    return bool(capabilities.native_budget)


def _as_chat(plan: Plan, over: OverChat) -> Plan:
    """The plan of the chat that stands for `plan`: the same grant, said in chat's fields."""
    chat = Chat()
    body = over.chat | chat.carry(over.chat, plan.grant)
    ask = plan.ask._replace(raw=dump(body), body=body, continues=None)
    return plan._replace(ask=ask, dialect=chat, body=ask.raw, minting=None, over_chat=False)
