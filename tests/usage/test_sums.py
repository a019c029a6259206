"""Sums of requests: the same however they are split and ordered, and the same again when they are read back."""

from hypothesis import given
from hypothesis import strategies as st

from gateway.core.telemetry.request_stats import RequestStats
from gateway.core.usage.cost import Price
from gateway.core.usage.ledger import (
    DAY,
    HOUR,
    UsageBucket,
    UsagePart,
    UsageSums,
    cost_of_request,
    field_of,
    fold,
    parts_of,
    record_of,
)
from gateway.core.usage.token_usage import Usage

PRICES = {"a": Price(1.0, 0.5, 2.0)}
COUNT = st.integers(0, 10**6)


def ended(
    at: float = 0.0,
    tenant: str | None = "t",
    key: str | None = "k",
    model: str | None = "a",
    ending: str = "ok",
    usage: Usage | None = None,
    wasted: int = 0,
) -> RequestStats:
    return RequestStats(
        *("req_1", "chat", tenant, key, model, "node", True, 200, ending, 1, 10, usage),
        at=at,
        ttft=0.5,
        duration=1.25,
        wasted=wasted,
    )


EVENTS = st.lists(
    st.builds(
        ended,
        at=st.floats(0, 3 * DAY),
        tenant=st.sampled_from(["t", "u", None]),
        key=st.sampled_from(["k", None]),
        model=st.sampled_from(["a", "b with a space", None]),
        ending=st.sampled_from(["ok", "client_gone"]),
        usage=st.none() | st.builds(Usage, COUNT, COUNT, st.none() | COUNT, st.none() | COUNT),
        wasted=COUNT,
    ),
    max_size=20,
)


def folded(*batches: list[RequestStats]) -> dict[UsageBucket, dict[UsagePart, UsageSums]]:
    into: dict[UsageBucket, dict[UsagePart, UsageSums]] = {}
    for batch in batches:
        fold([(event, cost_of_request(event, PRICES)) for event in batch], into)
    return into


def test_a_request_is_in_its_hour_and_its_day() -> None:
    sums = folded([ended(DAY + 2 * HOUR + 1, usage=Usage(10, 5, 3, 4), wasted=7)])
    expected = {UsagePart("a", "k"): UsageSums(1, 0, 10, 4, 5, 3, 7, (6 * 1000 + 4 * 500 + 5 * 2000))}
    assert sums == {UsageBucket(HOUR, 26, "t"): expected, UsageBucket(DAY, 1, "t"): expected}


def test_what_had_no_key_no_model_and_no_usage_is_a_request_all_the_same() -> None:
    sums = folded([ended(model=None, key=None, ending="invalid_json")])
    assert sums[UsageBucket(DAY, 0, "t")] == {UsagePart("-", "-"): UsageSums(requests=1, errors=1)}
    assert folded([ended(tenant=None)]) == {}


@given(EVENTS, st.integers(0, 20))
def test_sums_do_not_depend_on_order_or_batches(events: list[RequestStats], cut: int) -> None:
    assert folded(events) == folded(events[cut:], events[:cut]) == folded(list(reversed(events)))


@given(EVENTS)
def test_hours_add_up_to_their_days(events: list[RequestStats]) -> None:
    totals = {HOUR: UsageSums(), DAY: UsageSums()}
    for bucket, parts in folded(events).items():
        for sums in parts.values():
            totals[bucket.size] = totals[bucket.size].plus(sums)
    assert totals[HOUR] == totals[DAY]


@given(EVENTS)
def test_buckets_read_as_they_were_written(events: list[RequestStats]) -> None:
    for parts in folded(events).values():
        fields = {field_of(part, name): n for part, sums in parts.items() for name, n in sums._asdict().items()}
        assert parts_of(fields) == parts
        assert parts_of({**fields, "a k measure_of_a_newer_version": 1}) == parts


def test_reasoning_tokens_are_kept_as_older_gateways_know_them_and_read_under_both_names() -> None:
    part = UsagePart("m", "k")
    assert field_of(part, "reasoning_tokens") == "m k thinking"
    sums = parts_of({"m k thinking": 3, "m k reasoning_tokens": 4, "m k output": 9})
    assert sums == {part: UsageSums(output=9, reasoning_tokens=7)}


def test_the_record_of_a_request() -> None:
    event = ended(usage=Usage(10, 5, None, 4))
    record = record_of(event, cost_of_request(event, PRICES))
    assert (record["tenant"], record["input"], record["cost_usd"]) == ("t", 10, 1.8e-05)
    assert (record["reasoning_tokens"], record["thinking"]) == (None, None)
    thought = record_of(ended(usage=Usage(10, 5, 3)), 0)
    assert (thought["reasoning_tokens"], thought["thinking"]) == (3, 3)
    assert cost_of_request(ended(usage=None), PRICES) == cost_of_request(event, {}) == 0
    event = ended(usage=Usage(10, 5, 3))
    event.thinking_asked, event.thinking_budget = "max", 4
    granted = record_of(event, 0)
    assert (granted["thinking_asked"], granted["thinking_budget"], granted["reasoning_tokens"]) == ("max", 4, 3)
