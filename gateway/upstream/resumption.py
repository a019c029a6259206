"""Goes on with an answer that has broken off: judges the break, waits for a node, and asks the checkpoint how.

    what is found                                what follows
    it killed two nodes, or was resumed too      the client's error
    often (`Resumes`)
    it cannot go on (`Checkpoint.check`)         the client's error
    no node is ready, all are full, or too many  wait, up to `ResumeRules.wait`; comments go on
    are resumed at once (`ResumeBudget`)
    a node has a place                           a lease on it, and the follow-up that continues the answer

Nothing is held while it waits: the lease on the broken node is released before. A node that broke off is asked again
only where no other has a place.
"""

import asyncio
from math import inf

from gateway.core.dialects.stream_filter import FollowUpRequest
from gateway.core.errors import ClientGone, GatewayError, NodeLeaving, Overloaded, StreamLost, UpstreamError
from gateway.core.http.sse import KEEP_ALIVE
from gateway.core.resume.budget import ResumeBudget, ResumeDecision, Resumes
from gateway.core.resume.checkpoint import Checkpoint
from gateway.core.resume.note import ResumeNote
from gateway.core.resume.resumability import ResumeRules
from gateway.core.telemetry.request_stats import RequestStats
from gateway.core.upstream.attempts import RetryBudget, outcome
from gateway.fleet.node import AnotherLease, Lease, Node
from gateway.upstream.downstream import DownstreamRequest
from gateway.upstream.failed_answers import deadline_exceeded, shutting_down

STEP = 0.05
"""Seconds between two looks for a node."""

RESPITE = 0.5
"""Seconds before a node that broke off is asked again, where there is no other."""

VAIN_LOOKS = 500.0
"""Looks a second that may find no node, of all answers of a model: each costs up to a millisecond of the event loop."""

AT_ONCE = 50
"""Answers that wait with a look every `STEP`; where more do, each looks less often."""

LONGEST_STEP = 1.0
"""Seconds between two looks of one answer, at the most."""


class ResumeBudgets:
    """What resumes may cost each model, and what waiting may cost the process. `closing`: the process ends, and nothing
    is resumed any more. `waiting`: answers that wait for a node."""

    def __init__(self, rules: ResumeRules) -> None:
        self.closing = False
        self.waiting = 0
        self._next_looks: dict[str | None, float] = {}
        """By model: the loop time from which an answer may look for a node again."""
        self._budgets: dict[str | None, ResumeBudget] = {}
        self.configure(rules)

    def configure(self, rules: ResumeRules) -> None:
        """Go by `rules` from now on."""
        self.rules = rules
        for budget in self._budgets.values():
            budget.rate = rules.rate

    def take(self, model: str | None, now: float, open_answers: int) -> bool:
        """Whether one more answer of `model`, of which `open_answers` are open, may go on at loop time `now`."""
        budget = self._budgets.get(model)
        if budget is None:
            budget = self._budgets[model] = ResumeBudget(self.rules.rate)
        return budget.take(now, open_answers) <= 0

    def give_back(self, model: str | None) -> None:
        """What was taken is not used: no node has a place."""
        self._budgets[model].give_back()

    @property
    def step(self) -> float:
        """Seconds until an answer that waits looks again."""
        return min(LONGEST_STEP, STEP * max(1.0, self.waiting / AT_ONCE))

    def may_look(self, model: str | None, now: float) -> bool:
        """Whether one more answer of `model` may look for a node at loop time `now`, which may be in vain."""
        return now >= self._next_looks.get(model, now)

    def looked_in_vain(self, model: str | None, now: float) -> None:
        """A look found no node. Those of one `STEP` may come at once."""
        self._next_looks[model] = max(self._next_looks.get(model, 0.0), now - STEP) + 1 / VAIN_LOOKS


