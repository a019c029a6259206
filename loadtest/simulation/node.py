"""One node in virtual time: prompts one after the other, answers at once, each as fast as their number allows."""

import heapq
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from loadtest.simulation.teams import NodeFacts, Team

NEVER = float("inf")


@dataclass(slots=True, eq=False)
class Turn:
    """One request. Times in seconds; `fresh` is what its node computes of the prompt, `alone` what it computes where
    the conversation has not been before."""

    team: Team
    agent: int
    asked: float
    fresh: float
    alone: float
    output: float
    first: float = NEVER
    ended: float = NEVER
    home: bool = True


@dataclass(slots=True)
class Node:
    """See the module. All decoding answers gain tokens at one rate, so a single counter tells how far each has come."""

    facts: NodeFacts
    prompts: deque[tuple[Turn, float]] = field(default_factory=deque)
    """Turns that wait for their prompt, the first one is computed now; and the tokens of it."""
    waiting: float = 0.0
    """Tokens of all those prompts, the one that is computed as if it had just begun."""
    prefilled: float = NEVER
    """When the first prompt is done."""
    answers: list[tuple[float, int, Turn]] = field(default_factory=list)
    """A heap by the counter's value at which an answer ends."""
    counter: float = 0.0
    counted: float = 0.0
    _numbers: int = 0

    @property
    def running(self) -> int:
        """Requests that have a place."""
        return len(self.prompts) + len(self.answers)

    @property
    def is_full(self) -> bool:
        """Whether it has no place left."""
        return self.running >= self.facts.places

    def wait(self, now: float) -> float:
        """Seconds until a prompt that came now would be begun."""
        if not self.prompts:
            return 0.0
        rest = self.waiting - self.prompts[0][1]
        return max(0.0, self.prefilled - now) + rest / self.facts.prefill

    def begin(self, turn: Turn, tokens: float, now: float) -> None:
        """Take a request, of whose prompt `tokens` are computed."""
        self.prompts.append((turn, tokens))
        self.waiting += tokens
        if len(self.prompts) == 1:
            self.prefilled = now + tokens / self.facts.prefill

    def next_event(self, now: float) -> float:
        """When a prompt is done or an answer ends."""
        return min(self.prefilled, self._next_end(now))

    def advance(self, now: float) -> Iterator[Turn]:
        """Do what is due at `now`; yields the turns that have ended."""
        self._count_up(now)
        while self.answers and self.answers[0][0] <= self.counter + 1e-9:
            turn = heapq.heappop(self.answers)[2]
            turn.ended = now
            yield turn
        if self.prefilled <= now:
            turn, tokens = self.prompts.popleft()
            self.waiting -= tokens
            self.prefilled = now + self.prompts[0][1] / self.facts.prefill if self.prompts else NEVER
            self._numbers += 1
            heapq.heappush(self.answers, (self.counter + turn.output, self._numbers, turn))
            turn.first = now + 1 / self.facts.rate(len(self.answers))

    def _next_end(self, now: float) -> float:
        if not self.answers:
            return NEVER
        left = self.answers[0][0] - self._counter_at(now)
        return now + max(0.0, left) / self.facts.rate(len(self.answers))

    def _count_up(self, now: float) -> None:
        self.counter, self.counted = self._counter_at(now), now

    def _counter_at(self, now: float) -> float:
        if not self.answers:
            return self.counter
        return self.counter + (now - self.counted) * self.facts.rate(len(self.answers))
