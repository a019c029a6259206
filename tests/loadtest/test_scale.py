"""The cost by the size of the fleet: its sums, and one small fleet measured as the large ones are."""

import pytest

from loadtest import proxies, scale
from loadtest.large_fleet import Used
from loadtest.scale import RequestCost


def test_medians_are_taken_of_each_figure_and_failures_are_added_up() -> None:
    costs = [RequestCost(4, 100.0, 30.0, 80.0, 5000.0, 1), RequestCost(4, 120.0, 20.0, 82.0, 4000.0, 0)]
    costs.append(RequestCost(4, 90.0, 25.0, 90.0, 4500.0, 2))
    assert scale._median(costs) == RequestCost(4, 100.0, 25.0, 82.0, 4500.0, 3)


def test_a_row_names_failures() -> None:
    cost = RequestCost(1000, 100.4, 30.0, 80.0, 5000.0, 0)
    assert scale.line(cost) == "| 1,000 | 100 | 30 | 80 |"
    assert "FAILED" in scale.line(RequestCost(1000, 100.4, 30.0, 80.0, 5000.0, 7))


def test_what_was_used_between_two_looks() -> None:
    assert scale._between(Used(1.0, 2.0, 3.0), Used(5.0, 2.5, 3.25), 4.0) == Used(4.0, 0.5, 0.25)


@pytest.mark.prove
def test_a_small_fleet_is_measured() -> None:
    cost = scale.measure_requests(proxies.FLEETGATE, 3, 0.3)
    assert cost.broken == 0
    assert cost.gateway > 0 and cost.redis > 0 and cost.resident > 0 and cost.rate > 0
