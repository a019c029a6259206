"""What the operator's rules do to real requests: what is applied is told on every kind of answer, and it holds."""

import re
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import pytest_asyncio

from gateway.core.access.api_keys import key_digest
from gateway.core.dialects import DIALECTS
from tests.support.gateways import RunningGateway, running_gateway
from workers.fake import FakeNode, FakeSettings, Fault, serve_fake

PATHS = {dialect.name: dialect.path for dialect in DIALECTS}
PAGE = "https://a.example"
MODEL = "nemotron-3-ultra"
SAY = "Say something. [[think=300]] [[answer=100]]"
TURNS = [{"role": "user", "content": SAY}]
BODIES: dict[str, dict[str, Any]] = {
    "chat": {"messages": TURNS},
    "completions": {"prompt": f"<|im_start|>user\n{SAY}<|im_end|>\n<|im_start|>assistant\n<think>\n"},
    "responses": {"input": SAY},
    "messages": {"messages": TURNS, "max_tokens": 4000},
}
EVERY = pytest.mark.parametrize("name", BODIES)
RULES: dict[str, Any] = {
    "thinking": {"max_budget": 200, "answer_reserve": 20},
    "output": {"default_tokens": 150, "max_tokens": 180},
    "models": [{"name": MODEL, "thinking": {"floor": 8}}],
    "tenants": [
        {"name": "free", "keys": [{"sha256": key_digest("free").hex()}], "thinking": {"mode": "forbidden"}},
        {"name": "small", "keys": [{"sha256": key_digest("small").hex()}], "thinking": {"max_budget": 32}},
        {
            "name": "strict",
            "keys": [{"sha256": key_digest("strict").hex()}],
            "per_model": [{"model": MODEL, "output": {"max_tokens": 64, "on_excess": "reject"}}],
        },
    ],
}


@pytest_asyncio.fixture
async def node() -> AsyncIterator[FakeNode]:
    async with serve_fake(FakeSettings()) as node:
        yield node


@pytest_asyncio.fixture
async def gateway(node: FakeNode) -> AsyncIterator[RunningGateway]:
    async with running_gateway(node.url, **RULES) as gateway:
        yield gateway


async def ask(gateway: RunningGateway, name: str, key: str, **more: Any) -> httpx.Response:
    headers = {"authorization": f"Bearer {key}", "origin": PAGE}
    async with httpx.AsyncClient(base_url=gateway.url, timeout=20, headers=headers) as client:
        return await client.post(PATHS[name], json={"model": MODEL, **BODIES[name], **more})


def told(answer: httpx.Response) -> dict[str, str]:
    prefix = "x-fleetgate-"
    return {name.removeprefix(prefix): value for name, value in answer.headers.items() if name.startswith(prefix)}


@EVERY
@pytest.mark.parametrize("stream", [False, True])
async def test_a_tenants_budget_is_told_and_holds(name: str, stream: bool, gateway: RunningGateway) -> None:
    asked = "; asked=4000" if name == "messages" else ""
    source = "gateway-max" if asked else "gateway-default"
    tokens = 180 if asked else 150
    options = {"stream_options": {"include_usage": True}} if stream and name in ("chat", "completions") else {}
    answer = await ask(gateway, name, "small", stream=stream, **options)
    assert answer.status_code == 200
    assert told(answer) == {
        "thinking-budget": "32; source=tenant-max",
        "max-tokens": f"{tokens}; source={source}{asked}",
        **({"resumable": "exact"} if stream else {}),
    }
    assert output_tokens(answer) <= tokens


def sent_to(node: FakeNode) -> Any:
    """The body of the last request that was for a model; probes come in between."""
    return next(seen.json for seen in reversed(node.stats.recent) if seen.path.startswith("/v1/") and seen.body)


def output_tokens(answer: httpx.Response) -> int:
    """What the answer's usage says, in any dialect."""
    counts = re.findall(r'"(?:output|completion)_tokens":\s*(\d+)', answer.text)
    return max(map(int, counts))


@EVERY
async def test_what_a_tenant_may_not_do_it_is_told(name: str, gateway: RunningGateway, node: FakeNode) -> None:
    answer = await ask(gateway, name, "free", reasoning_effort="high")
    assert told(answer)["thinking"] == "off; source=tenant-forbidden; asked=high"
    assert "thinking-budget" not in told(answer)
    sent = sent_to(node)
    if name == "completions":
        assert sent["thinking_token_budget"] == 0
    else:
        assert sent["chat_template_kwargs"] == {"enable_thinking": False}
        assert b"reasoning_text" not in answer.content and b'"thinking"' not in answer.content


