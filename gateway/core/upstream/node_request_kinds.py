"""The kinds of requests to a node, and how each makes the client's answer of the node's.

They compose: a translated request wraps the request of its chat. `node_request` decides which one a node is sent.
"""

from typing import Final

from gateway.core.bodies import parse_trusted
from gateway.core.budgets.assembly import AnswerAssembly
from gateway.core.budgets.continuation import opening_request, tokenize_prompt
from gateway.core.budgets.enforcement import Enforcement
from gateway.core.budgets.hiding import HidingFilter, hide_whole, hider_of
from gateway.core.dialects.base import Ask, Dialect
from gateway.core.dialects.over_chat.base import OverChat
from gateway.core.dialects.stream_filter import ChainedFilter, StreamFilter
from gateway.core.errors import BadUpstreamResponse
from gateway.core.fleet.capabilities import Capabilities
from gateway.core.json_text import dump, parse_object
from gateway.core.plan import Plan
from gateway.core.responses.kept_turn import KeptTurn
from gateway.core.resume.resumability import Resumability
from gateway.core.usage.token_usage import Usage

NOT_RESUMABLE: Final = Resumability.NO


class BudgetReport:
    """What an answer shows of its node's thinking.

    `overran`: it thought far beyond the budget that the node was trusted to hold. `evidence`: that counts against the
    node (see `judging`). `pace`: tokens in an event of its thinking, None where it is not known.
    """

    __slots__ = ("evidence", "overran", "pace")

    def __init__(self, overran: bool, evidence: bool, pace: float | None) -> None:
        self.overran = overran
        self.evidence = evidence
        self.pace = pace


class NodeRequest:
    """A request whose answer is passed on as it came; the base of all kinds.

    `path` and `body` are the node's, `ask` and `dialect` the client's.
    """

    __slots__ = ("ask", "body", "dialect", "kept", "path", "resumability")

    resumable = False
    """Whether its answer can go on on another node: its stream filter is a `Checkpoint`. Every step of the engine then
    shows as an event."""

    reads_ids = False
    """Whether the stream filter reads token ids."""

    assembles = False
    """Whether the node streams and the client gets a plain answer: the filter's `feed` returns nothing, its `flush` the
    whole body."""

    follows_thinking = False
    """Whether the stream filter counts thinking, so that a translation has to be chained behind it."""

    needs_stream = False
    """Whether the node has to stream: thinking is counted, or taken out, by the event."""

    rewrites = False
    """Whether `plain` changes the body: the node's answer is then held until it is whole, however long."""

    def __init__(self, path: str, body: bytes, ask: Ask, dialect: Dialect) -> None:
        self.path = path
        self.body = body
        self.ask = ask
        self.dialect = dialect
        self.resumability = NOT_RESUMABLE
        self.kept: KeptTurn | None = None
        """What its answer completes: its end is held back then."""

    @property
    def budget_report(self) -> BudgetReport | None:
        """After the answer: what it shows of the node; None where no budget was watched."""
        return None

    @property
    def shows_life(self) -> bool:
        """Whether an answer shows that the node's engine works. Its server alone counts tokens, reads stored responses
        and accepts background work."""
        return self.dialect.computes and not self.ask.background

    def stream_filter(self) -> StreamFilter:
        """A new filter for a streamed answer."""
        return self.dialect.stream_filter(self.ask)

    def plain(self, status: int, body: bytes) -> bytes:
        """The client's body for a plain or an assembled answer, an error's included."""
        return body

    def usage(self, body: bytes) -> Usage | None:
        """The usage that a plain answer of the node reports."""
        return self.dialect.usage(body)

    def gave_up(self, body: bytes) -> bool:
        """Whether a plain answer was aborted by the node."""
        return self.dialect.gave_up(body)


class WrappedRequest(NodeRequest):
    """A request that is sent as `inner` is, and leaves to it what it does not change itself."""

    __slots__ = ("_inner",)

    def __init__(self, inner: NodeRequest, ask: Ask, dialect: Dialect) -> None:
        super().__init__(inner.path, inner.body, ask, dialect)
        self._inner = inner
        self.kept = inner.kept

    def plain(self, status: int, body: bytes) -> bytes:
        return self._inner.plain(status, body)

    def usage(self, body: bytes) -> Usage | None:
        return self._inner.usage(body)

    def gave_up(self, body: bytes) -> bool:
        return self._inner.gave_up(body)

    @property
    def budget_report(self) -> BudgetReport | None:
        return self._inner.budget_report


class HiddenReasoning(NodeRequest):
    """A request whose answer is passed on without its reasoning."""

    __slots__ = ()

    rewrites = True

    def stream_filter(self) -> StreamFilter:
        return HidingFilter(super().stream_filter(), hider_of(self.dialect, self.ask.behind))

    def plain(self, status: int, body: bytes) -> bytes:
        return hide_whole(hider_of(self.dialect), body) if status == 200 else body


class EnforcedBudget(NodeRequest):
    """A streamed chat or completions request whose thinking budget the gateway holds."""

    __slots__ = ("_terms",)

    follows_thinking = True
    needs_stream = True
    reads_ids = True

    def __init__(self, plan: Plan, body: bytes, budget: int, capabilities: Capabilities) -> None:
        # The body that is sent asks for usage in any case; the terms go by what the client asked for.
        wanted = {"stream_options": plan.ask.body.get("stream_options")}
        self._terms, first = opening_request(
            parse_trusted(body) | wanted,
            chat=plan.dialect.templated,
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
    """The same for a client that asked for a plain answer."""

    __slots__ = ()

    assembles = True

    def stream_filter(self) -> StreamFilter:
        return AnswerAssembly(Enforcement(self._terms), self._terms.chat)


class TranslatedRequest(WrappedRequest):
    """A request that is sent as chat: `inner` is the chat's request, `over` the translation."""

    __slots__ = ("_over", "assembles", "needs_stream", "reads_ids")

    rewrites = True

    def __init__(self, plan: Plan, inner: NodeRequest, over: OverChat) -> None:
        super().__init__(inner, plan.ask, plan.dialect)
        self._over = over
        over.hide = plan.hide
        self.kept = over.keep(plan.kept, plan.ask.continued)
        self.assembles = inner.assembles
        self.needs_stream = inner.needs_stream
        self.reads_ids = inner.reads_ids

    def stream_filter(self) -> StreamFilter:
        if not self._inner.follows_thinking:  # the translation parses every chunk, and hides reasoning by itself
            return self._over.stream_filter()
        inner = self._inner.stream_filter()
        return inner if self.assembles else ChainedFilter(inner, self._over.stream_filter())

    def plain(self, status: int, body: bytes) -> bytes:
        return self._over.plain(status, self._inner.plain(status, body))


class TokenizedRequest(NodeRequest):
    """A request for the tokens of a prompt: the chat `over` that it would be is tokenized."""

    __slots__ = ("_over",)

    rewrites = True

    def __init__(self, plan: Plan, over: OverChat) -> None:
        super().__init__("/tokenize", dump(tokenize_prompt(over.chat)), plan.ask, plan.dialect)
        self._over = over

    def plain(self, status: int, body: bytes) -> bytes:
        if status != 200:
            return self._over.plain(status, body)
        count = parse_object(body).get("count")
        if type(count) is not int:
            raise BadUpstreamResponse("The node's answer is not a count of tokens.")
        return dump({"object": "response.input_tokens", "input_tokens": count})
