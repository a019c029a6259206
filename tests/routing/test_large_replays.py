"""A sample of a large fleet's nodes is worth what all of them are, on a trace of as many times the load.

Of eight nodes all are looked at, as ever: `test_replay.py`.
"""

import random

import pytest

from tests.support.replay import Turn, find_trace, made_trace, read_trace, replay, superposed

NEAR = 1.03
"""Over the wait that a look at all nodes comes to."""


def near(turns: list[Turn], nodes: int, gateways: int) -> tuple[float, float]:
    """p50 and p99 of a sample over those of all nodes."""
    random.seed(3)
    everything, sample = replay(turns, nodes=nodes), replay(turns, nodes=nodes, gateways=gateways, sampled=True)
    return sample.p50 / everything.p50, sample.p99 / everything.p99


@pytest.mark.parametrize("gateways", [1, 4])
def test_a_sample_of_the_made_trace_is_near_all_nodes(gateways: int) -> None:
    p50, p99 = near(superposed(made_trace(), 4, 300.0), 32, gateways)
    assert p50 <= NEAR + 0.02
    assert p99 <= NEAR + 0.02


@pytest.mark.prove
@pytest.mark.parametrize("gateways", [1, 8])
@pytest.mark.parametrize(("nodes", "seconds"), [(64, 600.0), (512, 120.0)])
def test_a_sample_is_near_all_nodes_on_the_trace(nodes: int, seconds: float, gateways: int) -> None:
    real = find_trace()
    if real is None:
        pytest.skip("the trace is not here")
    turns = superposed(read_trace(real), nodes // 8, seconds)
    p50, p99 = near(turns, nodes, gateways)
    print(f"{nodes} nodes, {gateways} gateways: p50 {p50:.3f}, p99 {p99:.3f} of all nodes'")
    assert p50 <= NEAR and p99 <= NEAR


def test_copies_share_no_conversation_and_are_as_many() -> None:
    trace = [Turn(0.0, 512, 1, (1, 2)), Turn(50.0, 1024, 1, (1, 2, 3))]
    turns = superposed(trace, 3, 1000.0)
    assert len(turns) == 6
    assert len({turn.conversation for turn in turns}) == 3
    assert len({turn.blocks for turn in turns}) == 6
    assert [turn.at for turn in turns] == sorted(turn.at for turn in turns)
    assert len(superposed(trace, 3, 20.0)) < 6
