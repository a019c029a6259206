"""A sample of one model's nodes, against a plain walk over all of them."""

from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core.routing.node_sample import BUSY, DRAINED, DRAWN, FREE, HOMES, LEAST, NodeSample

NODE = st.integers(0, 29)
STEPS = st.one_of(
    st.tuples(st.just("join"), NODE, st.sampled_from([1.0, 2.0])),
    st.tuples(st.just("leave"), NODE, st.just(0.0)),
    st.tuples(st.integers(FREE, DRAINED), NODE, st.floats(0, 100)),
)
KEY = bytes(range(16))


@settings(max_examples=300, deadline=None)
@given(
    st.lists(STEPS, max_size=60),
    st.none() | NODE,
    st.sets(NODE, max_size=3),
    st.tuples(st.floats(0, 0.999), st.floats(0, 0.999)),
)
def test_a_sample_is_of_the_free_and_there_is_one_whenever_one_is_free(
    steps: list[tuple[str | int, int, float]], last: int | None, tried: set[int], draws: tuple[float, float]
) -> None:
    sample: NodeSample[int] = NodeSample()
    plain: dict[int, int] = {}
    for step, node, value in steps:
        if step == "join":
            sample.join(node, f"node-{node}", value)
            sample.put(node, plain.setdefault(node, FREE), 0.0)
        elif step == "leave":
            sample.leave(node)
            plain.pop(node, None)
        elif node in plain and isinstance(step, int):
            sample.put(node, step, value)
            plain[node] = step
    for standing in range(DRAINED + 1):
        those = {node for node, stands in plain.items() if stands == standing}
        assert set(sample.standing(standing)) == those and sample.count(standing) == len(those)
        assert set(sample.some(standing, 30, draws[0])) == those
    free = {node for node, stands in plain.items() if stands == FREE} - tried
    found = sample.sample(last, KEY, draws, tried)
    assert set(found) <= free and len(found) == len(set(found))
    assert bool(found) == bool(free)
    assert len(found) <= 1 + HOMES + LEAST + len(tried) + DRAWN
    assert last not in free or found[0] == last
    assert len(sample) == len(plain) and all((node in sample) == (node in plain) for node in range(30))


def test_homes_are_looked_for_among_a_bounded_number_of_points() -> None:
    sample: NodeSample[int] = NodeSample()
    for node in range(200):
        sample.join(node, f"node-{node}", 1.0)
        sample.put(node, BUSY, 0.0)
    assert sample.homes(KEY, ()) == []
    home = next(iter(sample._ring.walk(KEY)))
    sample.put(home, FREE, 0.0)
    assert sample.homes(KEY, ()) == [home] and sample.homes(KEY, [home]) == []
