"""What clients are told of limits."""

import pytest

from gateway.core.errors import LimitExceeded, LimitTooSmall, QuotaExceeded
from gateway.core.limits.rules import UNIT, Amounts, LimitResult, Limits, costs_of, rules_of, weights_of
from gateway.core.limits.words import check_capacities, headers_of, moment, refusal, shown_of, span

NOW = 1_798_761_599_500_000  # half a second before 2027


@pytest.mark.parametrize(
    ("microseconds", "said"),
    [(0, "0ms"), (1, "1ms"), (250_000, "250ms"), (2_500_000, "2.5s"), (360_000_000, "6m0s"), (61_001_000, "1m1.001s")],
)
def test_spans_are_written_as_openai_writes_them(microseconds: int, said: str) -> None:
    assert span(microseconds) == said


def test_moments_are_rounded_up_over_the_end_of_a_year() -> None:
    assert moment(NOW) == "2027-01-01T00:00:00Z"
    assert moment(1_709_164_800_000_000) == "2024-02-29T00:00:00Z"


def test_of_several_limits_the_tightest_is_told() -> None:
    rules = rules_of(Limits(input_tokens_per_minute=1000, output_tokens_per_minute=500), "t")
    told = dict(headers_of(rules, LimitResult(True, NOW, (10 * UNIT, 400 * UNIT)), shown_of(rules, anthropic=True)))
    assert told[b"x-ratelimit-limit-tokens"] == b"1000"
    assert told[b"x-ratelimit-remaining-tokens"] == b"10"
    assert told[b"x-ratelimit-reset-tokens"] == b"59.4s"
    assert told[b"anthropic-ratelimit-output-tokens-remaining"] == b"400"
    assert b"x-ratelimit-limit-requests" not in told


def test_a_debt_is_told_as_nothing_left() -> None:
    rules = rules_of(Limits(tokens_per_minute=60), "t")
    told = dict(headers_of(rules, LimitResult(True, NOW, (-60 * UNIT,)), shown_of(rules, anthropic=False)))
    assert told[b"x-ratelimit-remaining-tokens"] == b"0"
    assert told[b"x-ratelimit-reset-tokens"] == b"2m0s"


def test_a_refusal_names_the_limit_that_takes_longest() -> None:
    rules = rules_of(Limits(requests_per_minute=60, tokens_per_minute=600), "k:abc")
    costs = costs_of(weights_of(rules), Amounts(input=300))
    error = refusal(rules, costs, LimitResult(False, NOW, (0, 200 * UNIT)), "acme")
    assert type(error) is LimitExceeded and error.retry_after == 10.0
    assert error.message == (
        "Rate limit reached for this API key: tokens_per_minute 600, requested 300, remaining 200. Retry in 10 s."
    )


def test_money_is_told_in_dollars_and_days_end_at_midnight() -> None:
    rules = rules_of(Limits(nanodollars_per_day=2_000_000_000), "m:big")
    error = refusal(rules, (1_500_000_000,), LimitResult(False, NOW, (250_000_000,)), "acme")
    assert type(error) is QuotaExceeded and error.retry_after == 0.5
    assert "acme on model big: usd_per_day $2.0000, requested $1.5000, remaining $0.2500" in error.message


def test_what_can_never_fit() -> None:
    rules = rules_of(Limits(tokens_per_minute=600), "t")
    check_capacities(rules, (600 * UNIT,), "acme")
    with pytest.raises(LimitTooSmall):
        check_capacities(rules, (601 * UNIT,), "acme")
