"""Long answers: the gateway's own policy on nodes that decode, beside an oracle that knows every length."""

import functools
from statistics import fmean
from typing import NamedTuple

import pytest

from tests.support.decoding.gateways import BEFORE, Gateways, Knows
from tests.support.decoding.replay import Oracle, Score, decode_replay
from tests.support.decoding.speeds import B200, DENSE, H200, NodeSpeed
from tests.support.decoding.workload import Session, agents, at_load, thinking
from tests.support.replay import find_trace, made_trace, read_trace

GATEWAYS = (1, 4, 8)
LOADS = (0.8, 0.9, 0.95)
TUNED, KEPT_ASIDE = (1, 2, 3), (11, 12)
"""Seeds of thoughts and agents: the figures of `decode_speed` were chosen on the first ones."""

FLEETS = {"alike": (H200,) * 8, "mixed": (H200,) * 4 + (B200,) * 4, "dense": (DENSE,) * 8}
SMALL = H200._replace(kv=1_200_000)
"""With room for the prompts of some 50 agents."""


class Load(NamedTuple):
    """`workload`: `trace` is the real one where it is there; `hits` as in `at_load`."""

    fleet: str
    workload: str
    load: float


HITS = {"trace": 0.35, "made": 0.5, "agents": 0.85}


@functools.cache
def sessions(load: Load, seed: int) -> list[Session]:
    path = find_trace() if load.workload == "trace" else None
    if load.workload == "agents":
        made = agents(600, seed=seed)
    elif path is None:
        turns = made_trace(8000, seconds=2400.0, seed=seed)
        made = thinking([turn for turn in turns if 400 < turn.at < 2400], seed)  # while about as many end as begin
    else:
        turns = read_trace(path)
        made = thinking(turns[: len(turns) // 2] if seed % 2 else turns[len(turns) // 2 :], seed)
    return at_load(made, FLEETS[load.fleet], load.load, HITS[load.workload])


@functools.cache
def scored(load: Load, gateways: int, knows: Knows, seeds: tuple[int, ...] = KEPT_ASIDE) -> Score:
    """Means over `seeds`. No gateways: the oracle."""
    fleet: tuple[NodeSpeed, ...] = FLEETS[load.fleet]
    runs = [
        decode_replay(sessions(load, seed), Gateways(gateways, knows) if gateways else Oracle(), fleet)
        for seed in seeds
    ]
    return Score(*map(fmean, zip(*runs, strict=True)))


@pytest.mark.parametrize("gateways", GATEWAYS)
@pytest.mark.parametrize("workload", ["made", "agents"])
def test_among_nodes_of_different_speeds_long_answers_end_sooner(workload: str, gateways: int) -> None:
    load = Load("mixed", workload, 0.9)
    before, now, best = scored(load, gateways, BEFORE), scored(load, gateways, Knows()), scored(load, 0, Knows())
    assert now.end99 <= 0.92 * before.end99
    assert now.end50 <= before.end50
    assert now.end99 <= 1.3 * best.end99
    assert now.ttft50 <= 1.1 * before.ttft50
    assert now.ttft99 <= 1.1 * before.ttft99
    assert now.goodput >= before.goodput


@pytest.mark.parametrize("gateways", GATEWAYS)
def test_among_equal_nodes_there_is_nothing_to_gain(gateways: int) -> None:
    load = Load("alike", "made", 0.9)
    before, now, best = scored(load, gateways, BEFORE), scored(load, gateways, Knows()), scored(load, 0, Knows())
    assert now.end99 <= 1.02 * before.end99
    assert now.end99 <= 1.1 * best.end99
    assert now.ttft50 <= 1.1 * before.ttft50


@functools.cache
def idling(knows: Knows) -> Score:
    runs = [
        decode_replay(at_load(agents(600, seed=seed, idle=0.3), [SMALL] * 8, 0.9, 0.7), Gateways(4, knows), [SMALL] * 8)
        for seed in TUNED
    ]
    return Score(*map(fmean, zip(*runs, strict=True)))


def test_a_cache_that_others_have_filled_since_is_not_waited_for() -> None:
    by_time, by_tokens = idling(Knows(written=False)), idling(Knows())
    assert by_tokens.ttft99 < 0.97 * by_time.ttft99
    assert by_tokens.end99 < by_time.end99
    assert by_tokens.hits > by_time.hits - 0.01


@pytest.mark.prove
@pytest.mark.parametrize("workload", ["trace", "agents"])
@pytest.mark.parametrize("fleet", list(FLEETS))
def test_the_table_of_the_docs(fleet: str, workload: str) -> None:
    """Prints it: pytest -m prove -s tests/routing/test_decode_replay.py"""
    for at in LOADS:
        load = Load(fleet, workload, at)
        print(f"\n{fleet}, {workload}, load {at}: {_told(scored(load, 0, Knows()))} oracle")
        for gateways in GATEWAYS:
            for name, knows in (("before", BEFORE), ("crowd", BEFORE._replace(crowd=True)), ("now", Knows())):
                print(f"  {gateways} {name:7}{_told(scored(load, gateways, knows))}")
    for name, knows in (("time", Knows(written=False)), ("written", Knows())):
        print(f"idle agents, {name}: {_told(idling(knows))}")


def _told(score: Score) -> str:
    times = f"end {score.end50:.0f} / {score.end99:.0f}, TTFT {score.ttft50:.2f} / {score.ttft99:.1f}"
    return f"{times}, goodput {score.goodput:.3f}, hits {score.hits:.3f}, preempted {score.preempted:.0f}"
