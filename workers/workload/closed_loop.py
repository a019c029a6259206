"""Conversations that wait for their own answers, on one node: how many turns a second, and how long each part takes.

Each conversation pauses, waits for the node's prefill (one prompt after the other), and gets its answer at a rate
that depends on how many are written at once. That is a closed queueing network with one queue and two delays. Mean
value analysis (Reiser and Lavenberg, 1980) solves it by adding one conversation after the other: a newcomer finds the
queue that the node has without it. Two things are added to the textbook: prompts need not be exponentially long (where
all are alike, the one that is being computed is found half done), and the rate of an answer follows how many answers
are found.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from workers.workload.speed import NodeSpeed
from workers.workload.workload import Workload


@dataclass(frozen=True, slots=True)
class SteadyState:
    """A node with `agents` conversations, on average. Times in seconds, `turns` a second; counts are requests."""

    agents: int
    turns: float
    prefill_wait: float
    rate: float
    prefilling: float
    decoding: float
    prefill_use: float

    @property
    def first_token(self) -> float:
        """Seconds from a prompt to its first token: the queue, the prompt itself, and one step."""
        return self.prefill_wait + 1 / self.rate

    @property
    def running(self) -> float:
        """Requests in the node."""
        return self.prefilling + self.decoding


def steady_states(workload: Workload, speed: NodeSpeed, agents: int) -> Iterator[SteadyState]:
    """The node with 1, 2, ... `agents` conversations."""
    service = workload.fresh_tokens / speed.prefill
    residual = (1 + workload.spread**2) / 2
    queue = busy = decoding = 0.0
    for count in range(1, agents + 1):
        wait = service * (1 + queue - busy + busy * residual)
        rate = speed.rate(decoding + 1)
        answer = workload.output / rate
        turns = min(count / (workload.pause + wait + answer), 1 / service)
        wait = max(service, count / turns - workload.pause - answer)
        queue, busy, decoding = turns * wait, min(1.0, turns * service), turns * answer
        yield SteadyState(count, turns, wait, rate, queue, decoding, busy)
