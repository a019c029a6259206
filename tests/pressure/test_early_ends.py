"""Which thought ends early, and when."""

import math

from hypothesis import given
from hypothesis import strategies as st

from gateway.core.pressure.early_ends import EarlyEndRules, EarlyEnds, RunningThought, order_of_ends
from gateway.core.pressure.squeeze import Squeeze, SqueezeRules, ThinkingClaim

RULES = EarlyEndRules(after=60.0, interval=2.0, classes=("batch", "standard"))
LOW = Squeeze(0.25, SqueezeRules(budget_floor=256, weights={"batch": 2.0}))


def thought(tokens: int, traffic_class: str = "batch", full: int = 8000, least: int = 0) -> RunningThought:
    return RunningThought(ThinkingClaim(full, least, traffic_class), tokens)


def test_the_lowest_class_goes_first_and_in_it_the_one_farthest_beyond() -> None:
    found = [
        thought(7900, "standard"),
        thought(501),
        thought(7000),
        thought(499),
        thought(7999, "interactive"),
        thought(5999, least=6000),
        thought(2001, "standard"),
        thought(2000, "standard"),
    ]
    assert order_of_ends(found, RULES, LOW) == [2, 1, 0, 6]


def test_only_under_the_most_pressure_and_one_by_one() -> None:
    ends = EarlyEnds()
    assert not ends.due(RULES, LOW, 0.25, 59.9, 0.0)
    assert not ends.due(RULES, LOW, 0.25, math.nan, 0.0)
    assert not ends.due(RULES, Squeeze(0.26, LOW.rules), 0.25, 100.0, 0.0)
    assert not ends.due(EarlyEndRules(), LOW, 0.25, 1e9, 0.0)
    assert ends.due(RULES, LOW, 0.25, 60.0, 0.0)
    ends.ended(RULES, 3, 0.0)
    assert not ends.due(RULES, LOW, 0.25, 60.0, 5.9)
    assert ends.due(RULES, LOW, 0.25, 60.0, 6.0)


@given(
    st.lists(
        st.builds(
            thought,
            st.integers(0, 10_000),
            st.sampled_from(["batch", "standard", "interactive", "other"]),
            st.integers(1, 10_000),
            st.integers(0, 10_000),
        )
    )
)
def test_no_thought_within_what_it_is_left_ends(found: list[RunningThought]) -> None:
    order = order_of_ends(found, RULES, LOW)
    assert len(set(order)) == len(order)
    for at in order:
        assert found[at].tokens > min(found[at].claim.full, max(found[at].claim.least, LOW.rules.budget_floor))
        assert found[at].claim.traffic_class in RULES.classes
