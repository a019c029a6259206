"""A node that may send anything: what a client is told, at once, and what is given back."""

import asyncio
import json
from asyncio import StreamReader as Reader
from asyncio import StreamWriter as Writer
from typing import Any

import httpx
import pytest

from tests.fuzz.node_answers import attack, running_trial, serve_again
from tests.support.faults import limited_gateway, nothing_held
from tests.support.gateways import RunningGateway, eventually
from tests.support.nodes import (
    DONE,
    LAST_CHUNK,
    MODEL,
    STREAM_HEAD,
    Asked,
    Reply,
    ScriptedNode,
    answer,
    chunk,
    event,
    listening,
    scripted_node,
)

SLOW: dict[str, Any] = {"timeouts": {"non_streaming": 60, "first_byte": 60, "node_hang": 60, "idle": 60}}
"""Time-outs that no test waits for: what is answered is answered at once."""

SAY = {"model": MODEL, "messages": [{"role": "user", "content": "x"}], "max_tokens": 50}
HIDDEN = {**SAY, "reasoning": {"exclude": True}}
MODES: dict[str, tuple[str, dict[str, Any]]] = {
    "chat": ("/v1/chat/completions", SAY),
    "hidden": ("/v1/chat/completions", HIDDEN),
    "messages": ("/v1/messages", SAY),
    "over chat": ("/v1/messages", {**SAY, "thinking": {"type": "enabled", "budget_tokens": 10}}),
    "completions": ("/v1/completions", {"model": MODEL, "prompt": "x"}),
}


def says(whole: bytes) -> Reply:
    async def reply(node: ScriptedNode, asked: Asked, reader: Reader, writer: Writer) -> None:
        writer.write(whole)

    return reply


def head(status: bytes, *lines: bytes) -> bytes:
    return b"\r\n".join((b"HTTP/1.1 " + status, b"content-length: 2", *lines)) + b"\r\n\r\n{}"


async def ask(gateway: RunningGateway, mode: str = "chat", **more: Any) -> httpx.Response:
    path, body = MODES[mode]
    async with httpx.AsyncClient(timeout=30, verify=False) as client:
        return await client.post(gateway.url + path, json={**body, **more})


NO_ANSWERS = [
    *((head(b"%d X" % status), f"status {status}") for status in (204, 205, 206, 299, 600, 999)),
    *((head(b"%d X" % status, b"location: http://a/"), "redirect") for status in (300, 301, 304, 307)),
    (head(b"200 OK", b"content-encoding: gzip"), "content-encoding: gzip"),
    (head(b"500 X", b"content-encoding: br"), "content-encoding: br"),
]


@pytest.mark.parametrize("mode", MODES)
async def test_what_is_no_answer_is_a_502_that_says_so(mode: str) -> None:
    async with scripted_node(says(b"")) as node, limited_gateway(node.url, **SLOW) as gateway:
        for whole, word in NO_ANSWERS:
            node.reply = says(whole)
            got = await ask(gateway, mode)
            assert (got.status_code, word in got.text) == (502, True), got.text
            assert "location" not in got.headers
            await nothing_held(gateway)


DEEP = b"[" * 100_000
NULL_CHOICE = json.dumps({"choices": [None], "usage": {"prompt_tokens": 1, "completion_tokens": 1}}).encode()


@pytest.mark.parametrize("mode", ["hidden", "over chat"])
async def test_an_answer_that_cannot_be_read_is_a_502_at_once(mode: str) -> None:
    """It was left to its time-out, and its place among the concurrent requests to the lease."""
    async with scripted_node(says(b"")) as node, limited_gateway(node.url, **SLOW) as gateway:
        for body in (DEEP, NULL_CHOICE, b'{"choices":"x"}', b"\xff", b"null"):
            node.reply = says(answer(body))
            got = await ask(gateway, mode)
            assert got.status_code == 502, (body[:50], got.text)
            await nothing_held(gateway)


