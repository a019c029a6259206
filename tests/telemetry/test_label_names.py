"""Labels are bounded: names beyond the bound are counted together, in one process and in several."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from pydantic import ValidationError

from gateway.config.access import TenantConfig
from gateway.core.admission.queue_facts import QueueFacts
from gateway.core.fleet.node_facts import CanaryRuns, NodeFacts
from gateway.core.telemetry.folded import OTHER
from gateway.telemetry.label_names import LabelNames
from gateway.telemetry.metrics import LabelBounds, Metrics
from tests.telemetry.test_batches import ended, sample


def test_a_name_keeps_its_label() -> None:
    names = LabelNames(2)
    assert [names.label(each) for each in ("a", "b", "c", "a", "-", "c")] == ["a", "b", OTHER, "a", "-", OTHER]


def test_a_tenant_called_other_is_not_counted_with_those_beyond_the_bound() -> None:
    names = LabelNames(1)
    assert (names.label("other"), names.label("more")) == ("other", "(other)")
    with pytest.raises(ValidationError):
        TenantConfig(name=names.label("more"))


def test_a_model_that_a_node_calls_as_the_rest_is_counted_with_it_and_takes_no_place() -> None:
    names = LabelNames(1)
    assert [names.label(each) for each in (OTHER, "a", "b")] == [OTHER, "a", OTHER]


def test_processes_give_a_name_the_same_label(tmp_path: Path) -> None:
    file = tmp_path / "labels"
    first, second = LabelNames(3, file), LabelNames(3, file)
    assert [first.label("a"), second.label("b"), second.label("c")] == ["a", "b", "c"]
    assert [first.label(each) for each in ("d", "c", "b")] == [OTHER, "c", "b"]
    assert second.label("a") == "a"


def test_processes_read_names_as_they_were_written(tmp_path: Path) -> None:
    """Nodes choose the names of models: some characters end a line for Python, and none does in the file."""
    file = tmp_path / "labels"
    first, second = LabelNames(2, file), LabelNames(2, file)
    assert [first.label("a\u2028b"), second.label("c"), first.label("c"), second.label("a")] == [
        *("a\u2028b", "c", "c", OTHER),
    ]


def test_processes_that_ask_at_once_do_not_exceed_the_bound(tmp_path: Path) -> None:
    file = tmp_path / "labels"
    processes = [LabelNames(10, file) for _ in range(8)]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda at: [processes[at].label(f"n{at * 7 % 5 + n}") for n in range(20)], range(8)))
    own = {label for labels in found for label in labels} - {OTHER}
    assert len(own) == 10 and sorted(own) == sorted(file.read_text().split())


def test_sums_are_whole_where_tenants_are_folded() -> None:
    metrics = Metrics(LabelBounds(tenants=2, models=1))
    metrics.known_tenants(["z"])
    for tenant, model in (("a", "m"), ("b", "m"), ("c", "n"), ("z", "n")):
        metrics.request_ended(ended(tenant=tenant, model=model))
    page = metrics.page()
    counted = 'fleetgate_requests_total{dialect="chat",ending="ok",model="%s",status="200",tenant="%s"}'
    for place, value in {("m", "a"): 1, ("m", OTHER): 1, (OTHER, OTHER): 1, (OTHER, "z"): 1}.items():
        assert sample(page, counted % place) == value, place
    assert b'tenant="b"' not in page and b'model="n"' not in page


def test_gauges_of_folded_names_are_put_together() -> None:
    metrics = Metrics(LabelBounds(tenants=1, models=1, nodes=1))
    metrics.fleet_state(
        0,
        [
            NodeFacts("x", True, "closed", {}, False, 1, 8, CanaryRuns(passed=1), True, 0.5, 0),
            NodeFacts("y", True, "closed", {"silent": 2}, False, 2, 8, CanaryRuns(weak=1), False, 0.25, 1),
            NodeFacts("z", False, "open", {"silent": 1}, True, 4, None, CanaryRuns(weak=2), None, 0.75, 2),
        ],
    )
    waiting = {"standard": 2}
    counters = {("standard", "a"): 5.0, ("standard", "b"): 9.0, ("standard", "c"): 7.0}
    metrics.queue_state(
        [QueueFacts(name, waiting, 0, wait, counters) for name, wait in (("m", 1.0), ("n", 4.0), ("o", 2.0))]
    )
    metrics.models_state({"m": True, "n": True, "o": False})
    metrics.limits_left({("a", "l"): 0.5, ("b", "l"): 0.9, ("c", "l"): 0.2})
    page = metrics.page()
    for name, value in {
        'fleetgate_node_ready{node="x"}': 1,
        'fleetgate_node_ready{node="(other)"}': 1,
        'fleetgate_node_in_flight{node="(other)"}': 6,
        'fleetgate_node_max_concurrency{node="(other)"}': 8,
        'fleetgate_node_breaker{node="(other)",state="open"}': 1,
        'fleetgate_node_kv_cache_used_ratio{node="(other)"}': 0.75,
        'fleetgate_node_waiting_requests{node="(other)"}': 3,
        'fleetgate_node_holds_budgets{node="(other)"}': 0,
        'fleetgate_node_taken_out_total{cause="silent",node="(other)"}': 3,
        'fleetgate_canaries_total{node="(other)",result="weak"}': 3,
        'fleetgate_waiting_requests{model="(other)",service_class="standard"}': 4,
        'fleetgate_expected_wait_seconds{model="(other)"}': 4,
        'fleetgate_turn_counter{model="m",service_class="standard",tenant="(other)"}': 9,
        'fleetgate_model_ready{model="(other)"}': 0,
        'fleetgate_limit_left_ratio{limit="l",tenant="(other)"}': 0.2,
    }.items():
        assert sample(page, name) == value, name
    metrics.fleet_state(0, [NodeFacts("x", True, "closed", {}, False, 1)])
    assert b'node_ready{node="(other)"}' not in metrics.page()


def test_a_folded_node_that_stays_is_not_counted_twice() -> None:
    metrics = Metrics(LabelBounds(nodes=1))
    nodes = [NodeFacts(name, True, "open", {"silent": 1}, False, 0) for name in "xyz"]
    for facts in (nodes, nodes, nodes[:2], nodes[:2]):
        metrics.fleet_state(0, facts)
    assert sample(metrics.page(), 'fleetgate_node_taken_out_total{cause="silent",node="(other)"}') == 2


def test_requests_of_many_tenants_leave_few_series() -> None:
    metrics = Metrics(LabelBounds(tenants=5))
    for number in range(2000):
        metrics.request_ended(ended(tenant=f"t{number}"))
    assert metrics.page().count(b"fleetgate_requests_total{") == 6
