"""Candidates of large models: the kept structure against a plain walk, whatever happens to nodes in whatever order."""

from collections.abc import Callable, Mapping
from math import inf

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core.errors import FleetFull, NoNodeReady
from gateway.core.routing.node_sample import DRAWN, FREE, HOMES, LEAST, WHOLE
from gateway.core.routing.selection import EXPECTED_WAIT, PrefillBacklog
from gateway.fleet.fleet import Fleet
from gateway.fleet.node import Lease, Node
from gateway.fleet.node_spec import Drain, NodeSpec
from gateway.routing.candidate_sampler import MOST_MODELS, CandidateSampler

MODEL, OTHER = "m", "n"
MOST = 1 + HOMES + LEAST + DRAWN
PLAIN_LIMIT = 24
URLS = tuple(f"http://10.0.0.{number}:8000" for number in range(PLAIN_LIMIT))


class View:
    """The router of a test."""

    def __init__(self, policy: str = EXPECTED_WAIT) -> None:
        self.pending: dict[str, PrefillBacklog] = {}
        self.load_penalty = 1.0
        self._policy = policy

    def policy(self, model: str | None) -> str:
        return self._policy


def spec(number: int, bound: int | None, weight: float = 1.0) -> NodeSpec:
    return NodeSpec(URLS[number], max_concurrency=bound, weight=weight)


def fleet_of(count: int, bound: int | None = 2) -> Fleet:
    fleet = Fleet([spec(number, bound) for number in range(count)])
    for node in fleet.nodes:
        node.probe_succeeded({MODEL: {}})
    return fleet


NODE = st.integers(0, PLAIN_LIMIT - 1)
STEPS = st.one_of(
    st.tuples(st.just("update"), st.lists(NODE, min_size=14, unique=True)),
    st.tuples(st.sampled_from(["lease", "lease", "lease", "release", "drain", "undrain", "refused", "answered"]), NODE),
    st.tuples(st.sampled_from(["busy", "full elsewhere", "card", "no card", "probed"]), NODE),
    st.tuples(st.just("time"), st.floats(0.1, 30.0)),
    st.tuples(st.just("shared"), st.booleans()),
    st.tuples(st.just("bound"), st.sampled_from([1, 2, None])),
)


class Story:
    """A fleet, its sampler, and what has happened."""

    def __init__(self, policy: str) -> None:
        self.fleet = Fleet()
        self.sampler = CandidateSampler(self.fleet, View(policy), 1 / 8000)
        self.now, self.bound, self.turn = 100.0, 2, 0
        self.leases: list[Lease] = []
        self.fleet.update([spec(number, 2) for number in range(20)])
        for node in self.fleet.nodes:
            node.probe_succeeded({MODEL: {}}, self.now)

    def step(self, name: str, value: object) -> None:
        fleet, now = self.fleet, self.now
        match name, value:
            case "update", list(numbers):
                fleet.update([spec(number, self.bound, 1.0 + number % 3) for number in numbers])
                for node in fleet.nodes:
                    node.probe_succeeded({MODEL: {}}, now)
            case "bound", bound:
                self.bound = bound  # type: ignore[assignment]
                fleet.update([spec(URLS.index(node.spec.url), self.bound) for node in fleet.nodes])
            case "time", float(seconds):
                self.now += seconds
            case "shared", bool(shared):
                fleet.share_places(shared, now)
            case _, int(number):
                self.step_of(fleet.nodes[number % len(fleet.nodes)], name)

    def step_of(self, node: Node, name: str) -> None:
        now = self.now
        match name:
            case "lease" if node.in_flight < node.bound:
                self.leases.append(Lease(node, now))
            case "release" if self.leases:
                self.leases.pop(0).release()
            case "drain":
                node.drain_for("test", Drain(now), now)
            case "undrain":
                node.drain_for("test", None, now)
            case "refused":
                node.refused("down", now)
            case "answered":
                node.answered(now)
            case "probed":
                node.probe_succeeded(node.cards, now)
            case "busy":
                node.busy(now + 5.0)
            case "full elsewhere":
                self.sampler.found_full([node])
            case "card":
                node.probe_succeeded({MODEL: {}, OTHER: {}}, now)
            case "no card":
                node.probe_succeeded({OTHER: {}}, now)

    def check(self, model: str, tried: list[Node], moves: bool) -> None:
        self.turn += 1
        plain: set[Node] | type[Exception]
        try:
            plain = set(self.fleet.candidates(model, tried, None, self.now, moves))
        except (FleetFull, NoNodeReady) as error:
            plain = type(error)
        for every in (False, True):
            try:
                sampled = self.sampler.candidates(
                    model, "10.0.0.3:8000", b"%16d" % self.turn, self.turn, self.now, tried, moves, every
                )
            except (FleetFull, NoNodeReady) as error:
                assert plain is type(error)
                continue
            assert isinstance(plain, set), f"all say {plain}, a sample {sampled}"
            assert sampled and len(set(sampled)) == len(sampled)
            assert set(sampled) <= plain
            if every and any(node.has_place(self.now) for node in plain):
                assert set(sampled) == plain
            else:
                assert every or len(sampled) <= MOST + 5 * (LEAST + DRAWN + len(tried))


