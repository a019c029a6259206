"""What the newest SDKs can send is answered: drawn requests of every method, through a whole gateway in every setting.

A refusal is a fault unless docs/fields.md has its reason; every field reaches the node as that page says.
"""

from typing import Any

import pytest

from tests.fuzz.node import fuzz_node
from tests.sdks.pages import dialect_fields
from tests.sdks.reasons import unexplained
from tests.sdks.sending import Outcome, send_requests
from tests.support.gateways import running_gateway
from tests.support.nodes import MODEL

KEY = "sk-drawn-00000000"
SETTINGS: dict[str, dict[str, Any]] = {
    "as it comes": {},
    "over chat": {"models": [{"name": MODEL, "over_chat": True}]},
    "under rules": {
        "thinking": {"max_budget": 3000, "efforts": {"low": 500, "high": 2000}},
        "output": {"default_tokens": 4000, "max_tokens": 8000},
    },
}
EVERY_SETTING = pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS.keys())
EVERY_SDK = pytest.mark.parametrize("sdk", ["openai", "anthropic"])
TABLES = {
    "/v1/chat/completions": dialect_fields("Chat"),
    "/v1/completions": dialect_fields("Completions"),
    "/v1/responses": dialect_fields("Responses"),
    "/v1/messages": dialect_fields("Messages"),
    "/v1/messages/count_tokens": dialect_fields("Count tokens"),
    "/v1/embeddings": dialect_fields("Embeddings"),
}


async def try_requests(sdk: str, settings: dict[str, Any], numbers: range) -> None:
    async with fuzz_node() as node, running_gateway(node.url, **settings) as gateway:
        outcomes = await send_requests(sdk, node, gateway.url, KEY, numbers)
    faults = [fault for outcome in outcomes for fault in (unexplained(outcome), changed(outcome)) if fault]
    assert not faults, "\n".join([f"{len(faults)} faults", *faults[:20]])
    assert sum(outcome.status == 200 for outcome in outcomes) > len(outcomes) / 2
    assert {outcome.call.method for outcome in outcomes if outcome.got}


def changed(outcome: Outcome) -> str | None:
    """The field that did not reach the node as the page says, where it was asked in the client's own dialect."""
    if outcome.got is None or outcome.got[0] != outcome.call.path:
        return None
    table, got = TABLES[outcome.call.path], outcome.got[1]
    for name, value in outcome.sent.items():
        effect = table[name].effect
        wrong = name in got if effect == "header" else effect != "rules" and got.get(name, ...) != value
        if wrong:
            return f"{outcome.call.method} {outcome.number}: {name} reached the node as {got.get(name, ...)!r}"
    return None


@EVERY_SETTING
@EVERY_SDK
async def test_drawn_requests_are_answered(sdk: str, settings: dict[str, Any]) -> None:
    await try_requests(sdk, settings, range(100))


@pytest.mark.prove
@pytest.mark.timeout(900)
@EVERY_SETTING
@EVERY_SDK
async def test_thousands_of_drawn_requests_are_answered(sdk: str, settings: dict[str, Any]) -> None:
    await try_requests(sdk, settings, range(5000))
