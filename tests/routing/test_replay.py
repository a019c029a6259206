"""The gateway's own policy on a trace, beside an oracle that sees every cache and every queue of the fleet."""

import functools

import pytest

from gateway.core.routing.selection import EXPECTED_WAIT, POLICIES
from tests.support.replay import Outcome, Turn, find_trace, made_trace, read_trace, replay

NEAR = 1.15
NEAR_ENOUGH = 1.25
"""For fleets of other sizes, of which the smaller have the longer tails: one long prompt holds up a third of them."""
GATEWAYS = (1, 4, 8)


@functools.cache
def trace() -> tuple[Turn, ...]:
    """The real one where it is there, else one that looks like it."""
    real = find_trace()
    return tuple(made_trace() if real is None else read_trace(real))


@functools.cache
def outcome(policy: str, gateways: int = 1, shared: bool = True, nodes: int = 8) -> Outcome:
    return replay(list(trace()), policy, gateways, shared, nodes)


@pytest.mark.parametrize("gateways", GATEWAYS)
def test_gateways_that_share_facts_come_near_the_oracle(gateways: int) -> None:
    best, ours = outcome("oracle"), outcome(EXPECTED_WAIT, gateways)
    assert ours.p50 <= NEAR * best.p50
    assert ours.p99 <= NEAR * best.p99


@pytest.mark.parametrize("gateways", GATEWAYS)
def test_the_made_trace_says_the_same(gateways: int) -> None:
    made = made_trace()
    best, ours = replay(made, "oracle"), replay(made, EXPECTED_WAIT, gateways)
    assert ours.p50 <= NEAR * best.p50
    assert ours.p99 <= NEAR * best.p99


@pytest.mark.parametrize("policy", sorted(POLICIES))
def test_the_default_is_better_than_every_other_policy(policy: str) -> None:
    ours, other = outcome(EXPECTED_WAIT), outcome(policy)
    assert ours.p50 <= other.p50
    assert ours.p99 < other.p99


def test_without_shared_facts_it_is_still_better_than_taking_turns() -> None:
    ours, turns = outcome(EXPECTED_WAIT, gateways=4, shared=False), outcome("round_robin")
    assert ours.p50 < turns.p50
    assert ours.p99 < turns.p99


def test_no_node_is_left_out_and_none_is_favoured() -> None:
    served = outcome(EXPECTED_WAIT, 4).served
    assert max(served.values()) < 1.4 * min(served.values())


@pytest.mark.prove
@pytest.mark.parametrize("nodes", [3, 4, 6, 12, 16])
@pytest.mark.parametrize("gateways", GATEWAYS)
def test_it_holds_for_fleets_of_many_sizes(nodes: int, gateways: int) -> None:
    """As much work for each node as with eight."""
    turns = [turn._replace(at=turn.at * 8 / nodes) for turn in trace()]
    best, ours = replay(turns, "oracle", nodes=nodes), replay(turns, EXPECTED_WAIT, gateways, nodes=nodes)
    p50, p99 = ours.p50 / best.p50, ours.p99 / best.p99
    print(f"{nodes} nodes, {gateways} gateways: p50 {p50:.2f}, p99 {p99:.2f} of the oracle's")
    assert p50 <= NEAR_ENOUGH
    assert p99 <= NEAR_ENOUGH
