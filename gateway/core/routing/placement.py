"""What one gateway knows for placing requests: prompt tokens pending on each node, and where conversations went.

This is the view of one process. Where Redis is up, the view of all gateways together decides (`routing/lua`), and
this one is kept beside it, so that nothing has to be learnt when Redis is lost: the same formula goes on with less
knowledge.
"""

import math
from collections import OrderedDict
from collections.abc import Sequence

from gateway.core.routing.selection import (
    EXPECTED_WAIT,
    NOTHING,
    POLICIES,
    Candidate,
    LastTurn,
    NodeScore,
    PlacedPrompt,
    PrefillBacklog,
    RandomDraw,
    expected_wait,
    placed,
)

REMEMBERED = 50_000
"""Conversations kept, least recently used out first: about 10 MB."""

TRIMMED = 4
"""Conversations past their time that one `add` drops at most: a few microseconds, also after a night without any."""

NODES = 10_000
"""Nodes whose written tokens are counted, the latest."""


class Placement:
    """Own pending and own memory. `now` is any clock's seconds, always the same clock's."""

    def __init__(self, affinity_ttl: float = 3600.0, load_penalty: float = 1.0, limit: int = REMEMBERED) -> None:
        """`affinity_ttl`: seconds that a conversation's last node counts; `load_penalty`: see `expected_wait`."""
        self.affinity_ttl = affinity_ttl
        self.load_penalty = load_penalty
        self.pending: dict[str, PrefillBacklog] = {}
        self._limit = limit
        self._last: OrderedDict[bytes, tuple[str, int, float, int]] = OrderedDict()
        """Of each conversation the node, the tokens, the time, and what had been written into the node's cache."""
        self._oldest = -math.inf
        """No conversation's time is before this."""
        self._written: OrderedDict[str, int] = OrderedDict()
        """Tokens that were written into each node's cache, since it is known."""

    def choose(
        self, policy: str, candidates: Sequence[Candidate], prompt: PlacedPrompt, chance: RandomDraw, now: float
    ) -> NodeScore:
        """One of `candidates` (at least one) by `policy`, by what is known here. `add` makes it count."""
        left = self.left(prompt.conversation, now)
        if policy == EXPECTED_WAIT:
            chosen = expected_wait(candidates, prompt, self.pending, left, self.load_penalty)
        else:
            chosen = POLICIES[policy](candidates, prompt, chance)
        return placed(chosen, prompt, self.pending.get(chosen.name, NOTHING), left)

    def left(self, conversation: bytes, now: float) -> LastTurn | None:
        """Where `conversation` was last, if that is not too long ago."""
        found = self._last.get(conversation)
        if found is None or now - found[2] > self.affinity_ttl:
            return None
        return LastTurn(found[0], found[1], now - found[2], max(0, self._written.get(found[0], 0) - found[3]))

    def add(self, choice: NodeScore, prompt: PlacedPrompt, now: float) -> None:
        """A request goes to the chosen node: its work is pending there, and its conversation's last turn is there."""
        before = self.pending.get(choice.node, NOTHING)
        self.pending[choice.node] = PrefillBacklog(before.tokens + choice.work, before.prompts + 1)
        written = self._written[choice.node] = self._written.get(choice.node, 0) + choice.work + prompt.answer
        self._written.move_to_end(choice.node)
        if len(self._written) > NODES:
            self._written.popitem(last=False)
        self._last[prompt.conversation] = choice.node, prompt.tokens, now, written
        self._last.move_to_end(prompt.conversation)
        if len(self._last) > self._limit:
            self._last.popitem(last=False)
        if now - self._oldest > self.affinity_ttl:
            self._trim(now)

    def _trim(self, now: float) -> None:
        """Drop the oldest conversations that do not count any more. At least one counts: that of this `add`."""
        for _ in range(TRIMMED):
            conversation, turn = next(iter(self._last.items()))
            if now - turn[2] <= self.affinity_ttl:
                self._oldest = turn[2]
                return
            del self._last[conversation]

    @property
    def remembered(self) -> int:
        """Conversations that are kept."""
        return len(self._last)

    def prefilled(self, choice: NodeScore) -> None:
        """Its first byte came, or it will not come any more: once for every `add`."""
        before = self.pending[choice.node]
        if before.prompts > 1:
            self.pending[choice.node] = PrefillBacklog(before.tokens - choice.work, before.prompts - 1)
        else:
            del self.pending[choice.node]
