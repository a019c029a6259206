"""A model of a fleet that thinks: nodes with places, a line in front of them, and pressure by the gateway's own rules.

A node with `n` requests decodes `min(FASTEST, node_rate / n)` tokens a second for each of them. A request waits in one
line for a place, is prefilled, thinks for as long as it would by itself or its budget allows, and answers. Lengths and
arrivals come from a seed, the same ones for every policy. Times are seconds.
"""

import heapq
import math
import random
from collections import deque
from dataclasses import dataclass, field

from gateway.core.pressure.early_ends import EarlyEndRules, EarlyEnds, RunningThought, order_of_ends
from gateway.core.pressure.factor import FRESH, FactorRules, FactorState, step
from gateway.core.pressure.squeeze import Squeeze, SqueezeRules, ThinkingClaim

FASTEST = 80.0
"""Tokens a second of a request that has a node for itself."""

PREFILL = 0.5
ANSWER = 500
"""Seconds until the first token once a request has a place, and tokens behind its thinking."""

WINDOW = 60.0
"""Seconds over which departures are counted, for the expected wait."""

CLASSES = (("interactive", 0.2), ("standard", 0.5), ("batch", 0.3))


@dataclass(frozen=True, slots=True)
class Scene:
    """`load`: of capacity, for `seconds`, after which `rest` of it comes for as long. Thinking is lognormal."""

    nodes: int = 4
    places: int = 16
    node_rate: float = 480.0
    load: float = 1.3
    seconds: float = 1800.0
    rest: float = 0.6
    median: float = 4000.0
    sigma: float = 0.6
    budget: int = 8000
    ttft: float = 10.0
    end_to_end: float = 300.0


@dataclass(frozen=True, slots=True)
class Way:
    """What is done about load: with `refuses`, 429 where the expected wait is beyond the objective; with `factor`,
    budgets follow the wait; with `early_ends`, running thoughts end, too."""

    name: str
    refuses: bool = False
    factor: FactorRules | None = None
    early_ends: EarlyEndRules = field(default_factory=EarlyEndRules)


@dataclass(slots=True, eq=False)
class Job:
    """One request. `thinks`: tokens by itself, `grant`: its budget, `thought`: what was made of it."""

    came: float
    thinks: int
    traffic_class: str
    measured: bool
    grant: int = 0
    thought: int = 0
    began: float = math.inf
    ended: float = math.inf
    began_at: float = 0.0
    """Tokens that its node had made for each of its requests when this one began."""
    refused: bool = False
    cut: bool = False


