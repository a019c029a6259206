"""What requests take: the plan, the count, and the estimate where there is no count."""

import json
from typing import Any

import pytest

from gateway.core.dialects import Dialect
from gateway.core.dialects.chat import Chat
from gateway.core.dialects.messages import CountTokens
from gateway.core.dialects.plain import Embeddings
from gateway.core.events import RequestEnded
from gateway.core.limits.cost import Price
from gateway.core.limits.metering import Meter, amounts_used, plan_amounts, priced
from gateway.core.limits.rules import NOTHING, Amounts
from gateway.core.plan import make_plan
from gateway.core.usage import Usage

PLANNED = Amounts(1, 100, 1000, 600)


def plan_of(dialect: Dialect, **body: Any) -> Amounts:
    ask = dialect.read(json.dumps({"model": "m", **body}).encode())
    return plan_amounts(make_plan(ask, dialect, "m", None, None), Meter(), 4096)


def ended(**facts: Any) -> RequestEnded:
    known: dict[str, Any] = {
        "at": 0.0,
        "request_id": "r",
        "dialect": "chat",
        "tenant": "t",
        "key": None,
        "model": "m",
        "node": "n",
        "stream": True,
        "status": 200,
        "ending": "ok",
        "attempts": 1,
        "request_bytes": 10,
        "usage": None,
        "ttft": 0.1,
        "duration": 10.0,
    }
    return RequestEnded(**{**known, **facts})


def test_a_plan_takes_its_prompt_and_all_the_output_that_it_grants() -> None:
    prompt = [{"role": "user", "content": "x" * 400}]
    assert plan_of(Chat(), messages=prompt, max_tokens=50, n=3) == Amounts(1, 101, 150, 150)
    assert plan_of(Chat(), messages=prompt).output == 4096
    off = {"chat_template_kwargs": {"enable_thinking": False}}
    assert plan_of(Chat(), messages=prompt, max_tokens=50, **off).thinking == 0
    assert plan_of(Embeddings(), input="x" * 400) == Amounts(1, 100)
    assert plan_of(CountTokens(), messages=prompt) == Amounts(1)


def test_what_the_node_counted_is_what_was_used() -> None:
    used = amounts_used(ended(usage=Usage(90, 300, 120, 40)), PLANNED, 5000, Meter())
    assert used == Amounts(1, 90, 300, 120)
    unsaid = amounts_used(ended(usage=Usage(90, 300)), PLANNED, 5000, Meter())
    assert unsaid.thinking == 300, "all of it may have been"


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        ({"attempts": 0, "status": 503, "ending": "no_node_ready"}, NOTHING),
        ({"status": 502, "ending": "upstream_error"}, NOTHING),
        ({"status": 400, "ending": "node_error"}, Amounts()),
        ({"status": 200, "stream": False, "ending": "ok"}, PLANNED),
        ({"status": 0, "stream": False, "ending": "client_gone", "duration": 2.0}, Amounts(1, 100, 80, 80)),
        ({"status": 504, "ending": "deadline_exceeded", "duration": 2.0}, Amounts(1, 100, 80, 80)),
        ({"status": 0, "ending": "client_gone", "duration": 9999.0}, Amounts(1, 100, 1000, 600)),
    ],
)
def test_what_nobody_counted_is_estimated(facts: dict[str, Any], expected: Amounts) -> None:
    assert amounts_used(ended(**facts), PLANNED, 0, Meter()) == expected


def test_a_cut_stream_counts_by_the_bytes_that_a_token_takes() -> None:
    meter = Meter()
    for _ in range(300):
        amounts_used(ended(usage=Usage(200, 100)), PLANNED, 30_000, meter)
    assert amounts_used(ended(ending="upstream_cut"), PLANNED, 6_000, meter).output == 20
    partly = ended(ending="client_gone", usage=Usage(250, 1))
    assert amounts_used(partly, PLANNED, 6_000, meter) == Amounts(1, 250, 20, 20)


def test_prompts_are_estimated_better_and_better() -> None:
    meter = Meter()
    for _ in range(300):  # every prompt is twice as long as was thought
        estimate = round(400 / meter.bytes_per_token.value)
        amounts_used(ended(usage=Usage(200, 10)), PLANNED._replace(input=estimate), 100, meter)
    assert meter.bytes_per_token.value == pytest.approx(2.0, rel=0.02)


def test_costs_are_the_prices() -> None:
    price = Price(input=1.0, cached=0.1, output=4.0)
    assert priced(Amounts(1, 1000, 500), price, cached=400).cost == 600_000 + 40_000 + 2_000_000
    assert priced(Amounts(1, 1000, 500), None) == Amounts(1, 1000, 500)