async def test_an_answer_that_cannot_be_read_is_asked_of_another_node() -> None:
    good = answer(json.dumps({"choices": [{"message": {"content": "yes", "reasoning": "secret"}}]}).encode())
    bad = answer(NULL_CHOICE)
    async with (
        scripted_node(says(bad)) as one,
        scripted_node(says(good)) as other,
        limited_gateway(one.url, other.url, **SLOW, routing={"policy": "round_robin"}) as gateway,
    ):
        for _ in range(4):
            got = await ask(gateway, "hidden")
            assert got.status_code == 200 and "yes" in got.text and "secret" not in got.text
        await nothing_held(gateway)
        async with httpx.AsyncClient(verify=False) as client:
            metrics = (await client.get(gateway.admin_url + "/metrics")).text
        assert f'fleetgate_attempts_total{{node="{one.url[7:]}",outcome="unreadable"}}' in metrics


async def test_an_event_that_cannot_be_read_ends_the_stream_with_an_error() -> None:
    seen = asyncio.Event()

    async def reply(node: ScriptedNode, asked: Asked, reader: Reader, writer: Writer) -> None:
        writer.write(STREAM_HEAD + chunk(event("a")))
        await writer.drain()
        await seen.wait()
        writer.write(chunk(b'data: {"reasoning":' + DEEP + b"\n\n") + chunk(DONE) + LAST_CHUNK)

    async with scripted_node(reply) as node, limited_gateway(node.url, **SLOW) as gateway:
        path, body = MODES["hidden"]
        async with (
            httpx.AsyncClient(timeout=30, verify=False) as client,
            client.stream("POST", gateway.url + path, json={**body, "stream": True}) as got,
        ):
            assert got.status_code == 200
            told = b""
            async for piece in got.aiter_raw():
                told += piece
                seen.set()
        assert told.startswith(event("a")) and b"bad_upstream_response" in told and not told.endswith(DONE)
        await nothing_held(gateway)


WAITS = [
    *((b"9" * 400, "60"), (b"99999999999", "60"), (b"61", "60"), (b"7", "7"), (b"1.5", "2"), (b"0", None)),
    *((b"-5", None), (b"nan", None), (b"1e9", None), (b"inf", None), (b"", None)),
    (b"Wed, 21 Oct 2035 07:28:00 GMT", None),
]


@pytest.mark.parametrize("status", [429, 503])
async def test_how_long_a_node_may_ask_to_be_left_alone(status: int) -> None:
    async with scripted_node(says(b"")) as node, limited_gateway(node.url, **SLOW) as gateway:
        (only,) = gateway.app.fleet.nodes
        for value, told in WAITS:
            node.reply = says(head(b"%d X" % status, b"retry-after: " + value))
            got = await ask(gateway)
            assert got.status_code == status
            assert got.headers.get("retry-after", "1") == (told or "1"), value
            assert only.busy_until <= asyncio.get_running_loop().time() + 60
            await nothing_held(gateway)


async def test_of_a_nodes_headers_the_type_alone_passes() -> None:
    theirs = (b"set-cookie: a=b", b"server: x", b"x-ratelimit-remaining-tokens: 0", b"access-control-allow-origin: *")
    whole = head(b"200 OK", b"content-type: application/json", *theirs, b"x-node: 1", b"content-encoding: identity")
    async with scripted_node(says(whole)) as node, limited_gateway(node.url, **SLOW) as gateway:
        got = await ask(gateway)
        assert got.headers["content-type"] == "application/json"
        told = {name for name in got.headers if not name.startswith("x-ratelimit")}
        assert told <= {"content-type", "content-length", "date", "server", "x-request-id", "request-id"}, told
        assert got.headers.get("server") != "x"
        assert node.asked[0].headers["accept-encoding"] == "identity"