@settings(max_examples=300, deadline=None)
@given(
    st.lists(STEPS, max_size=40),
    st.sampled_from([EXPECTED_WAIT, "affinity", "least_loaded", "power_of_two", "round_robin"]),
    st.lists(NODE, max_size=3),
)
def test_a_sample_is_of_those_that_a_walk_finds_and_there_is_one_whenever_there_is_any(
    steps: list[tuple[str, object]], policy: str, tried: list[int]
) -> None:
    story = Story(policy)
    for name, value in steps:
        story.step(name, value)
        fleet, sampler = story.fleet, story.sampler
        assert set(sampler.models) == {model for model in fleet.served if fleet.count_of(model) > WHOLE}
        for model in sampler.models:
            avoided = [fleet.nodes[number % len(fleet.nodes)] for number in tried]
            story.check(model, [], False)
            story.check(model, avoided, False)
            story.check(model, avoided, True)
            assert set(sampler.models[model].nodes.standing(FREE)) == {
                node for node in fleet.nodes_of(model) if node.has_place(story.now)
            }
        assert all((node.on_load is not None) == any(m in sampler.models for m in node.cards) for node in fleet.nodes)
    while story.leases:
        story.leases.pop().release()
    assert all(node.in_flight == 0 for node in story.fleet.nodes)


def loads_of(sampler: CandidateSampler) -> Mapping[Node, float]:
    model = sampler.models[MODEL]
    return {node: sampler._load(node, model) for node in model.nodes.standing(FREE)}


def test_load_is_requests_and_prompts_of_all_gateways() -> None:
    fleet = fleet_of(20, bound=10)
    view = View()
    sampler = CandidateSampler(fleet, view, 1 / 1000)
    fleet.share_places(True, 1.0)
    one, two, three = fleet.nodes[:3]
    view.pending[one.name] = PrefillBacklog(2000, 1)
    lease = Lease(one)
    sampler.heard({two: 10}, {three: 3000})
    assert loads_of(sampler)[one] == pytest.approx(1.0 + 0.1)
    assert loads_of(sampler)[two] == inf
    assert loads_of(sampler)[three] == pytest.approx(3.0)
    least = sampler.models[MODEL].nodes.free.least(17, 0.5)
    assert not {one, two, three} & set(least)
    lease.release()
    del view.pending[one.name]
    sampler.heard({}, {})
    assert set(loads_of(sampler).values()) == {0.0}


def test_where_all_seem_full_elsewhere_there_is_no_room_but_still_a_sample() -> None:
    fleet = fleet_of(20)
    sampler = CandidateSampler(fleet, View(), 1 / 8000)
    fleet.share_places(True, 1.0)
    assert sampler.has_room(MODEL)
    sampler.found_full(fleet.nodes)
    assert not sampler.has_room(MODEL)
    assert sampler.candidates(MODEL, None, bytes(16), 0, 1.0)
    fleet.share_places(False, 1.0)
    assert sampler.has_room(MODEL), "each keeps to its own part now"


def test_the_last_node_comes_first_and_then_the_homes() -> None:
    fleet = fleet_of(PLAIN_LIMIT)
    sampler = CandidateSampler(fleet, View(), 1 / 8000)
    key = bytes(range(16))
    homes = sampler.models[MODEL].nodes.homes(key, ())
    last = next(node for node in fleet.nodes if node not in homes)
    found = sampler.candidates(MODEL, last.name, key, 0, 1.0)
    assert found[: 1 + HOMES] == [last, *homes]
    found = sampler.candidates(MODEL, "10.9.9.9:8000", key, 0, 1.0)
    assert found[:HOMES] == homes, "the last node has left"


