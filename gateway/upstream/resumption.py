"""Goes on with an answer that has broken off: judges the break, waits for a node, and asks the checkpoint how.

    what is found                                what follows
    it killed two nodes, or was resumed too      the client's error
    often (`Resumes`)
    it cannot go on (`Checkpoint.check`)         the client's error
    no node is ready, all are full, or too many  wait, up to `ResumeRules.wait`; comments go on
    are resumed at once (`ResumeBudget`)
    a node has a place                           a lease on it, and the follow-up that continues the answer

Nothing is held while it waits: the lease on the broken node is released before. A node that broke off is asked again
only where no other has a place, and one that is out at growing intervals: probes tell when it is back.
"""

import asyncio
from collections.abc import Collection, Sequence
from functools import partial
from math import inf

from gateway.core.dialects.stream_filter import FollowUpRequest
from gateway.core.errors import FleetFull, NodeLeaving, Overloaded, StreamLost, UpstreamError
from gateway.core.resume.budget import SETTLING, ResumeDecision, Resumes
from gateway.core.resume.checkpoint import Checkpoint
from gateway.core.resume.note import ResumeNote
from gateway.core.telemetry.request_stats import RequestStats
from gateway.core.upstream.attempts import RetryBudget, outcome
from gateway.fleet.node import AnotherLease, Lease, Node
from gateway.upstream.downstream import DownstreamRequest
from gateway.upstream.place_wait import check_waiting, wait_for_place
from gateway.upstream.resume_budgets import ResumeBudgets

RESPITE = 0.5
"""Seconds before a node that broke off, or is silent, is asked where there is no other."""

LONGEST_RESPITE = 5.0
"""The same at the most, of a node that is out: it doubles with each attempt that failed."""

SILENT_RESPITE = 5.0
"""Seconds for which a sign of life is waited for where all nodes are silent, and it broke off on several: what is asked
of one that stands still stalls once more."""

SILENT_NODES = 3
"""Nodes that a look passes over because they are silent."""


class AnswerResumption:
    """The resumes of one answer, made when it first breaks off."""

    def __init__(
        self,
        budgets: ResumeBudgets,
        bounds: Resumes,
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
        self._bounds = bounds
        self._loop = asyncio.get_running_loop()
        self._checkpoint: Checkpoint | None = None
        self._avoided: list[Node] = []
        """The nodes that broke off since a token last came."""
        self._since = 0.0
        """When a token last came, or nearly so."""
        self._failed_at = 0.0
        self._full: bool | None = None
        """Whether the last look found nodes, all of them at capacity; None before the first look."""
        self._paid = False
        """Whether the model's budget has let the present resume go."""

    async def judge(self, error: UpstreamError, checkpoint: Checkpoint, node: Node) -> None:
        """Note that the answer broke off on `node`. Raises the client's error where it is not to be resumed, or
        that of the wait where the client left or the process ends meanwhile."""
        tokens, stats = checkpoint.count, self._stats
        self._checkpoint = checkpoint
        self._failed_at = self._loop.time()
        if not self._avoided:
            self._since = self._failed_at
        self._avoided.append(node)
        self._paid = isinstance(error, NodeLeaving)  # drains pace their moves by themselves
        if stats.resumes and stats.resumes[-1].pause is None:
            stats.resumes[-1].outcome = "broken"
        stats.resumes += (ResumeNote(outcome(error), node.name, tokens),)
        decision = self._bounds.judge(error, node.name, tokens, self._failed_at, node.failed_probes > 0)
        if decision is not ResumeDecision.GO_ON:
            await asyncio.sleep(SETTLING)
            check_waiting(self._request, self._budgets.closing, inf, self._loop.time())
            decision = self._bounds.decide(self._loop.time())
        if decision is not ResumeDecision.GO_ON:
            self._bounds.convict(self._loop.time())
        if decision is ResumeDecision.GIVE_UP_KILLER:
            raise checkpoint.lost("two nodes have failed over this request", repeatable=False) from None
        if decision is ResumeDecision.GIVE_UP_LIMIT:
            if isinstance(error, StreamLost):  # the other nodes could not go on with it, and say why
                raise error
            raise checkpoint.lost("it broke off again and again with nearly nothing made in between") from None
        checkpoint.check()
        stats.go_on(checkpoint.tokens.count)
        stats.answered = False  # of what is asked now, nothing has come

    def begin_again(self) -> None:
        """The answer is asked for from its beginning."""
        self._bounds.begin_again(0)

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
        self._bounds.begin_again(checkpoint.count)
        lease.tokens += checkpoint.count  # they are part of the prompt now
        self._stats.resumes[-1].target = lease.node.name
        return lease, follow_up

    async def _wait(self, checkpoint: Checkpoint, model: str | None, deadline: float) -> Lease:
        """The lease, once there is one; as `next_node`."""
        look, check = partial(self._lease, model), partial(self._check_wait, checkpoint, deadline)
        return await wait_for_place(self._budgets, self._request, self._comments, look, check)

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
            budgets.found(model)
            return lease
        budgets.looked_in_vain(model, now)
        if not self._paid:
            budgets.give_back(model)
        return None

    def _free_lease(self, now: float) -> Lease | None:
        """None where no node has a place."""
        lease = self._lease_of_lively(self._avoided, now)
        if lease is not None or now < self._failed_at + RESPITE:
            return lease
        lease = self._lease_of_lively((), now)
        if lease is not None and not lease.node.ready and now < self._failed_at + self._respite():
            lease.release()
            return None
        if lease is not None or (len({*self._avoided}) > 1 and now < self._failed_at + SILENT_RESPITE):
            return lease
        return self._look(())

    def _lease_of_lively(self, avoided: Sequence[Node], now: float) -> Lease | None:
        """A lease on a node that is not silent, and none of `avoided`."""
        tried = [*avoided]
        for _ in range(SILENT_NODES):
            lease = self._look(tried)
            if lease is None or not lease.node.is_silent(now):
                return lease
            lease.release()  # it stands still, most likely, which nobody has noticed yet
            tried.append(lease.node)
        return None

    def _look(self, tried: Collection[Node]) -> Lease | None:
        """A lease on a node that is none of `tried`, if one has a place."""
        try:
            lease = self._another(tried)
        except Overloaded as error:
            self._full = isinstance(error, FleetFull)
            return None
        self._full = False
        return lease

    def _check_wait(self, checkpoint: Checkpoint, deadline: float, now: float) -> None:
        """Raises the error that ends the wait at loop time `now`."""
        check_waiting(self._request, self._budgets.closing, deadline, now)
        if now >= self._since + self._rules.wait:
            why, advice = self._why_none()
            raise checkpoint.lost(f"{why} within {self._rules.wait:g} s", advice=advice)

    def _respite(self) -> float:
        """Seconds before a node that is out is asked again."""
        repeats = len(self._avoided) - len({*self._avoided})
        return min(LONGEST_RESPITE, RESPITE * 2.0 ** min(repeats, 10))

    def _why_none(self) -> tuple[str, str]:
        """Why no node has gone on with it since it broke off, and the remedy."""
        causes = [note.cause for note in self._stats.resumes[-len(self._avoided) :]][1:]
        if self._full or "busy" in causes:
            return "no node had a place for it", "Repeating the request is safe."
        if not causes and self._full is None:
            return "too many answers were to go on, and its turn did not come", "Repeating the request is safe."
        if not causes:
            why = "no node was ready"
        elif all(cause == "refused" for cause in causes):
            why = "no node could be reached"
        else:
            why = "no node went on with it"
        return why, "Repeating the request is safe; it is answered once a node is ready again."