@pytest.mark.parametrize("resume", [True, False], ids=["resume", "no resume"])
@pytest.mark.parametrize("size", [5 << 20, 1 << 20, 40 << 20])
async def test_a_first_event_may_be_long_and_not_endless(size: int, resume: bool) -> None:
    """The token ids of a long prompt, say; what is too long is not asked of the next. With resume it is the gateway
    that asks for them, and the client sees none."""
    ids = b'data: {"id":"c","choices":[],"prompt_token_ids":[' + b"7," * (size // 2) + b"7]}\n\n"
    stream = STREAM_HEAD + chunk(ids) + chunk(event("a")) + chunk(DONE) + LAST_CHUNK
    settings: dict[str, Any] = {**SLOW, "resume": {"enabled": resume}}
    async with scripted_node(says(stream)) as node, limited_gateway(node.url, **settings) as gateway:
        got = await ask(gateway, stream=True)
        if size < 32 << 20:
            shown = b'data: {"id":"c","choices":[],"prompt_token_ids":null}\n\n' if resume else ids
            assert got.content == shown + event("a") + DONE
        else:
            assert (got.status_code, got.json()["error"]["code"]) == (502, "answer_too_large")
            assert len(node.asked) == 1
            assert gateway.app.fleet.nodes[0].ready and not gateway.app.fleet.nodes[0].doubted
        await nothing_held(gateway)


class OddProbes(ScriptedNode):
    """Answers the gateway's own questions at `path` with `page`, and counts them."""

    path = ""
    page = b""
    probes = 0

    def probed(self, request: Asked) -> bytes | None:
        if request.path != self.path:
            return super().probed(request)
        self.probes += 1
        return answer(self.page)


LISTED = json.dumps({"data": [{"id": MODEL, "max_model_len": 10**30}]}).encode()
METRICS = [b"vllm:num_requests_running " + value for value in (b"inf", b"nan", b"-1", b"1e300", b"9" * 400)]
LONG = b" " * (5 << 20)
PAGES = {
    "/metrics": [*METRICS, b"\xff" * 1000, LONG],
    "/v1/models": [
        *(LISTED, DEEP, LONG, b'{"data":{"id":"x"}}', b'{"data":[{"id":["x"]}]}', b'{"data":[{"id":"a\\r\\nb: c"}]}'),
        *(b'{"data":[{"id":"m","x":1e400}]}', b'{"data":[{"id":"m","x":' + b"[" * 300 + b"]" * 300 + b"}]}"),
    ],
    "/version": [b'{"version":"%b"}' % (b"9" * 5000), DEEP, b'{"version":[1]}', LONG],
    "/tokenize": [b'{"tokens":["x"]}', b'{"tokens":[1e400]}', b'{"tokens":{}}', b'{"tokens":[%b1]}' % (b"1," * 99)],
}


@pytest.mark.parametrize("path", ["/metrics", "/v1/models"])
async def test_whatever_a_node_says_of_itself_it_is_asked_again(path: str) -> None:
    """No page ends its probing, is read without bound or breaks what clients are shown."""
    node = OddProbes(says(answer(b"{}")))
    async with listening(node), limited_gateway(node.url) as gateway, httpx.AsyncClient(verify=False) as client:
        (only,) = gateway.app.fleet.nodes
        node.path = path
        for node.page in PAGES[path]:
            probes = node.probes
            await eventually(lambda: node.probes > probes + 1)  # noqa: B023
            assert only.last_error is None or "probe failed" not in only.last_error, node.page[:50]
            assert (await client.get(gateway.url + "/v1/models")).status_code == 200, node.page[:50]
            assert (gateway.app.fleet.window(MODEL) or 0) < 2**32
        node.path = ""
        await eventually(lambda: only.ready and only.last_error is None)


@pytest.mark.parametrize("path", ["/version", "/tokenize"])
async def test_whatever_a_node_says_to_the_canary_it_serves(path: str) -> None:
    for page in PAGES[path]:
        node = OddProbes(says(answer(b"{}")))
        node.path, node.page = path, page
        async with listening(node), limited_gateway(node.url, budgets={"canary": True}) as gateway:
            (only,) = gateway.app.fleet.nodes
            assert only.capabilities.think_end == () and (only.capabilities.version is None or path == "/version")
            assert (await ask(gateway)).status_code == 200


def test_bent_answers_of_a_node_in_every_dialect_and_mode() -> None:
    """A small part of `python -m tests.fuzz.node_answers`."""
    with running_trial() as (runner, found):
        attack(runner, found, cases=60, number=0)
        serve_again(runner, found)
