"""The homes of conversations on a ring of hashes."""

from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core.routing.hash_ring import HashRing


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 9), st.sampled_from([0.0, 0.01, 1.0, 3.0, 1000.0])), max_size=30))
def test_a_ring_is_the_same_whatever_order_its_nodes_came_in(steps: list[tuple[int, float]]) -> None:
    ring: HashRing[int] = HashRing()
    there: dict[int, float] = {}
    for node, weight in steps:
        if weight:
            ring.add(node, f"node-{node}", weight)
            there[node] = weight
        else:
            ring.remove(node)
            there.pop(node, None)
    anew: HashRing[int] = HashRing()
    for node in sorted(there):
        anew.add(node, f"node-{node}", there[node])
    for number in range(5):
        key = number.to_bytes(1, "big") * 16
        assert list(ring.walk(key)) == list(anew.walk(key))
        assert set(ring.walk(key)) == set(there)


def test_a_node_that_leaves_moves_only_its_own_conversations() -> None:
    ring: HashRing[int] = HashRing()
    for node in range(50):
        ring.add(node, f"node-{node}", 1.0)
    keys = [bytes([a, b]) * 8 for a in range(0, 256, 5) for b in range(0, 256, 51)]
    before = {key: next(ring.walk(key)) for key in keys}
    assert len(set(before.values())) > 40
    ring.remove(7)
    assert all(next(ring.walk(key)) == home for key, home in before.items() if home != 7)


def test_an_empty_ring_has_no_homes() -> None:
    ring: HashRing[int] = HashRing()
    ring.remove(1)
    assert list(ring.walk(bytes(16))) == []


def test_a_node_of_twice_the_weight_is_home_of_about_twice_as_many() -> None:
    ring: HashRing[int] = HashRing()
    for node in range(20):
        ring.add(node, f"node-{node}", 2.0 if node < 10 else 1.0)
    homes = [next(ring.walk(bytes([a, b]) * 8)) for a in range(256) for b in range(0, 256, 4)]
    heavy = sum(home < 10 for home in homes) / len(homes)
    assert 0.55 < heavy < 0.78
