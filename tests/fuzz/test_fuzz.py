"""Clients may send anything: a small seeded sample of what `make fuzz` sends, and every input that once made a 500."""

import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.counting.test_counting import build
from tests.fuzz import __main__ as fuzz
from tests.fuzz.modes import KEY, modes
from tests.fuzz.trial import Trial, trial
from tests.fuzz.watch import fault_of
from tests.support.nodes import MODEL
from tests.support.raw import raw_client
from tests.support.redis import redis_server

COUNTS = {"bodies": 60, "plans": 400, "heads": 60, "talks": 25}
"""Inputs in each mode: some ten seconds in all."""

MODES = tuple(modes(Path("folder"), {}))


@pytest.mark.parametrize("mode", MODES)
async def test_nothing_a_client_sends_is_an_error_of_the_gateway(mode: str, tmp_path: Path) -> None:
    """No 500, no unexpected error, no hang, no leak; nodes get JSON that they read alike. `tests.fuzz` sends more."""
    build(tmp_path)
    async with contextlib.AsyncExitStack() as stack:
        redis = await stack.enter_async_context(redis_server()) if mode == "Redis" else None
        settings = modes(tmp_path, {} if redis is None else redis.settings)[mode]
        async with trial(mode, settings, seed=16) as running:
            first = 0
            for kind, count in COUNTS.items():
                send, _ = fuzz.KINDS[kind]
                await send(running, range(first, first + count))
                first += count
        assert not running.findings, running.findings[0]
        assert running.done["200"] > 20 and running.done["400"] > 20


DEEP: Any = 1
for _ in range(260):
    DEEP = [DEEP]
USER = [{"role": "user", "content": "hi"}]

FOUND: dict[str, tuple[str, dict[str, Any], str | None]] = {
    "deeper than orjson writes": ("/v1/completions", {"prompt": "x", "max_tokens": DEEP}, None),
    "a key that no rule reads, as deep": ("/v1/embeddings", {"input": "x", "extra": DEEP}, None),
    "a list in include": ("/v1/responses", {"input": "x", "include": [["x"]]}, "include.0"),
    "an object in include": ("/v1/responses", {"input": "x", "include": [{}]}, "include.0"),
    "a number in include": ("/v1/responses", {"input": "x", "include": [1]}, "include.0"),
    "half a character in a prompt": ("/v1/completions", {"prompt": "x\ud800"}, "prompt"),
    "half a character in a tool's result": (
        "/v1/messages",
        {"max_tokens": 5, "messages": [{"role": "user", "content": [{"type": "tool_result", "content": "\udfff"}]}]},
        "messages.0.content.0.content",
    ),
    "a type that is a list": (
        "/v1/messages",
        {"max_tokens": 5, "messages": [{"role": "user", "content": [{"type": ["text"]}]}]},
        "messages.0.content.0.type",
    ),
}
"""Path, body, and the field that is blamed, in a gateway that asks its nodes in chat and counts with a tokenizer."""

TAKEN: dict[str, tuple[str, dict[str, Any]]] = {
    "a picture with a text that is a number": (
        "/v1/responses",
        {"input": [{"role": "assistant", "content": [{"type": "image_url", "text": 5}]}, *USER]},
    ),
    "a content type that is an object": (
        "/v1/chat/completions",
        {"messages": [{"role": "user", "content": [{"type": {}, "text": "x"}]}]},
    ),
}
"""What the gateway need not know: the node judges it."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def strict(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Trial]:
    folder = tmp_path_factory.mktemp("tokenizer")
    build(folder)
    settings = modes(folder, {})["over chat"]
    settings["models"][0]["tokenizer"] = str(folder)
    async with trial("over chat", settings, 0) as running:
        yield running
    assert not running.findings, running.findings[0]


async def ask(running: Trial, path: str, raw: bytes) -> tuple[int, Any]:
    async with raw_client(running.gateway.port) as client:
        await client.post(path, raw, f"authorization: Bearer {KEY}")
        got = await client.answer()
        assert fault_of(path, got) is None
        return got.status, got.json()


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("what", FOUND)
async def test_what_was_found_is_refused(strict: Trial, what: str, stream: bool) -> None:
    path, body, param = FOUND[what]
    status, told = await ask(strict, path, json.dumps({"model": MODEL, "stream": stream, **body}).encode())
    assert status == 400
    if path != "/v1/messages":
        assert told["error"]["param"] == param
    assert param is None or param in told["error"]["message"]


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("what", TAKEN)
async def test_what_was_found_is_the_nodes_to_judge(strict: Trial, what: str) -> None:
    path, body = TAKEN[what]
    status, _ = await ask(strict, path, json.dumps({"model": MODEL, **body}).encode())
    assert status == 200


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages", "/v1/responses"])
async def test_an_error_is_short_however_long_what_it_names(strict: Trial, path: str) -> None:
    long = "x" * 1_000_000
    for body in ({"model": long}, {"model": MODEL, long: "\ud800"}, {"model": MODEL, "messages": [{long: "\ud800"}]}):
        status, told = await ask(strict, path, json.dumps(body).encode())
        assert status in (400, 404)
        assert len(json.dumps(told)) < 4000
