"""The fleet across reloads: what stays known, what is forgotten, and that a lease is given back once."""

from collections.abc import Sequence

import pytest

from gateway.core.errors import FleetFull, NoNodeReady
from gateway.core.fleet.capabilities import UNKNOWN
from gateway.core.fleet.node_metrics import NodeMetrics
from gateway.fleet.fleet import Fleet
from gateway.fleet.node import Lease, Node
from gateway.fleet.node_spec import Drain, NodeSpec

A, B = NodeSpec("http://a:1"), NodeSpec("http://b:1")


def fleet_of(*specs: NodeSpec) -> Fleet:
    fleet = Fleet(specs)
    for node in fleet.nodes:
        node.probe_succeeded({"m": {"id": "m"}})
    return fleet


def lease_of(fleet: Fleet, turn: int = 0, tried: Sequence[Node] = ()) -> Lease:
    """A lease on one of the nodes that may be given a request for the model now."""
    candidates = fleet.candidates("m", tried)
    return Lease(candidates[turn % len(candidates)])


def test_nodes_that_stay_keep_their_state() -> None:
    fleet = fleet_of(A, B)
    kept = fleet.nodes[1]
    assert fleet.update([B]) == ()
    assert fleet.nodes == (kept,)


def test_a_rotated_key_does_not_make_its_models_unknown() -> None:
    fleet = fleet_of(A)
    (new,) = fleet.update([NodeSpec(A.url, api_key="next")])
    assert "m" in fleet.served
    assert not new.ready


def test_what_is_in_flight_stays_counted_whatever_becomes_of_its_node() -> None:
    fleet = fleet_of(A, B)
    node = fleet.nodes[0]
    fleet.share_with(2)
    leases = [lease_of(fleet, tried=fleet.nodes[1:]) for _ in range(3)]
    node.refused("down", 1.0)
    node.probe_succeeded({"m": {"id": "m"}}, 2.0)
    for probe in range(9):
        node.probe_failed("late", failure_threshold=2, now=3.0 + probe)
    node.drain_for("ordered", Drain(), 20.0)
    node.drain_for("ordered", None, 21.0)
    fleet.update([NodeSpec(A.url, api_key="next", max_concurrency=1), B])
    assert (node.in_flight, len(node.leases)) == (3, 3)
    for lease in leases:
        lease.release()
    assert (node.in_flight, len(node.leases)) == (0, 0)


def test_a_lease_counts_once_however_often_it_is_released() -> None:
    fleet = fleet_of(A)
    lease = lease_of(fleet)
    assert fleet.nodes[0].in_flight == 1
    lease.release()
    lease.release()
    assert fleet.nodes[0].in_flight == 0


def test_a_node_that_only_misses_probes_is_better_than_none() -> None:
    fleet = fleet_of(A, B)
    fleet.nodes[0].refused("down")
    assert {lease_of(fleet, turn).node.spec for turn in range(4)} == {B}
    fleet.nodes[1].refused("down")
    assert {lease_of(fleet, turn).node.spec for turn in range(4)} == {A, B}
    with pytest.raises(NoNodeReady):
        lease_of(fleet, tried=fleet.nodes)


def test_probes_may_fail_as_often_as_is_tolerated() -> None:
    fleet = fleet_of(A)
    node = fleet.nodes[0]
    for _ in range(2):
        node.probe_failed("late", failure_threshold=2)
        assert node.ready
    node.probe_failed("late", failure_threshold=2)
    assert (node.ready, node.last_error) == (False, "late")


def test_a_bound_that_shrinks_holds_before_the_next_probe() -> None:
    """Another gateway has come, or a reload says less: requests do not wait for a probe to be counted by it."""
    fleet = fleet_of(NodeSpec(A.url, max_concurrency=8))
    node = fleet.nodes[0]
    fleet.share_with(2)
    assert node.places == 4
    fleet.update([NodeSpec(A.url, max_concurrency=2)])
    assert node.places == 1
    leases = [lease_of(fleet)]
    with pytest.raises(FleetFull):
        lease_of(fleet)
    assert len(leases) == node.in_flight == 1


def full_page(at: float) -> NodeMetrics:
    return NodeMetrics(at, running=8, waiting=5, generated=0)


def test_a_request_that_moves_goes_beyond_a_bound_that_was_found() -> None:
    """Nobody asked for the bound: it is no reason to lose an answer whose node has died."""
    fleet = fleet_of(A, B)
    first, second = fleet.nodes
    fleet.load_told(second, NodeMetrics(0, running=0, waiting=0, generated=0), True, 0)
    second.refresh(0)
    leases = [Lease(second) for _ in range(64)]
    with pytest.raises(FleetFull):
        fleet.candidates("m", (first,))
    assert fleet.candidates("m", (first,), moves=True) == [second], "it was not shown yet how much it can take"
    for page in range(1, 4):
        fleet.load_told(second, full_page(page), True, 64)
    second.refresh(4)
    assert second.max_concurrency == 9
    assert fleet.candidates("m", (first,), moves=True) == [second]
    fleet.update([A, NodeSpec(B.url, max_concurrency=64)])
    for _ in range(6):  # a tenth
        with pytest.raises(FleetFull):
            fleet.candidates("m", (first,))
        assert fleet.candidates("m", (first,), moves=True) == [second]
        leases.append(Lease(second))
    leases.append(Lease(second))
    with pytest.raises(FleetFull):
        fleet.candidates("m", (first,), moves=True)
    second.leave()
    assert len(leases) == second.in_flight == 71


def test_all_gateways_are_told_what_a_node_has_once_it_has_a_bound() -> None:
    fleet = fleet_of(A, B)
    told = []
    fleet.on_bounds = lambda: told.append(1)
    fleet.update([A, B])
    assert not told
    fleet.update([A, NodeSpec(B.url, max_concurrency=8)])
    assert len(told) == 1, "a reload bounds it"
    for page in range(3):
        fleet.load_told(fleet.nodes[0], full_page(page), True, 64)
    assert len(told) == 2, "its metrics do"
    fleet.update([A, NodeSpec(B.url, max_concurrency=9)])
    assert len(told) == 2


def test_a_node_that_left_has_no_place_however_it_is_probed() -> None:
    fleet = fleet_of(A, B)
    node = fleet.nodes[0]
    fleet.update([B])
    node.probe_succeeded({"m": {"id": "m"}}, 1.0)
    assert not node.has_place(1.0)
    assert node.closed


def test_a_pace_that_was_forgotten_is_learnt_again() -> None:
    """What a node can do is replaced whole when it was asked anew, while requests note its pace."""
    node = fleet_of(A).nodes[0]
    node.keep_pace(4.0)
    node.keep_pace(5.0)
    assert node.capabilities.pace == pytest.approx(3.6)
    node.capabilities = UNKNOWN
    node.keep_pace(5.0)
    assert node.capabilities.pace == pytest.approx(4.5)
