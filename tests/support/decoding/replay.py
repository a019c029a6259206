"""Sessions replayed on decoding nodes through the gateway's own placement, beside an oracle that knows every length.

Where all nodes have all the requests that they may have, a request waits in one line of all gateways, as in the
gateway's queue. Gateways that share facts see one placement and each node's places; else each has its own view.
"""

import heapq
from collections import deque
from collections.abc import Sequence as Several
from typing import NamedTuple, Protocol

from tests.support.decoding.node import DecodingNode, Happened, Sequence
from tests.support.decoding.speeds import NodeSpeed
from tests.support.decoding.workload import Request, Session


class Objective(NamedTuple):
    """What a request was to get: seconds to the first token, and seconds a token after it."""

    first: float = 10.0
    token: float = 0.04


class Served(NamedTuple):
    """One request's `came` (seconds), seconds to its first and to its last token, and tokens."""

    came: float
    first: float
    last: float
    answer: int


class Score(NamedTuple):
    """Seconds, the share of requests within the objective, the share of prompt tokens found in caches, preemptions."""

    ttft50: float
    ttft99: float
    end50: float
    end99: float
    goodput: float
    hits: float
    preempted: float
    mean: float


class Chooser(Protocol):
    """A routing policy for all gateways. `free` are the nodes that may have one more request."""

    def choose(self, request: Request, number: int, free: Several[DecodingNode], now: float) -> DecodingNode: ...
    def happened(self, event: Happened, now: float) -> None: ...


def decode_replay(
    sessions: Several[Session],
    chooser: Chooser,
    speeds: Several[NodeSpeed],
    objective: Objective | None = None,
    warm: float = 0.1,
    line: bool = True,
) -> Score:
    """`warm`: the share of requests, the first, that are not scored. `line`: nodes are sent no more than they run."""
    nodes = [DecodingNode(f"node-{i}", speed) for i, speed in enumerate(speeds)]
    bounds = {node.name: speed.sequences for node, speed in zip(nodes, speeds, strict=True)}
    on = dict.fromkeys(bounds, 0)
    due: list[tuple[float, int, int, int]] = [(each.turns[0].at, i, 0, i) for i, each in enumerate(sessions)]
    heapq.heapify(due)
    waiting: deque[tuple[int, Request, int, int]] = deque()
    where: dict[int, tuple[DecodingNode, Request, int, int]] = {}
    firsts: dict[int, float] = {}
    served: list[Served] = []
    computed = prompts = 0
    number = len(sessions)
    now = 0.0

    def send() -> None:
        while waiting:
            free = [node for node in nodes if not line or on[node.name] < bounds[node.name]]
            if not free:
                return
            index, request, session, turn = waiting.popleft()
            node = chooser.choose(request, index, free, now)
            on[node.name] += 1
            where[index] = node, request, session, turn
            node.add(Sequence(index, request.prompt, request.answer, request.blocks), now)

    while due or where or waiting:
        node = min(nodes, key=lambda each: each.next)
        if due and due[0][0] <= node.next:
            now, index, turn, session = heapq.heappop(due)
            request = sessions[session].turns[turn]._replace(at=now)
            waiting.append((index, request, session, turn))
            send()
            continue
        now = node.next
        for event in node.happen():
            chooser.happened(event, now)
            index = event.sequence.number
            _, request, session, turn = where[index]
            if event.first:
                firsts[index] = now - request.at
                continue
            del where[index]
            on[node.name] -= 1
            served.append(Served(request.at, firsts.pop(index), now - request.at, request.answer))
            computed += event.sequence.computed
            prompts += request.prompt
            if turn + 1 < len(sessions[session].turns):
                number += 1
                heapq.heappush(due, (now + sessions[session].pauses[turn + 1], number, turn + 1, session))
            send()
    return _score(served, objective or Objective(), warm, 1 - computed / prompts, sum(node.preempted for node in nodes))


def _score(served: list[Served], objective: Objective, warm: float, hits: float, preempted: int) -> Score:
    counted = sorted(served)[int(warm * len(served)) :]
    firsts, lasts = sorted(each.first for each in counted), sorted(each.last for each in counted)
    good = sum(
        each.first <= objective.first and each.last - each.first <= objective.token * each.answer for each in counted
    )
    count = len(counted)
    return Score(
        firsts[count // 2],
        firsts[int(0.99 * count)],
        lasts[count // 2],
        lasts[int(0.99 * count)],
        good / count,
        hits,
        preempted,
        sum(lasts) / count,
    )


class Oracle:
    """Knows every length, cache and queue: the least time for the request and for those that it delays together.

    For a request of `answer` tokens, of which `fresh` prompt tokens are computed, on a node with `remaining` tokens of
    others: it waits for the prompts ahead; each step that it shares with another costs both `per_sequence`; its prompt
    stops all of them.
    """

    def __init__(self, others: float = 1.0) -> None:
        """`others`: how much the others' delay counts."""
        self._others = others

    def choose(self, request: Request, number: int, free: Several[DecodingNode], now: float) -> DecodingNode:
        return min(free, key=lambda node: self._cost(request, node, now))

    def _cost(self, request: Request, node: DecodingNode, now: float) -> float:
        fresh, remaining, speed = node.uncached(request.prompt, request.blocks), node.remaining(now), node.speed
        tokens = shared = 0.0
        for left, held in remaining:
            both = min(left, request.answer)
            shared += both
            tokens += both * held
        own = (node.backlog() + fresh) / speed.prefill + request.answer * speed.step(1, request.prompt)
        own += node.wait_for_room(request.prompt)
        own += speed.per_sequence * shared + speed.per_kv_token * tokens
        delay = len(remaining) * fresh / speed.prefill
        delay += (speed.per_sequence + speed.per_kv_token * (request.prompt + request.answer / 2)) * shared
        return own + self._others * delay

    def happened(self, event: Happened, now: float) -> None: ...