class AnswerResumption:
    """The resumes of one answer, made when it first breaks off."""

    def __init__(
        self,
        budgets: ResumeBudgets,
        request: DownstreamRequest,
        stats: RequestStats,
        another: AnotherLease,
        costs: RetryBudget,
        comments: float,
    ) -> None:
        """`costs`: its model's, which knows how many answers are open. `comments`: seconds between two comments to a
        client that waits, infinite where it gets no stream."""
        self._budgets = budgets
        self._rules = budgets.rules
        self._request = request
        self._stats = stats
        self._another = another
        self._costs = costs
        self._comments = comments
        self._bounds = Resumes(self._rules.max_resumes)
        self._loop = asyncio.get_running_loop()
        self._checkpoint: Checkpoint | None = None
        self._avoided: list[Node] = []
        """The nodes that broke off since a token last came."""
        self._since = 0.0
        """When a token last came, or nearly so."""
        self._failed_at = 0.0
        self._paid = False
        """Whether the model's budget has let the present resume go."""

    def judge(self, error: UpstreamError, checkpoint: Checkpoint, node: Node) -> None:
        """Note that the answer broke off on `node`. Raises the client's error where it is not to be resumed."""
        tokens, stats = checkpoint.tokens.count, self._stats
        self._checkpoint = checkpoint
        self._failed_at = self._loop.time()
        if not self._avoided:
            self._since = self._failed_at
        self._avoided.append(node)
        self._paid = isinstance(error, NodeLeaving)  # drains pace their moves by themselves
        if stats.resumes and stats.resumes[-1].pause is None:
            stats.resumes[-1].outcome = "broken"
        stats.resumes += (ResumeNote(outcome(error), node.name, tokens),)
        decision = self._bounds.judge(error, node.name, tokens)
        if decision is ResumeDecision.GIVE_UP_KILLER:
            raise checkpoint.lost("two nodes have died over this request", repeatable=False) from None
        if decision is ResumeDecision.GIVE_UP_LIMIT:
            if isinstance(error, StreamLost):  # the other nodes could not go on with it, and say why
                raise error
            raise checkpoint.lost("it broke off again and again with nearly nothing made in between") from None
        checkpoint.check()
        stats.go_on(checkpoint.tokens.count)
        stats.answered = False  # of what is asked now, nothing has come

    @property
    def anew(self) -> bool:
        """Whether the client has nothing of the answer, so that it may be asked for from its beginning."""
        return self._stats.first_byte is None

    async def next_node(self, model: str | None, deadline: float) -> tuple[Lease, FollowUpRequest]:
        """A lease on the node that goes on, and what it is asked. Raises the client's error where there is none by
        `deadline` (loop time), or within the rules' wait."""
        checkpoint = self._checkpoint
        assert checkpoint is not None
        lease = self._lease(model) or await self._wait(checkpoint, model, deadline)
        try:
            follow_up = checkpoint.resume(lease.node.capabilities)
        except BaseException:
            lease.release()
            raise
        lease.tokens += checkpoint.tokens.count  # they are part of the prompt now
        self._stats.resumes[-1].target = lease.node.name
        return lease, follow_up

    async def _wait(self, checkpoint: Checkpoint, model: str | None, deadline: float) -> Lease:
        """The lease, once there is one; as `next_node`."""
        next_comment = self._loop.time() + self._comments
        self._budgets.waiting += 1
        try:
            while True:
                await asyncio.sleep(self._budgets.step)
                now = self._loop.time()
                error = self._end_of_wait(checkpoint, deadline, now)
                if error is not None:
                    raise error
                if now >= next_comment and self._request.started:
                    self._request.push(KEEP_ALIVE)
                    next_comment = now + self._comments
                if (lease := self._lease(model)) is not None:
                    return lease
        finally:
            self._budgets.waiting -= 1

    def went_on(self, lease: Lease) -> None:
        """The first token came behind the break, on this lease."""
        now, note = self._loop.time(), self._note_end()
        lease.answered = True
        if lease.node.doubted:
            lease.node.answered(now)
        if lease.prefill is not None:
            lease.prefill.first_byte(now)
        whole = self._checkpoint is not None and self._checkpoint.ended  # nothing may stand behind its end
        if self._comments != inf and note.pause is not None and not whole:
            comment = b": resumed on another node after %d tokens, %.1f s\n" % (note.token, note.pause)
            if not self._request.push(comment) and self._request.listener is not None:
                self._request.listener.on_full()

    def ended(self) -> None:
        """The answer is complete."""
        note, checkpoint = self._note_end(), self._checkpoint
        if checkpoint is not None and checkpoint.recomputed is not None:
            note.recomputed = checkpoint.recomputed

    def _note_end(self) -> ResumeNote:
        """The end of the pause."""
        note, checkpoint = self._stats.resumes[-1], self._checkpoint
        if note.pause is None and note.target is not None and checkpoint is not None:
            self._avoided.clear()
            note.pause = self._loop.time() - self._since
            note.outcome = "resumed"
            note.recomputed = checkpoint.prompt_tokens + note.token
        return note

    def _lease(self, model: str | None) -> Lease | None:
        """None where no node has a place, or too many answers are resumed."""
        now, budgets = self._loop.time(), self._budgets
        if not budgets.may_look(model, now) or not (self._paid or budgets.take(model, now, self._costs.open)):
            return None
        lease = self._free_lease(now)
        if lease is not None:
            self._paid = True
            return lease
        budgets.looked_in_vain(model, now)
        if not self._paid:
            budgets.give_back(model)
        return None

    def _free_lease(self, now: float) -> Lease | None:
        """None where no node has a place."""
        try:
            return self._another(self._avoided)
        except Overloaded:
            if now < self._failed_at + RESPITE:
                return None
        try:
            return self._another(())
        except Overloaded:
            return None

    def _end_of_wait(self, checkpoint: Checkpoint, deadline: float, now: float) -> GatewayError | None:
        if self._request.gone:
            return ClientGone("The client closed its connection.")
        if self._budgets.closing:
            return shutting_down()
        if now >= deadline:
            return deadline_exceeded()
        if now >= self._since + self._rules.wait:
            return checkpoint.lost(f"no node had a place for it within {self._rules.wait:g} s")
        return None
