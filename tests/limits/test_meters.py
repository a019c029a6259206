"""One tenant's data moves nobody else's meters, whatever the tenant sends."""

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core.dialects.chat import Chat
from gateway.core.limits.metering import BYTES, EVENTS, LESSONS, PACE, TENANTS, Meter, Meters, plan_amounts
from gateway.core.plan import Plan, make_plan
from gateway.core.usage.token_usage import ObservedWork, Usage

IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBO"}}


def plan_of(meter: Meter, text: str = "x" * 4000, **fields: Any) -> Plan:
    raw = json.dumps({"model": "m", "messages": [{"role": "user", "content": text}], **fields}).encode()
    return make_plan(Chat().read(raw), Chat(), "m", None, None, bytes_per_token=meter.bytes_per_token.value)


def teach(meter: Meter, usage: Usage, work: ObservedWork | None = None, times: int = 1, **fields: Any) -> None:
    for _ in range(times):
        plan = plan_of(meter, **fields)
        meter.learn(plan, plan_amounts(plan, meter, 4096), work or ObservedWork(), usage)


def figures(meter: Meter) -> tuple[float, float, float]:
    return meter.bytes_per_token.value, meter.tokens_per_event.value, meter.tokens_per_second.value


COUNTS = st.integers(0, 10**9)
SECONDS = st.floats(0, 10**6)
ODD: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {},
    optional={
        "text": st.sampled_from(["", "x", "y" * 100_000, "\u0fff" * 300]),
        "truncate_prompt_tokens": st.integers(1, 100),
        "messages": st.just([{"role": "user", "content": [IMAGE, {"type": "text", "text": "hi"}]}]),
        "n": st.integers(1, 64),
        "logprobs": st.booleans(),
        "stream": st.booleans(),
        "documents": st.just([{"text": "long"}]),
    },
)
USAGES = st.builds(Usage, COUNTS, COUNTS)
WORKS = st.builds(ObservedWork, st.integers(0, 10**6), SECONDS, SECONDS, st.sampled_from([0.0, 1.0]))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(ODD, USAGES, WORKS), max_size=12))
def test_nothing_that_one_tenant_sends_moves_anothers(
    attacks: list[tuple[dict[str, Any], Usage, ObservedWork]],
) -> None:
    meters = Meters()
    victim = meters.of("victim", "m")
    teach(victim, Usage(1200, 100), ObservedWork(100, 2.0, 2.0), times=20)
    before = figures(victim)
    for fields, usage, work in attacks:
        teach(meters.of("attacker", "m"), usage, work, times=LESSONS, **fields)
    assert figures(meters.of("victim", "m")) == before
    assert figures(meters.of("newcomer", "m")) == figures(Meter()), "too few have shown anything"
    values = figures(meters.of("attacker", "m"))
    assert all(band.least <= value <= band.most for value, band in zip(values, (BYTES, EVENTS, PACE), strict=True))


@settings(max_examples=15, deadline=None)
@given(st.tuples(USAGES, WORKS))
def test_a_newcomer_begins_with_what_no_single_tenant_moves(attack: tuple[Usage, ObservedWork]) -> None:
    meters = Meters()
    for number in range(TENANTS):
        teach(meters.of(f"honest {number}", "m"), Usage(1300 + number, 100), ObservedWork(100, 2.0, 2.0), times=100)
    honest = [figures(meters.of(f"honest {number}", "m")) for number in range(TENANTS)]
    teach(meters.of("attacker", "m"), *attack, times=100)
    for index, value in enumerate(figures(meters.of("newcomer", "m"))):
        told = [each[index] for each in honest]
        assert min(told) <= value <= max(told)
    assert 2.5 < meters.of("newcomer", "m").bytes_per_token.value < 3.5, "4000 bytes were about 1300 tokens"
    assert figures(meters.of("newcomer", "another model")) == figures(Meter())


def test_prompts_that_cannot_be_compared_teach_nothing() -> None:
    for fields in (
        {"messages": [{"role": "user", "content": [IMAGE]}]},
        {"truncate_prompt_tokens": 1},
        {"documents": [{"text": "x" * 10_000}]},
    ):
        meter = Meter()
        teach(meter, Usage(2500, 10), times=300, **fields)
        assert meter.bytes_per_token.value == BYTES.first
    short = Meter()
    teach(short, Usage(12, 10), times=300, text="hi")
    assert short.bytes_per_token.value == BYTES.first, "twelve tokens are the template's"


def test_a_prompt_teaches_by_the_ratio_that_it_was_planned_by() -> None:
    """Others may have taught while it was answered."""
    meter = Meter()
    plan = plan_of(meter)
    planned = plan_amounts(plan, meter, 4096)
    teach(meter, Usage(4000, 10), times=300)
    assert meter.bytes_per_token.value < 1.1
    meter.learn(plan, planned, ObservedWork(), Usage(1001, 10))
    slow = Meter()
    teach(slow, Usage(4000, 10), times=300)
    teach(slow, Usage(1001, 10))
    assert abs(meter.bytes_per_token.value - slow.bytes_per_token.value) < 0.001


def test_meters_are_bounded_and_the_one_that_was_asked_for_longest_ago_goes() -> None:
    meters = Meters(limit=10)
    kept = meters.of("kept", "m")
    teach(kept, Usage(2000, 10), times=30)
    for number in range(100):
        meters.of(f"tenant {number}", "m")
        assert meters.of("kept", "m") is kept
    assert len(meters) == 10
