"""Agents on the engines of fake nodes, in virtual time: what a plan of a workload is held against."""

import asyncio
import itertools
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import fmean

from tests.support.virtual_time import run_virtually
from workers.fake.settings import FakeSettings
from workers.fake.simulation import Engine
from workers.workload.workload import Workload

BLOCK = 16


@dataclass(slots=True)
class Observed:
    """What agents saw after the warm-up: seconds to each first token, and the turns that ended in `seconds`."""

    seconds: float
    first_tokens: list[float] = field(default_factory=list)
    running: list[int] = field(default_factory=list)

    @property
    def first_token(self) -> float:
        return fmean(self.first_tokens)

    @property
    def turns_per_second(self) -> float:
        return len(self.first_tokens) / self.seconds

    @property
    def mean_running(self) -> float:
        return fmean(self.running)


def simulate(
    workload: Workload, prefill: float, rate: float, places: int, nodes: int, seed: int = 1, rounds: int = 60
) -> Observed:
    """`rounds` turns of each agent, the first sixth of the time thrown away. Agent i stays on node i % nodes.

    Prompts are a prefix of each agent's own, in whole blocks, and fresh tokens: all alike where `spread` is 0, else
    exponentially many (a spread of 1).
    """
    [observed] = simulate_teams([workload], prefill, rate, places, nodes, seed, rounds)
    return observed


def simulate_teams(
    workloads: Sequence[Workload],
    prefill: float,
    rate: float,
    places: int,
    nodes: int,
    seed: int = 1,
    rounds: int = 60,
) -> list[Observed]:
    """Several workloads on the same nodes; `rounds` turns of the slowest one's agents. What each of them saw."""
    return run_virtually(_run(workloads, prefill, rate, places, nodes, random.Random(seed), rounds))


async def _run(
    workloads: Sequence[Workload],
    prefill: float,
    rate: float,
    places: int,
    nodes: int,
    chance: random.Random,
    rounds: int,
) -> list[Observed]:
    settings = FakeSettings(prefill_rate=prefill, max_num_seqs=places, block_size=BLOCK, capacity=1 << 30)
    engines = [Engine(settings) for _ in range(nodes)]
    turns = [each.pause + each.fresh_tokens / prefill + each.output / rate for each in workloads]
    turn = max(turns)
    bound = sum(each.fresh_tokens / prefill * each.agents for each in workloads) / nodes
    length = rounds * max(turn, bound)
    warm = length / 6
    seen = [Observed(length - warm) for _ in workloads]
    numbers = itertools.count(1)
    loop = asyncio.get_running_loop()

    async def agent(number: int, workload: Workload, observed: Observed, turn: float) -> None:
        engine = engines[number % nodes]
        prefix = list(range(int(workload.cached_tokens) // BLOCK * BLOCK))
        prefix = [number * 100_003 % (1 << 20) + token for token in prefix]
        await asyncio.sleep(chance.random() * turn)
        while loop.time() < length:
            fresh = _fresh(workload, chance)
            mine = next(numbers)
            prompt = prefix + [(mine * 7919 + k) % (1 << 31) for k in range(fresh)]
            asked = loop.time()
            async with engine.seat(prompt, salt=str(number)):
                first = loop.time() + 1 / rate - asked
                await asyncio.sleep(workload.output / rate)
            if warm <= loop.time() < length:
                observed.first_tokens.append(first)
            await asyncio.sleep(chance.expovariate(1 / workload.pause) if workload.pause else 0)

    async def watch() -> None:
        while loop.time() < length:
            await asyncio.sleep(turn / 10)
            if loop.time() >= warm:
                running = sum(len(engine.running) + len(engine.waiting) for engine in engines)
                for observed in seen:
                    observed.running.append(running)

    async with asyncio.TaskGroup() as group:
        agents = itertools.count()
        for workload, observed, own in zip(workloads, seen, turns, strict=True):
            for _ in range(workload.agents):
                group.create_task(agent(next(agents), workload, observed, own))
        group.create_task(watch())
    return seen


def _fresh(workload: Workload, chance: random.Random) -> int:
    mean = workload.fresh_tokens
    return max(1, round(mean if workload.spread == 0 else chance.expovariate(1 / mean)))
