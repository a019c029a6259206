"""The book of limits, on a clock that the tests move."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.limits.rules import (
    DAY,
    UNIT,
    Amounts,
    LimitKind,
    Limits,
    Rules,
    costs_of,
    month_end,
    month_of,
    rules_of,
    share,
    weights_of,
)
from gateway.core.limits.tenant_limits import TenantLimits

SECOND = 1_000_000
LEASE = 60 * SECOND
START = 1_800_000_000 * SECOND


def costs(rules: Rules, amounts: Amounts) -> tuple[int, ...]:
    return costs_of(weights_of(rules), amounts)


def test_a_bucket_is_full_at_first_and_fills_by_the_microsecond() -> None:
    rules = rules_of(Limits(tokens_per_minute=600), "t")
    book = TenantLimits()
    asked = costs(rules, Amounts(input=400, output=200))
    assert book.reserve(START, "a", rules, asked, LEASE).left == (0,)
    one = (UNIT,)
    refused = book.reserve(START, "b", rules, one, LEASE)
    assert not refused.granted and rules[0].wait(refused.left[0], one[0], START) == 0.1
    assert not book.reserve(START + SECOND // 10 - 1, "b", rules, one, LEASE).granted
    assert book.reserve(START + SECOND // 10, "b", rules, one, LEASE).granted


def test_one_limit_without_room_leaves_the_others_untouched() -> None:
    rules = rules_of(Limits(requests_per_minute=10, tokens_per_minute=100), "t")
    book = TenantLimits()
    before = book.reserve(START, "a", rules, costs(rules, Amounts(input=90)), LEASE)
    assert before.granted
    after = book.reserve(START, "b", rules, costs(rules, Amounts(input=11)), LEASE)
    assert not after.granted and after.left == before.left


def test_what_was_not_used_comes_back_and_what_was_used_beyond_is_owed() -> None:
    rules = rules_of(Limits(output_tokens_per_minute=1000), "t")
    book = TenantLimits()
    book.reserve(START, "a", rules, costs(rules, Amounts(output=800)), LEASE)
    book.settle(START, "a", rules, costs(rules, Amounts(output=100)))
    assert book.reserve(START, "b", rules, costs(rules, Amounts(output=900)), LEASE).left == (0,)
    book.settle(START, "b", rules, costs(rules, Amounts(output=1400)))
    assert book.reserve(START, "c", rules, costs(rules, Amounts(output=1)), LEASE).left == (-500 * UNIT,)


def test_coming_back_never_overfills() -> None:
    rules = rules_of(Limits(output_tokens_per_minute=600), "t")
    book = TenantLimits()
    book.reserve(START, "a", rules, costs(rules, Amounts(output=600)), LEASE)
    book.settle(START + 59 * SECOND, "a", rules, costs(rules, Amounts()))
    assert book.reserve(START + 59 * SECOND, "b", rules, (0,), LEASE).left == (600 * UNIT,)


def test_a_day_ends_at_midnight_and_forgets_what_comes_back_later() -> None:
    rules = rules_of(Limits(tokens_per_day=100), "t")
    book = TenantLimits()
    midnight = (START // DAY + 1) * DAY
    assert book.reserve(midnight - 1, "a", rules, (100,), LEASE).granted
    refused = book.reserve(midnight - 1, "b", rules, (1,), LEASE)
    assert not refused.granted and rules[0].wait(0, 1, midnight - 1) == 1e-6
    assert book.reserve(midnight, "b", rules, (60,), LEASE).left == (40,)
    book.settle(midnight, "a", rules, (10,))
    assert book.reserve(midnight, "c", rules, (0,), LEASE).left == (40,)


def test_a_place_is_free_again_at_the_end_and_when_its_gateway_died() -> None:
    rules = rules_of(Limits(concurrent_requests=1), "t")
    book = TenantLimits()
    assert book.reserve(START, "a", rules, (1,), LEASE).granted
    assert not book.reserve(START, "b", rules, (1,), LEASE).granted
    book.settle(START, "a", rules, (1,))
    assert book.reserve(START, "b", rules, (1,), LEASE).granted
    assert not book.reserve(START + LEASE - 1, "c", rules, (1,), LEASE).granted
    assert book.reserve(START + LEASE, "c", rules, (1,), LEASE).granted


def test_renewing_keeps_a_long_stream_its_place() -> None:
    rules = rules_of(Limits(concurrent_requests=1), "t")
    book = TenantLimits()
    book.reserve(START, "a", rules, (1,), LEASE)
    book.renew(START + LEASE - 1, ["a", "unknown"], LEASE)
    assert not book.reserve(START + LEASE, "b", rules, (1,), LEASE).granted


@pytest.mark.parametrize("twice", [1, 2])
def test_settling_twice_or_after_the_lease_counts_every_token_once(twice: int) -> None:
    rules = rules_of(Limits(concurrent_requests=5, tokens_per_day=1000, tokens_per_minute=1000), "t")
    book = TenantLimits()
    book.reserve(START, "a", rules, costs(rules, Amounts(output=500)), LEASE)
    late = START + LEASE
    book.sweep(late)
    for _ in range(twice):
        book.settle(late, "a", rules, costs(rules, Amounts(output=300)))
    assert book.reserve(late, "b", rules, (0, 0, 0), LEASE).left == (700 * UNIT, 5, 700)


def test_reserving_twice_takes_once() -> None:
    rules = rules_of(Limits(tokens_per_day=1000), "t")
    book = TenantLimits()
    for _ in range(2):
        assert book.reserve(START, "a", rules, (600,), LEASE) == (True, START, (400,))


def test_a_request_that_takes_nothing_of_a_limit_passes_its_debt() -> None:
    rules = rules_of(Limits(reasoning_tokens_per_minute=10), "t")
    book = TenantLimits()
    book.settle(START, "a", rules, costs(rules, Amounts(thinking=50)))
    assert not book.reserve(START, "b", rules, costs(rules, Amounts(thinking=1)), LEASE).granted
    assert book.reserve(START, "c", rules, costs(rules, Amounts(output=5)), LEASE).granted


@pytest.mark.parametrize("back", [SECOND, 3600 * SECOND])
def test_a_bucket_fills_on_from_where_the_clock_has_gone_back_to(back: int) -> None:
    """Not only once the clock is again where it was: a tenant would get nothing for so long."""
    rules = rules_of(Limits(requests_per_minute=60), "t")
    book = TenantLimits()
    book.reserve(START, "a", rules, (60 * UNIT,), LEASE)
    assert not book.reserve(START - back, "b", rules, (UNIT,), LEASE).granted, "going back fills nothing"
    assert book.reserve(START - back + SECOND, "c", rules, (UNIT,), LEASE).left == (0,)
    book.settle(START - back, "c", rules, (0,))
    assert book.reserve(START - back + SECOND, "d", rules, (0,), LEASE).left == (2 * UNIT,)


def test_a_share_is_never_nothing() -> None:
    limits = Limits(requests_per_minute=10, concurrent_requests=3, tokens_per_day=9)
    rules = share(rules_of(limits, "t"), 4)
    assert [rule.limit for rule in rules] == [2, 1, 2]
    assert rules[0].capacity == 150 * SECOND  # a quarter of ten requests


@given(st.datetimes(min_value=datetime(1970, 1, 1), max_value=datetime(2200, 1, 1)))
def test_months_are_the_calendars(moment: datetime) -> None:
    now = (moment - datetime(1970, 1, 1)) // timedelta(microseconds=1)
    assert month_of(now) == moment.year * 12 + moment.month - 1
    following = datetime(moment.year + (moment.month == 12), moment.month % 12 + 1, 1, tzinfo=UTC)
    assert month_end(now) == following.timestamp() * SECOND


class ById(dict[str, Any]):
    """Reservations that are to be found by their ids, never by going through all of them."""

    def __iter__(self) -> Iterator[str]:
        pytest.fail("there may be ten thousand")

    keys = items = values = __iter__  # type: ignore[assignment]


def test_a_request_costs_no_more_where_many_came_before_it() -> None:
    book, rules = TenantLimits(), rules_of(Limits(concurrent_requests=2), "t")
    book.reservations = ById()
    for number in range(100):
        assert book.reserve(START + number, f"r{number}", rules, (1,), LEASE).granted
        book.settle(START + number, f"r{number}", rules, (1,))
    assert book.reserve(START + 200, "left alone", rules, (1,), LEASE).left == (1,)
    book.sweep(START + 200 + LEASE)
    assert len(book.reservations) == 1, "those that were settled are forgotten, the one that ran out is mourned"
    assert book.reserve(START + 200 + LEASE, "next", rules, (1,), LEASE).left == (1,)


def test_a_look_takes_nothing() -> None:
    rules = rules_of(Limits(requests_per_minute=2, tokens_per_day=10, concurrent_requests=3), "t")
    book = TenantLimits()
    assert book.peek(START, rules) == book.peek(START, rules)
    book.reserve(START, "a", rules, costs(rules, Amounts(input=4)), LEASE)
    assert book.peek(START, rules).left == book.peek(START, rules).left
    assert book.peek(START + LEASE, rules).left == TenantLimits().peek(START + LEASE, rules).left, "the lease ran out"


def test_a_lease_that_is_renewed_is_held_on_and_one_that_is_settled_is_not() -> None:
    rules = rules_of(Limits(concurrent_requests=1), "t")
    book = TenantLimits()
    assert book.reserve(START, "a", rules, (1,), LEASE).granted
    book.renew(START + LEASE - 1, ["a", "unheard of"], LEASE)
    assert not book.reserve(START + 2 * LEASE - 2, "b", rules, (1,), LEASE).granted
    book.settle(START + 2 * LEASE - 2, "a", rules, (1,))
    book.renew(START + 2 * LEASE - 2, ["a"], LEASE)
    assert book.reserve(START + 2 * LEASE - 2, "b", rules, (1,), LEASE).granted


def test_a_reservation_is_settled_once() -> None:
    rules = rules_of(Limits(tokens_per_day=100), "t")
    book = TenantLimits()
    book.reserve(START, "a", rules, (50,), LEASE)
    book.settle(START, "a", rules, (20,))
    book.settle(START, "a", rules, (90,))
    assert book.peek(START, rules).left == (80,)


def test_a_seed_is_where_nothing_is_written_down_yet() -> None:
    rules = rules_of(Limits(requests_per_minute=10, tokens_per_day=100, concurrent_requests=3), "t")
    full = TenantLimits().peek(START, rules).left
    left = tuple(room // 2 for room in full)
    book = TenantLimits()
    book.seed(START, rules, left)
    seeded = book.peek(START, rules).left
    places = [rule.kind for rule in rules].index(LimitKind.LEASES)
    assert seeded == tuple(full[at] if at == places else left[at] for at in range(len(rules)))
    book.seed(START, rules, full)
    assert book.peek(START, rules).left == seeded, "what is known here is not overwritten"
    more = TenantLimits()
    more.seed(START, rules, tuple(room * 2 for room in full))
    assert more.peek(START, rules).left == full, "no more than there is room for"


def test_an_adopted_request_takes_its_place_and_nothing_else() -> None:
    rules = rules_of(Limits(requests_per_minute=10, concurrent_requests=1), "t")
    book = TenantLimits()
    before = book.peek(START, rules).left
    book.adopt(START, "a", rules, LEASE)
    after = book.peek(START, rules).left
    assert [one - other for one, other in zip(before, after, strict=True)] == [
        1 if rule.kind is LimitKind.LEASES else 0 for rule in rules
    ]
    assert book.peek(START + LEASE, rules).left == before, "its lease ran out"


def test_what_comes_back_from_a_period_that_is_over_is_not_added_to_the_next() -> None:
    rules = rules_of(Limits(nanodollars_per_month=100), "t")
    book = TenantLimits()
    end = month_end(START)
    assert book.reserve(end - 1, "a", rules, (100,), LEASE).granted
    assert book.peek(end, rules).left == (100,)
    assert book.reserve(end, "b", rules, (30,), LEASE).granted
    book.settle(end, "a", rules, (0,))
    assert book.peek(end, rules).left == (70,)
