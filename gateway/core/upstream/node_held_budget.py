"""A request whose thinking budget the node holds, with a backstop against a node that does not."""

from functools import partial

from gateway.core.budgets.backstop import Backstop
from gateway.core.budgets.continuation import Overshoot, budget_terms, countable
from gateway.core.budgets.judging import begins_in_thought, is_evidence, is_plain
from gateway.core.budgets.messages_backstop import MessagesBackstop
from gateway.core.dialects.chat import wants_usage
from gateway.core.dialects.stream_filter import ChainedFilter, StreamFilter
from gateway.core.fleet.capabilities import Capabilities
from gateway.core.plan import Plan
from gateway.core.upstream.node_request_kinds import BudgetReport, NodeRequest, WrappedRequest
from gateway.core.usage.token_usage import Usage


class NodeHeldBudget(WrappedRequest):
    """Wraps `inner`, a request that passes through, and reports whether its answer overran the budget."""

    __slots__ = (
        "_backstop",
        "_budget",
        "_capabilities",
        "_limit",
        "_max_tokens",
        "_overran",
        "_switch",
        "rewrites",
    )

    follows_thinking = True

    def __init__(
        self, inner: NodeRequest, plan: Plan, budget: int, capabilities: Capabilities, overshoot: Overshoot
    ) -> None:
        super().__init__(inner, inner.ask, inner.dialect)
        self.rewrites = inner.rewrites
        self._limit = overshoot.limit(budget)
        self._capabilities = capabilities
        self._budget = budget
        self._max_tokens = plan.max_tokens
        self._switch = plan.thinking
        self._backstop: Backstop | MessagesBackstop | None = None
        self._overran = False

    def stream_filter(self) -> StreamFilter:
        backstop = self._backstop = self._new_backstop()
        if backstop is None:
            return self._inner.stream_filter()
        return ChainedFilter(backstop, self._inner.stream_filter()) if self.rewrites else backstop

    def _new_backstop(self) -> Backstop | MessagesBackstop | None:
        """None where thinking cannot be counted on the stream."""
        ask, limit, pace = self.ask, self._limit, self._capabilities.pace
        if not begins_in_thought(ask.body):
            return None
        if self.dialect.anthropic:
            return None if self.rewrites else MessagesBackstop(limit, pace)
        if not countable(ask.body):
            return None
        # Not a method of this object, which refers to the backstop: that would be a reference cycle.
        terms = partial(budget_terms, self._inner.body, self._budget, self._max_tokens, self._capabilities, ask.stream)
        return Backstop(terms, self.rewrites or wants_usage(ask), limit, pace)

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