class ModelNode:
    """`made`: tokens for each request that has been there from the beginning; the finishes lie in a heap by it."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self.made = 0.0
        self.jobs: dict[Job, float] = {}
        self._heap: list[tuple[float, int, Job]] = []
        self._at = 0.0
        self._count = 0

    @property
    def rate(self) -> float:
        return min(FASTEST, self._scene.node_rate / len(self.jobs)) if self.jobs else 0.0

    def advance(self, now: float) -> None:
        self.made += self.rate * (now - self._at)
        self._at = now

    def begin(self, job: Job, now: float) -> None:
        self.advance(now)
        job.began = now + PREFILL
        job.began_at = self.made
        job.thought = min(job.thinks, job.grant)
        self._finish_at(job, job.thought + ANSWER + PREFILL * FASTEST)

    def end_thinking(self, job: Job, now: float) -> None:
        self.advance(now)
        job.thought, job.cut = round(self.made - job.began_at), True
        self._finish_at(job, job.thought + ANSWER + 2 * PREFILL * FASTEST)

    def _finish_at(self, job: Job, tokens: float) -> None:
        self.jobs[job] = job.began_at + tokens
        self._count += 1
        heapq.heappush(self._heap, (self.jobs[job], self._count, job))

    def next_end(self) -> float:
        while self._heap and self.jobs.get(self._heap[0][2]) != self._heap[0][0]:
            heapq.heappop(self._heap)
        return self._at + max(0.0, self._heap[0][0] - self.made) / self.rate if self._heap else math.inf

    def finish(self, now: float) -> Job:
        self.advance(now)
        job = heapq.heappop(self._heap)[2]
        del self.jobs[job]
        job.ended = now
        return job


class FleetModel:
    """One run of one way through one scene."""

    def __init__(self, scene: Scene, way: Way, squeeze: SqueezeRules, seed: int) -> None:
        self.scene = scene
        self.way = way
        self.turns: list[float] = []
        self.factors: list[float] = []
        self.jobs = arrivals(scene, seed)
        self._rules = squeeze
        self._nodes = [ModelNode(scene) for _ in range(scene.nodes)]
        self._line: deque[Job] = deque()
        self._departed: deque[float] = deque()
        self._state: FactorState = FRESH
        self._ends = EarlyEnds()

    def run(self) -> "FleetModel":
        coming, at, tick = iter(self.jobs), next(iter(self.jobs)).came, 0.0
        job: Job | None = next(coming)
        while job is not None or self._line or any(node.jobs for node in self._nodes):
            node = min(self._nodes, key=ModelNode.next_end)
            ends = node.next_end()
            if tick <= min(at, ends):
                self._tick(tick)
                tick += 1.0
            elif ends <= at:
                node.finish(ends)
                self._departed.append(ends)
                if self._line:
                    node.begin(self._line.popleft(), ends)
            else:
                assert job is not None
                self._arrive(job, at)
                job = next(coming, None)
                at = math.inf if job is None else job.came
        return self

    def expected_wait(self, now: float) -> float:
        """What a queue can tell: those before me, by how many left of late."""
        if any(len(node.jobs) < self.scene.places for node in self._nodes):
            return 0.0
        while self._departed and self._departed[0] < now - WINDOW:
            self._departed.popleft()
        return (len(self._line) + 1) * WINDOW / max(1, len(self._departed))

    def _arrive(self, job: Job, now: float) -> None:
        job.grant = self._squeeze.budget(_claim(self.scene, job))
        free = min(self._nodes, key=lambda node: len(node.jobs))
        if len(free.jobs) < self.scene.places:
            free.begin(job, now)
        elif self.way.refuses and self.expected_wait(now) > self.scene.ttft - PREFILL:
            job.refused = True
        else:
            self._line.append(job)

    @property
    def _squeeze(self) -> Squeeze:
        return Squeeze(self._state.factor, self._rules)

    def _tick(self, now: float) -> None:
        rules = self.way.factor
        if rules is None:
            return
        wait = self.expected_wait(now)
        before, self._state = self._state, step(self._state, rules, wait, 1.0)
        if self._state.direction != before.direction:
            self.turns.append(now)
        self.factors.append(self._state.factor)
        if self._ends.due(self.way.early_ends, self._squeeze, rules.floor, wait, now):
            self._end_one(now)

    def _end_one(self, now: float) -> None:
        found = []
        for node in self._nodes:
            node.advance(now)
            for job in node.jobs:
                tokens = round(node.made - job.began_at)
                if tokens < job.thought:
                    found.append((node, job, RunningThought(_claim(self.scene, job), tokens)))
        for at in order_of_ends([each[2] for each in found], self.way.early_ends, self._squeeze)[:1]:
            node, job, _ = found[at]
            node.end_thinking(job, now)
            self._ends.ended(self.way.early_ends, 1, now)


def _claim(scene: Scene, job: Job) -> ThinkingClaim:
    return ThinkingClaim(scene.budget, 0, job.traffic_class)


def arrivals(scene: Scene, seed: int) -> list[Job]:
    """All requests of a run, in order."""
    chance = random.Random(seed)
    lengths = [_length(scene, chance) for _ in range(20_000)]
    tokens = sum(min(length, scene.budget) for length in lengths) / len(lengths) + ANSWER + PREFILL * FASTEST
    capacity = scene.nodes * scene.node_rate / tokens
    jobs, now = [], 0.0
    while now < 2 * scene.seconds:
        measured = now < scene.seconds
        now += chance.expovariate(capacity * (scene.load if measured else scene.rest))
        name = chance.choices([name for name, _ in CLASSES], [share for _, share in CLASSES])[0]
        jobs.append(Job(now, _length(scene, chance), name, measured))
    return jobs


def _length(scene: Scene, chance: random.Random) -> int:
    return round(chance.lognormvariate(math.log(scene.median), scene.sigma))
