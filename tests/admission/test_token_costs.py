"""What requests cost, and are expected to cost."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.admission.token_costs import FIRST_OUTPUT, MAX_KNOWN, CostForecast, TokenCosts
from gateway.core.usage.token_usage import Usage

COSTS = TokenCosts(input=1.0, cached_input=0.1, reasoning=2.0, output=3.0)


@pytest.mark.parametrize(
    ("usage", "cost"),
    [
        (Usage(), 0.0),
        (Usage(100), 100.0),
        (Usage(100, cached=40), 64.0),
        (Usage(100, cached=400), 10.0),
        (Usage(0, 10), 30.0),
        (Usage(0, 10, reasoning=4), 26.0),
        (Usage(0, 10, reasoning=40), 20.0),
    ],
)
def test_each_kind_of_token_has_its_weight(usage: Usage, cost: float) -> None:
    assert COSTS.of(usage) == pytest.approx(cost)


def test_a_forecast_begins_with_a_guess_then_with_others_then_with_its_own() -> None:
    forecast, mine, other = CostForecast(), ("m", "a", "batch"), ("m", "b", "batch")
    assert forecast.of(mine, 10, None, COSTS) == 10 + 3 * FIRST_OUTPUT
    forecast.learn(other, Usage(100, 50, reasoning=20, cached=50))
    assert forecast.of(mine, 10, None, COSTS) == pytest.approx(5 + 0.5 + 40 + 90)
    forecast.learn(mine, Usage(100, 10, reasoning=0))
    assert forecast.of(mine, 10, None, COSTS) == pytest.approx(40)
    assert forecast.of(("n", "a", "batch"), 10, None, COSTS) == 10 + 3 * FIRST_OUTPUT, "another model's"


def test_a_bound_of_the_request_bounds_its_forecast() -> None:
    forecast, name = CostForecast(), ("m", "a", "batch")
    forecast.learn(name, Usage(1, 100, reasoning=50))
    assert forecast.of(name, 0, 10, COSTS) == pytest.approx(5 * 2 + 5 * 3)
    assert forecast.of(name, 0, 1000, COSTS) == pytest.approx(50 * 2 + 50 * 3)


@given(st.lists(st.integers(0, 10_000), min_size=60, max_size=80))
def test_a_forecast_stays_within_what_was_seen_and_follows_it(outputs: list[int]) -> None:
    forecast, name = CostForecast(), ("m", "a", "batch")
    for output in outputs:
        forecast.learn(name, Usage(0, output))
        assert 3 * min(outputs) <= forecast.of(name, 0, None, COSTS) <= 3 * max(outputs) + 1e-6
    for _ in range(100):
        forecast.learn(name, Usage(0, 500))
    assert forecast.of(name, 0, None, COSTS) == pytest.approx(1500, abs=3 * 10_000 * 0.9**100)


def test_forecasts_of_many_tenants_do_not_grow_without_end() -> None:
    forecast = CostForecast()
    for number in range(2 * MAX_KNOWN):
        forecast.learn(("m", f"t{number}", "batch"), Usage(1, 1))
    assert len(forecast._known) <= MAX_KNOWN + 1
