"""What a fleet keeps up as its nodes change, against the same facts found by walking all nodes."""

import math

from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core.fleet.node_metrics import NodeMetrics
from gateway.fleet.fleet import Fleet
from gateway.fleet.node import Lease, Node
from gateway.fleet.node_spec import Drain, NodeSpec

MODELS = ("a", "b", "c")
URLS = tuple(f"http://10.0.0.{number}:8000" for number in range(4))
CARDS = st.dictionaries(st.sampled_from(MODELS), st.sampled_from([{}, {"max_model_len": 10}, {"max_model_len": 20}]))
SPECS = st.lists(
    st.builds(
        NodeSpec, st.sampled_from(URLS), st.sampled_from([None, "key"]), st.none(), st.sampled_from([None, 1, 9])
    ),
    max_size=5,
)
STEPS = st.one_of(
    st.tuples(st.just("update"), SPECS),
    st.tuples(st.just("gateways"), st.integers(1, 3)),
    st.tuples(st.just("shared"), st.booleans()),
    st.tuples(
        st.sampled_from(["refused", "missed", "drain", "undrain", "answered", "doubted", "passed", "full"]), st.none()
    ),
    st.tuples(st.just("cards"), CARDS),
)


def plain_facts(fleet: Fleet, model: str) -> tuple[object, ...]:
    """By walking."""
    serving = [node for node in fleet.nodes if model in node.cards]
    windows = [node.cards[model]["max_model_len"] for node in serving if "max_model_len" in node.cards[model]]
    first = next((node for node in serving if node.ready), serving[0] if serving else None)
    return (
        tuple(serving),
        min(windows, default=None),
        any(node.ready and node.failing is None for node in serving),
        sum(node.bound for node in serving if node.ready),
        None if first is None else first.cards[model],
    )


def has_another(fleet: Fleet, node: Node) -> bool:
    return any(other is not node and other.ready and node.cards.keys() & other.cards.keys() for other in fleet.nodes)


def full_page(at: float) -> NodeMetrics:
    return NodeMetrics(at=at, running=5, waiting=9)


@settings(max_examples=400, deadline=None)
@given(st.lists(st.tuples(STEPS, st.integers(0, 3)), max_size=25))
def test_what_is_kept_is_what_a_walk_finds(steps: list[tuple[tuple[str, object], int]]) -> None:
    fleet, now, gone = Fleet([NodeSpec(url) for url in URLS[:2]]), 0.0, []
    changed: list[Node] = []
    fleet.on_change = changed.append
    for (name, value), number in steps:
        now += 1.0
        node = fleet.nodes[number % len(fleet.nodes)] if fleet.nodes else None
        if name == "update":
            before = fleet.nodes
            fleet.update(value)  # type: ignore[arg-type]
            gone = [each for each in before if each not in fleet.nodes]
        elif name == "gateways":
            fleet.share_with(value)  # type: ignore[arg-type]
        elif name == "shared":
            fleet.share_places(bool(value), now)
        elif node is not None:
            apply(fleet, node, name, value, now)
        for each in gone:  # what has left may still be told something
            each.refused("gone", now)
        for model in MODELS:
            told = (
                tuple(fleet.nodes_of(model)),
                fleet.window(model),
                fleet.serves(model),
                fleet.places(model),
                fleet.cards().get(model),
            )
            assert told == plain_facts(fleet, model)
            assert (model in fleet.served) == any(model in each.cards for each in fleet.nodes)
        assert fleet.serves() == any(each.ready and each.failing is None for each in fleet.nodes)
        assert fleet.bounded == any(each.bounded for each in fleet.nodes)
        assert [fleet.has_another(each) for each in fleet.nodes] == [has_another(fleet, each) for each in fleet.nodes]
        assert all(fleet.by_tag(each.tag) is fleet.by_name(each.name) is each for each in fleet.nodes)


def apply(fleet: Fleet, node: Node, name: str, value: object, now: float) -> None:
    match name:
        case "cards":
            node.probe_succeeded(value, now)  # type: ignore[arg-type]
        case "refused":
            node.refused("down", now)
        case "missed":
            node.probe_failed("late", 0, now)
        case "drain":
            node.drain_for("test", Drain(now, math.inf), now)
        case "undrain":
            node.drain_for("test", None, now)
        case "answered":
            node.answered(now)
        case "doubted":
            fleet.check_failed(node, "failed", now)
        case "passed":
            node.check_passed()
        case "full":
            for _ in range(3):
                fleet.load_told(node, full_page(now), True, 0)


def test_a_node_is_told_once_it_is_changed_and_when_a_lease_begins_or_ends() -> None:
    fleet = Fleet([NodeSpec(URLS[0])])
    changed: list[Node] = []
    fleet.on_change = changed.append
    node = fleet.nodes[0]
    node.busy(5.0)
    node.on_load = changed.append
    lease = Lease(node)
    lease.release()
    lease.release()
    fleet.update([])
    assert changed == [node] * 4
