"""The cost of a fleet that nobody asks anything: its sums, the nodes' page, and one small fleet as the large ones."""

import pytest

from gateway.core.fleet.node_metrics import read_node_metrics
from loadtest import probes, proxies
from loadtest.probes import IdleCost
from loadtest.quiet_nodes import metrics_page


def test_memory_a_node_is_the_difference_between_two_fleets() -> None:
    small, large = IdleCost(4, 1, 1.0, 0.01, 0.0, 80.0), IdleCost(1004, 1, 1.0, 0.04, 0.0, 95.0)
    assert probes.per_node([large, small]) == 15.0
    assert probes.line(large) == "| 1,004 | 1 | 1.0 | 4.0% | 0.0% | 95 |"


def test_the_page_is_as_long_as_a_vllms_and_says_the_same() -> None:
    page = metrics_page(1000.0, 3, 4567)
    assert 30_000 < len(page) < 60_000
    load = read_node_metrics(page, 1.0)
    assert (load.running, load.waiting, load.generated, load.started) == (3, 0, 4567, 1000.0)
    assert None not in (load.kv_use, load.cache_queries, load.cache_hits, load.ended, load.prompts)


@pytest.mark.prove
def test_a_small_fleet_is_measured() -> None:
    cost = probes.measure_idle(proxies.FLEETGATE, 3, 1, 0, 1.0)
    assert cost.ready > 0 and cost.core > 0 and cost.resident > 0


@pytest.mark.prove
def test_a_thousand_registrations_come_up_at_two_gateways() -> None:
    """docs/scaling.md has the seconds; here is only what may depend on no machine: all of them come up."""
    with probes.QuietFleet(proxies.FLEETGATE, 1000, 2, 0) as fleet:
        fleet.register()
        assert 0 < fleet.wait_until_ready() < probes.START_SECONDS
