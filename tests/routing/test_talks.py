"""Agents in conversation while a node leaves and another comes: the default beside vllm-router's policies, simulated.

Which node leaves decides more than any policy does, so every one of the four leaves equally often.
"""

import functools
import statistics
from collections.abc import Callable

import pytest

from tests.support.talks import CacheAware, ConsistentHash, ExpectedWait, Policy, PowerOfTwo, Talked, Talks

RUNS = [(seed, seed % 4) for seed in range(1, 41)]


@functools.cache
def talked(make: Callable[[], Policy]) -> list[Talked]:
    return [Talks(make(), seed, leaves).run() for seed, leaves in RUNS]


def median(make: Callable[[], Policy], share: float) -> float:
    return statistics.median(one.quantile(share) for one in talked(make))


def hits(make: Callable[[], Policy]) -> float:
    return sum(one.cached for one in talked(make)) / sum(one.prompt for one in talked(make))


@pytest.mark.parametrize("rival", [CacheAware, ConsistentHash, PowerOfTwo])
def test_the_default_is_at_least_as_good_as_each_of_the_rivals(rival: Callable[[], Policy]) -> None:
    assert median(ExpectedWait, 0.5) <= median(rival, 0.5)
    assert median(ExpectedWait, 0.99) <= median(rival, 0.99)
    assert hits(ExpectedWait) >= hits(rival) - 0.001, "beside cache_aware it is the same to a thousandth"


def test_a_conversation_whose_node_is_there_stays_and_a_new_node_fills_up() -> None:
    """No conversation begins after the change, so what comes to the new node are those whose node left."""
    shares = []
    for seed, leaves in RUNS:
        policy = ExpectedWait()
        heard = Talks(policy, seed, leaves).run()
        assert policy.moved == 0
        shares.append(heard.by_new_node / (len(heard.ttft) / 2))
    assert min(shares) > 0.05
    assert statistics.mean(shares) > 0.1