def test_who_is_next_in_turn_is_the_only_candidate_of_round_robin() -> None:
    fleet = fleet_of(20)
    sampler = CandidateSampler(fleet, View("round_robin"), 1 / 8000)
    found = [sampler.candidates(MODEL, None, bytes(16), turn, 1.0) for turn in range(40)]
    assert found == [[node] for node in fleet.nodes * 2]


def out(node: Node) -> None:
    node.refused("down", 1.0)


def warming_up(node: Node) -> None:
    node.refused("down", 1.0)
    node.answered(1.0)
    while node.in_flight < node.places:
        Lease(node, 1.0)


def busy(node: Node) -> None:
    node.busy(5.0)


@pytest.mark.parametrize("become", [warming_up, busy, out])
@pytest.mark.parametrize("moves", [False, True])
def test_where_no_node_is_free_no_few_get_all_requests(become: Callable[[Node], None], moves: bool) -> None:
    fleet = fleet_of(PLAIN_LIMIT, bound=None)
    sampler = CandidateSampler(fleet, View(), 1 / 8000)
    for node in fleet.nodes:
        become(node)
    found = [sampler.candidates(MODEL, None, bytes(16), turn, 2.0, (), moves) for turn in range(500)]
    assert set().union(*found) == set(fleet.nodes)
    assert max(map(len, found)) <= LEAST + DRAWN


def test_a_node_that_is_busy_by_its_word_is_not_asked_while_one_is_not() -> None:
    fleet = fleet_of(PLAIN_LIMIT, bound=None)
    sampler = CandidateSampler(fleet, View(), 1 / 8000)
    for node in fleet.nodes:
        warming_up(node)
    for node in fleet.nodes[:-1]:
        node.busy(5.0)
    for turn in range(20):
        assert sampler.candidates(MODEL, None, bytes(16), turn, 2.0) == [fleet.nodes[-1]]
    Lease(fleet.nodes[-1]).node.busy(9.0)
    assert len(sampler.candidates(MODEL, None, bytes(16), 20, 2.0)) == LEAST + DRAWN
    assert fleet.nodes[-1] not in sampler.candidates(MODEL, None, bytes(16), 21, 6.0)


def test_of_all_that_are_free_those_come_first_that_seem_to_have_room() -> None:
    fleet = fleet_of(PLAIN_LIMIT)
    sampler = CandidateSampler(fleet, View(), 1 / 8000)
    fleet.share_places(True, 1.0)
    sampler.found_full([node for node in fleet.nodes if node is not fleet.nodes[13]])
    every = sampler.candidates(MODEL, None, bytes(16), 0, 1.0, every=True)
    assert every[0] is fleet.nodes[13] and set(every) == set(fleet.nodes)


def test_nodes_with_very_many_adapters_are_not_sampled() -> None:
    fleet = fleet_of(20)
    sampler = CandidateSampler(fleet, View(), 1 / 8000)
    adapters: dict[str, dict[str, object]] = {MODEL: {}, **{f"adapter-{number}": {} for number in range(MOST_MODELS)}}
    assert set(sampler.models) == {MODEL}
    fleet.nodes[3].probe_succeeded(adapters)
    assert not sampler.models, "all nodes of the model are looked at, that one as well"
    assert all(node.on_load is None for node in fleet.nodes)
    for node in fleet.nodes:
        node.probe_succeeded(adapters)
    assert not sampler.models
    for node in fleet.nodes:
        node.probe_succeeded({MODEL: {}})
    assert set(sampler.models) == {MODEL}
    assert set(sampler.models[MODEL].nodes.standing(FREE)) == set(fleet.nodes)


@pytest.mark.parametrize("leaves", ["the model", "the fleet"])
def test_a_model_is_sampled_again_once_the_node_with_many_adapters_has_left(leaves: str) -> None:
    fleet = fleet_of(20)
    sampler = CandidateSampler(fleet, View(), 1 / 8000)
    adapters: dict[str, dict[str, object]] = {f"adapter-{number}": {} for number in range(MOST_MODELS + 1)}
    fleet.nodes[3].probe_succeeded({MODEL: {}, **adapters})
    assert not sampler.models
    if leaves == "the model":
        fleet.nodes[3].probe_succeeded(adapters)
    else:
        fleet.update([node.spec for node in fleet.nodes if node is not fleet.nodes[3]])
    assert set(sampler.models) == {MODEL} and len(sampler.models[MODEL].nodes) == 19
    assert not sampler._crowded or leaves == "the model"
