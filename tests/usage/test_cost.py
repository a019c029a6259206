"""What a request costs."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.usage.cost import NANO, Price, cost_of, price_of_node
from gateway.core.usage.token_usage import Usage

PRICE = Price(input=1.0, cached=0.1, output=4.0)
COUNT = st.integers(0, 10_000_000)


@pytest.mark.parametrize(
    ("usage", "dollars"),
    [
        (Usage(), 0),
        (Usage(1_000_000, 0), 1.0),
        (Usage(1_000_000, 0, cached=400_000), 0.64),
        (Usage(0, 1_000_000, reasoning=900_000), 4.0),
        (Usage(10, 5), 0.00003),
        (Usage(10, 0, cached=20), 0.000001),
    ],
)
def test_by_the_price_list(usage: Usage, dollars: float) -> None:
    assert cost_of(usage, PRICE) == round(dollars * NANO)


def test_a_node_is_paid_for_by_what_it_turns_out() -> None:
    """An hour of nothing but output, and an hour of nothing but input, each cost the node's hour."""
    price = price_of_node(hourly=36.0, input_per_second=50_000, output_per_second=2_000)
    assert cost_of(Usage(0, 2_000 * 3600), price) == 36 * NANO
    assert cost_of(Usage(50_000 * 3600, 0), price) == 36 * NANO
    assert cost_of(Usage(1000, 0, cached=1000), price) == 0


@given(COUNT, COUNT, COUNT)
def test_never_negative_and_never_less_for_more(given_input: int, cached: int, output: int) -> None:
    cost = cost_of(Usage(given_input, output, cached=cached), PRICE)
    assert cost >= 0
    assert cost_of(Usage(given_input, output + 1, cached=cached), PRICE) > cost
