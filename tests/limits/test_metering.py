"""What requests take: the plan, the count, and the estimate where there is no count."""

import json
from typing import Any

from gateway.core.dialects import Dialect
from gateway.core.dialects.chat import Chat
from gateway.core.dialects.messages import CountTokens
from gateway.core.dialects.plain import Detokenize, Embeddings
from gateway.core.limits.metering import Meter, amounts_used, plan_amounts, priced
from gateway.core.limits.rules import NOTHING, Amounts
from gateway.core.plan import make_plan
from gateway.core.telemetry.request_stats import RequestStats
from gateway.core.usage.cost import Price
from gateway.core.usage.token_usage import Usage

PLANNED = Amounts(1, 100, 1000, 600)


def plan_of(dialect: Dialect, **body: Any) -> Amounts:
    ask = dialect.read(json.dumps({"model": "m", **body}).encode())
    return plan_amounts(make_plan(ask, dialect, "m", None, None), Meter(), 4096)


def ended(**facts: Any) -> RequestStats:
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
    return RequestStats(**{**known, **facts})


def test_a_plan_takes_its_prompt_and_all_the_output_that_it_grants() -> None:
    prompt = [{"role": "user", "content": "x" * 400}]
    assert plan_of(Chat(), messages=prompt, max_tokens=50, n=3) == Amounts(1, 101, 150, 150)
    assert plan_of(Chat(), messages=prompt).output == 4096
    off = {"chat_template_kwargs": {"enable_thinking": False}}
    assert plan_of(Chat(), messages=prompt, max_tokens=50, **off).thinking == 0
    assert plan_of(Embeddings(), input="x" * 400) == Amounts(1, 100)
    assert plan_of(CountTokens(), messages=prompt) == Amounts(1, 101)
    assert plan_of(Detokenize(), tokens=[1] * 50) == Amounts(1, 50)


def test_limits_take_what_the_event_says() -> None:
    assert amounts_used(ended(usage=Usage(90, 300, 120, 40)), PLANNED) == Amounts(1, 90, 300, 120)
    unsaid = amounts_used(ended(usage=Usage(90, 300)), PLANNED)
    assert unsaid.thinking == 300, "all of it may have been"
    late = ended(usage=Usage(90, 7), status=504, ending="deadline_exceeded")
    assert amounts_used(late, PLANNED).output == 7
    assert amounts_used(ended(attempts=0, status=503, ending="no_node_ready"), PLANNED) == NOTHING
    assert amounts_used(ended(status=502, ending="upstream_error"), PLANNED) == NOTHING
    assert amounts_used(ended(status=400, ending="node_error"), PLANNED) == Amounts()


def test_costs_are_the_prices() -> None:
    price = Price(input=1.0, cached=0.1, output=4.0)
    assert priced(Amounts(1, 1000, 500), price, cached=400).cost == 600_000 + 40_000 + 2_000_000
    assert priced(Amounts(1, 1000, 500), None) == Amounts(1, 1000, 500)