@EVERY
async def test_too_much_is_refused_where_the_operator_wants_that(name: str, gateway: RunningGateway) -> None:
    field = {"responses": "max_output_tokens"}.get(name, "max_tokens")
    answer = await ask(gateway, name, "strict", **{field: 65})
    assert (answer.status_code, told(answer)) == (400, {"max-tokens": "64; source=tenant-model-max; asked=65"})
    error = answer.json()["error"]
    assert error["message"] == f"The field {field!r} is 65, and at most 64 is allowed: lower it."
    if name != "messages":
        assert (error["param"], error["code"]) == (field, "max_tokens_exceeded")
    assert (await ask(gateway, name, "strict", **{field: 64})).status_code == 200


@EVERY
async def test_errors_tell_as_well(name: str, gateway: RunningGateway, node: FakeNode) -> None:
    """The node's own, and the gateway's where no node answers."""
    node.set_faults(Fault("status", status=400))
    refused = await ask(gateway, name, "small")
    assert refused.status_code == 400 and told(refused)["thinking-budget"].startswith("32;")
    node.set_faults(Fault("refuse", scope="all"))
    unreachable = await ask(gateway, name, "small", stream=True)
    assert unreachable.status_code in (502, 503) and told(unreachable)["thinking-budget"].startswith("32;")


@pytest.mark.parametrize(("more", "code"), [({}, b'"stream_not_resumable"'), ({"n": 2}, b'"upstream_cut"')])
async def test_a_stream_that_breaks_has_told_before(
    more: dict[str, Any], code: bytes, gateway: RunningGateway, node: FakeNode
) -> None:
    """Be it one that cannot be resumed, or one that was, and broke off each time."""
    node.set_faults(Fault("die", after=5))
    answer = await ask(gateway, "chat", "small", stream=True, **more)
    assert code in answer.content and told(answer)["thinking-budget"].startswith("32;")
    assert told(answer)["resumable"] == ("no" if more else "exact")


@EVERY
async def test_where_nothing_is_configured_nothing_is_told(name: str, node: FakeNode) -> None:
    async with running_gateway(node.url, listen={"cors_origins": [PAGE]}) as gateway:
        assert told(await ask(gateway, name, "any")) == {}
        await ask(gateway, name, "any", stream=True)


async def test_a_spelling_that_a_node_ignores_is_heeded_without_any_rule(node: FakeNode) -> None:
    async with running_gateway(node.url, listen={"cors_origins": [PAGE]}) as gateway:
        answer = await ask(gateway, "chat", "any", reasoning_budget=16)
        assert sent_to(node)["thinking_token_budget"] == 16
        assert answer.json()["usage"]["completion_tokens_details"]["reasoning_tokens"] <= 16
        quick = await ask(gateway, "messages", "any", reasoning={"enabled": False})
        assert [block["type"] for block in quick.json()["content"]] == ["text"]


async def test_contradictions_are_told_in_the_callers_dialect(node: FakeNode) -> None:
    async with running_gateway(node.url, listen={"cors_origins": [PAGE]}) as gateway:
        body = {"enable_thinking": False, "reasoning_budget": 5}
        chat, messages = await ask(gateway, "chat", "any", **body), await ask(gateway, "messages", "any", **body)
    message = "The fields 'enable_thinking' and 'reasoning_budget' contradict each other: send one of them."
    assert chat.json() == {
        "error": {
            "message": message,
            "type": "invalid_request_error",
            "param": "reasoning_budget",
            "code": "contradiction",
        }
    }
    assert messages.json()["error"] == {"type": "invalid_request_error", "message": message}
    assert chat.status_code == messages.status_code == 400


async def test_a_web_page_may_read_what_is_told(node: FakeNode) -> None:
    async with running_gateway(node.url, listen={"cors_origins": [PAGE]}, **RULES) as gateway:
        answer = await ask(gateway, "chat", "small", stream=True)
    exposed = answer.headers["access-control-expose-headers"].split(", ")
    assert {f"x-fleetgate-{name}" for name in told(answer)} <= set(exposed) and told(answer)
