"""What clients send that they should not: each gets a clear answer in its own format, and the next one is served."""

import asyncio
import contextlib
import itertools
import json
from asyncio import StreamReader as Reader
from asyncio import StreamWriter as Writer
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import httpx
import pytest
import pytest_asyncio

from tests.support.gateways import RunningGateway, eventually, running_gateway
from tests.support.nodes import (
    DONE,
    LAST_CHUNK,
    MODEL,
    STREAM_HEAD,
    Asked,
    ScriptedNode,
    answer,
    chunk,
    event,
    scripted_node,
)
from tests.support.raw import Answer, blocking_exchange, head, raw_client

CHAT = "/v1/chat/completions"
ANTHROPIC = ("/v1/messages", "/v1/messages/count_tokens")
PATHS = (
    CHAT,
    "/v1/completions",
    "/v1/responses",
    *ANTHROPIC,
    "/v1/embeddings",
    "/tokenize",
    "/detokenize",
)
ASK = {"model": MODEL, "messages": [{"role": "user", "content": "hello"}]}
pytestmark = pytest.mark.asyncio(loop_scope="module")

PLAIN = b'{"id":"x","usage":{"prompt_tokens":3,"completion_tokens":4}}'


async def plain(node: ScriptedNode, asked: Asked, reader: Reader, writer: Writer) -> None:
    writer.write(answer(PLAIN))


async def by_kind(node: ScriptedNode, asked: Asked, reader: Reader, writer: Writer) -> None:
    """A stream where one was asked for, else a plain answer that repeats the request's `id` field."""
    body = json.loads(asked.body)
    if body.get("stream"):
        writer.write(STREAM_HEAD + chunk(event("a")) + chunk(event("b")) + chunk(DONE) + LAST_CHUNK)
    else:
        writer.write(answer(json.dumps({"id": body.get("id")}).encode()))


async def silent(node: ScriptedNode, asked: Asked, reader: Reader, writer: Writer) -> None:
    await node.until_hung_up(reader)


Pair = tuple[ScriptedNode, RunningGateway]
Serving = Callable[..., AbstractAsyncContextManager[Pair]]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared() -> AsyncIterator[Pair]:
    async with scripted_node(by_kind) as node, running_gateway(node.url) as gateway:
        yield node, gateway


@pytest.fixture
def serving(shared: Pair) -> Serving:
    """`async with serving(**settings)`: a node and a gateway before it, which still serve at the end.

    Without settings it is the same gateway for all tests: whatever one did to it, the next one finds it whole.
    """

    @contextlib.asynccontextmanager
    async def served(**settings: Any) -> AsyncIterator[Pair]:
        async with contextlib.AsyncExitStack() as stack:
            node, gateway = shared
            if settings:
                node = await stack.enter_async_context(scripted_node(by_kind))
                gateway = await stack.enter_async_context(running_gateway(node.url, **settings))
            node.asked.clear()
            yield node, gateway
            await still_serves(gateway)

    return served


async def still_serves(gateway: RunningGateway) -> None:
    async with raw_client(gateway.port) as client:
        await client.post(CHAT, ASK)
        assert (await client.answer()).status == 200


def check_error(got: Answer, status: int, path: str = CHAT, code: str | None = None) -> str:
    """`got` is an error in the format of `path`, with its ids and without insides; returns the message."""
    assert got.status == status, got.body
    assert got.headers["content-type"].startswith("application/json")
    assert got.headers["x-request-id"] == got.headers["request-id"] != ""
    body = got.json()
    error = body["error"]
    if path.startswith("/v1/messages"):
        assert set(body) == {"type", "error", "request_id"} and set(error) == {"type", "message"}
        assert body["type"] == "error" and body["request_id"] == got.headers["request-id"]
    else:
        assert set(body) == {"error"} and set(error) == {"message", "type", "param", "code"}
        if code is not None:
            assert error["code"] == code
    message = error["message"]
    assert isinstance(message, str) and message
    for inner in ("Traceback", 'File "', "gateway.", "sys.", "Error(", "0x"):
        assert inner not in message
    return message


async def one(gateway: RunningGateway, data: bytes) -> Answer:
    """What a connection of its own gets for `data`."""
    async with raw_client(gateway.port) as client:
        await client.send(data)
        return await client.answer()


def post(path: str, body: bytes, *lines: str) -> bytes:
    return head("POST", path, f"content-length: {len(body)}", *lines) + body


# Bodies

NOT_JSON: dict[str, bytes] = {
    "nothing": b"",
    "blanks": b" \r\n ",
    "text": b"hello",
    "half": b'{"model": "x", ',
    "trailing text": b'{"model": "x"} {}',
    "trailing comma": b'{"model": "x",}',
    "single quotes": b"{'model': 'x'}",
    "comment": b'{"model": "x" /* mine */}',
    "raw newline in a string": b'{"model": "a\nb"}',
    "null byte": b'{"model": "x"}\x00',
    "NaN": b'{"model": "x", "temperature": NaN}',
    "Infinity": b'{"model": "x", "temperature": Infinity}',
    "-Infinity nested": b'{"model": "x", "a": [{"b": -Infinity}]}',
    "integer of 5000 digits": b'{"model": "x", "seed": %b}' % (b"9" * 5000),
    "UTF-8 cut in mid-character": '{"model": "é"}'.encode()[:-3] + b'"}',
    "Latin-1": '{"model": "é"}'.encode("latin-1"),
    "overlong UTF-8": b'{"model": "\xc0\xaf"}',
    "surrogate in UTF-8": b'{"model": "\xed\xa0\x80"}',
    "byte order mark": b"\xef\xbb\xbf" + json.dumps(ASK).encode(),
    "UTF-16": json.dumps(ASK).encode("utf-16"),
    "UTF-16 without a mark": json.dumps(ASK).encode("utf-16-le"),
    "UTF-32": json.dumps(ASK).encode("utf-32"),
    "gzip": b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03",
    "form": b"model=x&stream=true",
    "array": b"[1, 2]",
    "string": b'"hello"',
    "number": b"5",
    "null": b"null",
    "true": b"true",
    "array of 40000 levels": b"[" * 40_000,
}


@pytest.mark.parametrize("kind", NOT_JSON)
async def test_a_body_that_is_no_json_object_is_refused(serving: Serving, kind: str) -> None:
    async with serving() as (node, gateway):
        for path in PATHS:
            got = await one(gateway, post(path, NOT_JSON[kind]))
            check_error(got, 400, path, "too_deeply_nested" if "levels" in kind else "invalid_json")
        assert node.asked == []


DUPLICATES = {
    "at the top": b'{"model": "a", "stream": true, "model": "b"}',
    "spelled with an escape": b'{"model": "a", "mod\\u0065l": "b"}',
    "nested": b'{"model": "a", "messages": [{"role": "user", "content": "x", "role": "system"}]}',
    "in options": b'{"model": "a", "stream_options": {"include_usage": true, "include_usage": false}}',
}


@pytest.mark.parametrize("kind", DUPLICATES)
async def test_a_key_that_stands_twice_is_refused(serving: Serving, kind: str) -> None:
    """The gateway and the node could read two different ones."""
    async with serving() as (node, gateway):
        for path in PATHS:
            message = check_error(await one(gateway, post(path, DUPLICATES[kind])), 400, path, "duplicate_key")
            assert "twice" in message
        assert node.asked == []


WRONG_TYPES: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "model": ({"model": 5}, PATHS),
    "model as a list": ({"model": [MODEL]}, PATHS),
    "model as an object": ({"model": {"name": MODEL}}, PATHS),
    "stream": ({"stream": "true"}, PATHS),
    "stream as a number": ({"stream": 1}, PATHS),
    "stream as an object": ({"stream": {}}, PATHS),
    "stream_options": ({"stream": True, "stream_options": True}, (CHAT, "/v1/completions")),
    "stream_options as a list": ({"stream": True, "stream_options": [1]}, (CHAT, "/v1/completions")),
    "include_usage": (
        {"stream": True, "stream_options": {"include_usage": "yes"}},
        (CHAT, "/v1/completions"),
    ),
    "previous_response_id": ({"previous_response_id": 5}, ("/v1/responses",)),
    "previous_response_id as an object": ({"previous_response_id": {}}, ("/v1/responses",)),
    "store": ({"store": "no"}, ("/v1/responses",)),
}


@pytest.mark.parametrize("kind", WRONG_TYPES)
async def test_a_field_of_the_wrong_type_is_named(serving: Serving, kind: str) -> None:
    fields, paths = WRONG_TYPES[kind]
    name = kind.split()[0]
    async with serving() as (node, gateway):
        for path in paths:
            got = await one(gateway, post(path, json.dumps({**ASK, **fields}).encode()))
            assert repr(name) in check_error(got, 400, path, "invalid_type")
            if path not in ANTHROPIC:
                assert got.json()["error"]["param"] == name
        assert node.asked == []


async def test_null_is_as_good_as_absent(serving: Serving) -> None:
    async with serving() as (_, gateway):
        for path in PATHS:
            body = {**ASK, "model": None, "stream": None, "stream_options": None, "previous_response_id": None}
            assert (await one(gateway, post(path, json.dumps(body).encode()))).status == 200


def nested(levels: int) -> bytes:
    """An ask whose deepest value lies `levels` objects and arrays deep, the outermost counted."""
    return b'{"model": "%b", "a": %b1%b}' % (MODEL.encode(), b"[" * (levels - 1), b"]" * (levels - 1))


async def test_nesting_is_bounded(serving: Serving) -> None:
    async with serving() as (node, gateway):
        for path in PATHS:
            assert (await one(gateway, post(path, nested(99)))).status == 200
            check_error(await one(gateway, post(path, nested(100))), 400, path, "too_deeply_nested")
        assert len(node.asked) == len(PATHS)


async def test_many_brackets_side_by_side_are_no_nesting(serving: Serving) -> None:
    async with serving() as (_, gateway):
        body = json.dumps({**ASK, "a": [[]] * 5000, "b": [{}] * 5000, "c": "[" * 5000}).encode()
        assert (await one(gateway, post(CHAT, body))).status == 200


async def test_an_unknown_model_is_told_and_costs_the_node_nothing(serving: Serving) -> None:
    async with serving() as (node, gateway):
        for path in PATHS:
            for name in ("gpt-none", "", " ", "x" * 1000, "ünïcode", '<b>"\n'):
                body = json.dumps({**ASK, "model": name}).encode()
                check_error(await one(gateway, post(path, body)), 404, path, "model_not_found")
        assert node.asked == []


# Sizes


async def test_a_body_that_says_it_is_too_large_is_refused_before_it_comes(serving: Serving) -> None:
    async with serving(requests={"max_body": 2000}) as (node, gateway):

        async def refused(path: str) -> None:
            async with raw_client(gateway.port) as client:
                await client.send(head("POST", path, "content-length: 2001"))
                check_error(await client.answer(), 413, path, "body_too_large")
                assert await client.closed()

        await asyncio.gather(*map(refused, PATHS))
        assert node.asked == []


async def test_a_body_at_the_limit_is_taken(serving: Serving) -> None:
    async with serving(requests={"max_body": 2000}) as (_, gateway):
        body = json.dumps(ASK).encode().ljust(2000)
        assert (await one(gateway, post(CHAT, body))).status == 200
        assert (await one(gateway, head("POST", CHAT, "transfer-encoding: chunked") + chunk(body) + LAST_CHUNK)).status
        check_error(await one(gateway, post(CHAT, body + b" ")), 413, code="body_too_large")


async def test_a_chunked_body_is_counted_while_it_comes(serving: Serving) -> None:
    async with serving(requests={"max_body": 2000}) as (node, gateway):

        async def refused(path: str) -> None:
            async with raw_client(gateway.port) as client:
                await client.send(head("POST", path, "transfer-encoding: chunked") + chunk(b" " * 2001))
                check_error(await client.answer(), 413, path, "body_too_large")
                assert await client.closed()

        await asyncio.gather(*map(refused, PATHS))
        assert node.asked == []


@pytest.mark.parametrize("line", ["content-length: 1000000000", "transfer-encoding: chunked"])
async def test_what_is_too_large_is_read_no_further(serving: Serving, line: str) -> None:
    """A client that goes on sending gets rid of no more than the buffers in between hold, and can read the answer."""
    async with serving(requests={"max_body": 2000}) as (_, gateway):
        pieces = itertools.chain([head("POST", CHAT, line)], itertools.repeat(chunk(b" " * 65_536), 3000))
        sent, got = await blocking_exchange(gateway.port, pieces)
        assert sent < 50_000_000, "the gateway took it all"
        check_error(got, 413, code="body_too_large")


async def test_an_ordinary_client_reads_the_refusal_of_a_large_body(serving: Serving) -> None:
    large = {**ASK, "padding": "x" * 20_000_000}
    async with serving(requests={"max_body": 2000}) as (_, gateway):
        for _ in range(3):
            got = await asyncio.to_thread(httpx.post, gateway.url + CHAT, json=large, timeout=10)
            assert (got.status_code, got.json()["error"]["code"]) == (413, "body_too_large")


async def test_an_asynchronous_client_reads_the_refusal_of_a_large_body(serving: Serving) -> None:
    """Its event loop forgets what came before a reset: so the connection must not be reset while it sends."""
    large = {**ASK, "padding": "x" * 20_000_000}
    async with serving(requests={"max_body": 2000}) as (_, gateway):
        async with httpx.AsyncClient(verify=False, timeout=10) as client:
            for _ in range(3):
                got = await client.post(gateway.url + CHAT, json=large)
                assert (got.status_code, got.json()["error"]["code"]) == (413, "body_too_large")


@pytest.mark.parametrize("sent", ["POST /v1/chat", "POST /v1/messages HTTP/1.1\r\nhost: x\r\nx: "])
async def test_headers_that_trickle_in_are_given_up(serving: Serving, sent: str) -> None:
    async with serving(timeouts={"headers": 0.3}) as (_, gateway):
        async with raw_client(gateway.port) as client:
            await client.send(sent)

            async def trickle() -> None:
                with contextlib.suppress(ConnectionError):
                    while True:
                        await asyncio.sleep(0.2)
                        await client.send("a")

            trickling = asyncio.create_task(trickle())
            check_error(await client.answer(), 408, code="request_too_slow")
            assert await client.closed()
            trickling.cancel()


async def test_headers_that_trickle_in_on_a_kept_connection_are_given_up(serving: Serving) -> None:
    async with serving(timeouts={"headers": 0.3}) as (_, gateway):
        async with raw_client(gateway.port) as client:
            await client.post(CHAT, ASK)
            assert (await client.answer()).status == 200
            await client.send("POST /v1/chat")
            check_error(await client.answer(), 408, code="request_too_slow")
            assert await client.closed()


async def test_a_connection_that_never_speaks_is_closed(serving: Serving) -> None:
    async with serving(timeouts={"headers": 0.2}) as (_, gateway):
        async with raw_client(gateway.port) as client:
            assert await client.closed()


async def test_blank_lines_do_not_keep_a_connection(serving: Serving) -> None:
    """They may stand before a request, and start the time for its headers."""
    async with serving(timeouts={"headers": 0.2}) as (_, gateway):
        for before in ([], [ASK]):
            async with raw_client(gateway.port, patience=4) as client:
                for body in before:
                    await client.post(CHAT, body)
                    assert (await client.answer()).status == 200
                await client.send("\r\n")
                await client.rest()


async def test_an_unwanted_body_does_not_keep_a_connection(serving: Serving) -> None:
    """The 404 is out before the body is; a byte of it now and then must not hold the connection for ever."""
    async with serving(timeouts={"headers": 0.2, "body": 0.2}) as (_, gateway):
        async with raw_client(gateway.port, patience=4) as client:
            await client.send(head("POST", "/nowhere", "content-length: 1000"))
            check_error(await client.answer(), 404)
            with contextlib.suppress(ConnectionError):
                await client.send("x")
            await client.rest()


async def test_a_body_that_trickles_in_is_given_up(serving: Serving) -> None:
    async with serving(timeouts={"body": 0.3}) as (node, gateway):

        async def given_up(path: str, line: str, first: bytes) -> None:
            async with raw_client(gateway.port) as client:
                await client.send(head("POST", path, line) + first)
                check_error(await client.answer(), 408, path, "request_too_slow")
                assert await client.closed()

        ways = (("content-length: 100", b"{"), ("transfer-encoding: chunked", b"5\r\n{"))
        await asyncio.gather(*(given_up(path, *way) for path in PATHS for way in ways))
        assert node.asked == []


async def test_a_client_that_leaves_in_its_body_is_no_error(serving: Serving) -> None:
    async with serving() as (node, gateway):
        async with raw_client(gateway.port) as client:
            await client.send(head("POST", CHAT, "content-length: 100") + b"{")
            await asyncio.sleep(0.05)
        assert node.asked == []


@pytest.mark.parametrize(
    "sent",
    [
        head("GET", "/v1/models", f"x-long: {'a' * 3000}"),
        head("GET", "/v1/models", *[f"x-{n}: a" for n in range(500)]),
        head("GET", "/v1/models?" + "a" * 3000),
        head("GET", "/v1/models", f"{'x' * 3000}: a"),
        b"GET /v1/models HTTP/1.1\r\nhost: x\r\nx: " + b"a" * 3000,
        b"A" * 3000,
    ],
    ids=["one", "many", "path", "name", "without end", "no request at all"],
)
@pytest.mark.parametrize("pieces", [1, 7])
async def test_headers_that_are_too_large_are_refused(serving: Serving, sent: bytes, pieces: int) -> None:
    """However they arrive; what is not even HTTP may be told so instead."""
    async with serving(requests={"max_headers": 2000}) as (_, gateway):
        step = len(sent) // pieces + 1
        cut = [sent[at : at + step] for at in range(0, len(sent), step)]
        _, got = await blocking_exchange(gateway.port, cut, pause=0.01)
        if sent.startswith(b"A"):
            check_error(got, got.status)
            assert got.status in (400, 431)
        else:
            check_error(got, 431, code="headers_too_large")


async def test_headers_below_the_limit_are_taken(serving: Serving) -> None:
    async with serving(requests={"max_headers": 2000}) as (_, gateway):
        assert (await one(gateway, head("GET", "/v1/models", f"x: {'a' * 1500}"))).status == 200


async def test_a_refused_request_takes_nothing_with_it(serving: Serving) -> None:
    """What stands behind it on the connection is not executed."""
    async with serving(requests={"max_headers": 2000}) as (node, gateway):
        long = head("POST", CHAT, f"x: {'a' * 3000}", "content-length: 0")
        async with raw_client(gateway.port) as client:
            await client.send(long + post(CHAT, json.dumps(ASK).encode()))
            check_error(await client.answer(), 431, code="headers_too_large")
            assert await client.closed()
        await asyncio.sleep(0.05)
        assert node.asked == []


async def test_too_many_connections_are_told_to_come_back(serving: Serving) -> None:
    async with serving(listen={"max_connections": 3}) as (_, gateway):
        async with contextlib.AsyncExitStack() as stack:
            clients = [await stack.enter_async_context(raw_client(gateway.port)) for _ in range(3)]
            for client in clients:
                await client.post(CHAT, ASK)
                assert (await client.answer()).status == 200
            got = await one(gateway, post(CHAT, json.dumps(ASK).encode()))
            check_error(got, 503, code="too_many_connections")
            assert int(got.headers["retry-after"]) >= 1
            async with httpx.AsyncClient(verify=False) as polite:
                refused = await polite.post(gateway.url + CHAT, json=ASK)
                assert refused.status_code == 503
                metrics = await polite.get(f"{gateway.admin_url}/metrics")
                assert metrics.status_code == 200, "the admin listener is not bounded by clients"
            await clients[0].post(CHAT, ASK)
            assert (await clients[0].answer()).status == 200
        await eventually(lambda: not gateway.server.server_state.connections)


# Paths and methods


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH", "OPTIONS", "HEAD", "TRACE"])
async def test_the_wrong_method_is_told_with_the_right_one(serving: Serving, method: str) -> None:
    async with serving() as (node, gateway):
        for path in PATHS:
            async with raw_client(gateway.port) as client:
                await client.send(head(method, path))
                got = await client.answer(method)
                assert (got.status, got.headers["allow"]) == (405, "POST")
                if method != "HEAD":
                    check_error(got, 405, path, "method_not_allowed")
        assert node.asked == []


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("POST", "/v1/models", "GET"),
        ("DELETE", f"/v1/models/{MODEL}", "GET"),
        ("POST", "/health", "GET"),
        ("PUT", "/ready", "GET"),
        ("PUT", "/v1/responses/resp_00", "DELETE"),
        ("POST", "/v1/responses/resp_00", "GET"),
        ("POST", "/v1/responses/resp_00/input_items", "GET"),
        ("GET", "/v1/responses/resp_00/cancel", "POST"),
    ],
)
async def test_the_wrong_method_on_the_small_routes(serving: Serving, method: str, path: str, allow: str) -> None:
    async with serving() as (_, gateway):
        got = await one(gateway, head(method, path, "content-length: 0"))
        check_error(got, 405, path, "method_not_allowed")
        assert allow in got.headers["allow"].split(", ")


UNKNOWN = (
    "/",
    "/v1",
    "/v2/chat/completions",
    "/chat/completions",
    "//v1/chat/completions",
    "/v1//chat/completions",
    "/v1/chat/completions/",
    "/v1/chat/completions//",
    "/v1/chat/completions/batch",
    "/v1/chat/completions/render",
    "/v1/chat/completions;x",
    "/v1/chat/../chat/completions",
    "/v1/%2e%2e/v1/chat/completions",
    "/V1/CHAT/COMPLETIONS",
    "/v1/chat/completions%00",
    "/v1/chat/completions%20",
    "/v1/chat/completions%0d%0ax",
    "/v1/chat/completions.json",
    "/v1/messages/",
    "/v1/messages/batches",
    "/v1/messages/count_tokens/",
    "/v1/responses/",
    "/v1/responses/resp_00/",
    "/v1/responses/resp_00/cancel/",
    "/v1/responses/../health/cancel",
    "/v1/responses/%2e%2e/cancel",
    "/v1/responses/resp_00%2fcancel/x",
    "/v1/files",
    "/v1/batches",
    "/v1/audio/transcriptions",
    "/v1/rerank/",
    "/v3/rerank",
    "/v2/score",
    "/v1/pooling",
    "/v1/load_lora_adapter",
    "/invocations",
    "/metrics",
    "/load",
    "/ping",
    "/version",
    "/pause",
    "/resume",
    "/sleep",
    "/wake_up",
    "/reset_prefix_cache",
    "/scale_elastic_ep",
    "/tokenizer_info",
    "/server_info",
    "/classify",
    "/v2/embed",
    "/docs",
    "/redoc",
    "/openapi.json",
    "/admin/nodes",
    "/admin/reload",
    "/health/",
    "/ready/",
    "/generate",
    "/inference/v1/generate",
    "/favicon.ico",
    "/%",
    "/%zz",
    "/%ff",
)


async def test_what_is_not_listed_is_not_there(serving: Serving) -> None:
    """Neither lookalikes of what is, nor vLLM's other paths, nor the admin routes."""
    async with serving() as (node, gateway):
        for path in UNKNOWN:
            for method in ("GET", "POST"):
                got = await one(gateway, head(method, path, "content-length: 0"))
                assert got.status == 404, f"{method} {path}: {got}"
                check_error(got, 404, path)
        assert node.asked == []


@pytest.mark.parametrize(
    ("path", "meant"),
    [
        ("/chat/completions", "/v1/chat/completions"),
        ("/v1/v1/messages", "/v1/messages"),
        ("/v1/chat/completions/", "/v1/chat/completions"),
        ("/openai/completions", "/v1/completions"),
        ("/models", "/v1/models"),
    ],
)
async def test_a_wrong_base_url_is_told_the_right_path(serving: Serving, path: str, meant: str) -> None:
    async with serving() as (_, gateway):
        got = await one(gateway, post(path, b"{}"))
        assert f"Unknown path '{path}': did you mean '{meant}'?" in got.json()["error"]["message"]


async def test_a_path_that_looks_like_nothing_is_told_what_there_is(serving: Serving) -> None:
    async with serving() as (_, gateway):
        got = await one(gateway, head("GET", "/"))
        assert "/v1/chat/completions, " in got.json()["error"]["message"]


async def test_404_in_the_format_of_the_closest_dialect(serving: Serving) -> None:
    async with serving() as (_, gateway):
        got = await one(gateway, head("GET", "/v1/messages/batches"))
        assert got.json()["error"]["type"] == "not_found_error"
        got = await one(gateway, head("GET", "/v1/nothing"))
        assert got.json()["error"] == {
            "message": got.json()["error"]["message"],
            "type": "invalid_request_error",
            "param": None,
            "code": "unknown_path",
        }


async def test_the_query_does_not_change_the_endpoint(serving: Serving) -> None:
    async with serving() as (node, gateway):
        got = await one(gateway, post(f"{CHAT}?api-version=2024-10-21&x=/../", json.dumps(ASK).encode()))
        assert got.status == 200
        assert node.asked[0].path == CHAT


async def test_the_request_id_is_the_clients_where_it_can_be_logged(serving: Serving) -> None:
    async with serving() as (_, gateway):
        for path in (CHAT, "/nowhere", "/v1/models"):
            got = await one(gateway, post(path, b"", "x-request-id: job-7:a.b_C"))
            assert got.headers["x-request-id"] == got.headers["request-id"] == "job-7:a.b_C"
            for bad in ("a b", "x" * 129, 'a"b', "é"):
                got = await one(gateway, post(path, b"", f"x-request-id: {bad}"))
                assert got.headers["x-request-id"].startswith("req_")


# HTTP

GARBAGE: dict[str, bytes] = {
    "TLS": bytes.fromhex("16030100c8010000c40303") + b"\x00" * 100,
    "SSH": b"SSH-2.0-OpenSSH_9.2\r\n",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "zeros": b"\x00" * 50,
    "text": b"hello there\r\n\r\n",
    "unknown method": b"FROB /v1/models HTTP/1.1\r\nhost: x\r\n\r\n",
    "future version": b"GET /v1/models HTTP/9.9\r\nhost: x\r\n\r\n",
    "space in the path": b"GET /v1/mo dels HTTP/1.1\r\nhost: x\r\n\r\n",
    "raw bytes in the path": b"GET /v1/\xff\xe9 HTTP/1.1\r\nhost: x\r\n\r\n",
    "raw bytes in the query": b"GET /nowhere?\xff\xe9 HTTP/1.1\r\nhost: x\r\n\r\n",
    "no path": b"GET  HTTP/1.1\r\nhost: x\r\n\r\n",
    "space before the colon": b"GET /v1/models HTTP/1.1\r\nhost : x\r\n\r\n",
    "header without a colon": b"GET /v1/models HTTP/1.1\r\nhost: x\r\nbroken\r\n\r\n",
    "null in a header": b"GET /v1/models HTTP/1.1\r\nhost: x\r\nx: a\x00b\r\n\r\n",
    "lone CR in a header": b"GET /v1/models HTTP/1.1\r\nhost: x\r\nx: a\rb: c\r\n\r\n",
    "CONNECT": b"CONNECT example.com:443 HTTP/1.1\r\nhost: x\r\n\r\n",
}


@pytest.mark.parametrize("kind", GARBAGE)
async def test_what_is_not_http_is_told_so(serving: Serving, kind: str) -> None:
    async with serving() as (node, gateway):
        async with raw_client(gateway.port) as client:
            await client.send(GARBAGE[kind])
            got = await client.answer()
            assert 400 <= got.status < 500
            check_error(got, got.status)
        assert node.asked == []


SMUGGLED: dict[str, bytes] = {
    "length and chunked": b"content-length: 5\r\ntransfer-encoding: chunked\r\n",
    "chunked and length": b"transfer-encoding: chunked\r\ncontent-length: 5\r\n",
    "two lengths": b"content-length: 5\r\ncontent-length: 60\r\n",
    "two lengths in one": b"content-length: 5, 60\r\n",
    "length with a sign": b"content-length: +5\r\n",
    "negative length": b"content-length: -5\r\n",
    "length in hex": b"content-length: 0x5\r\n",
    "length beyond 64 bits": b"content-length: 99999999999999999999999\r\n",
    "unknown coding": b"transfer-encoding: xchunked\r\n",
    "coding after chunked": b"transfer-encoding: chunked, gzip\r\n",
    "coding hidden by a space": b"transfer-encoding : chunked\r\n",
    "coding hidden by a tab": b"transfer-encoding:\x0bchunked\r\n",
    "coding twice": b"transfer-encoding: chunked\r\ntransfer-encoding: identity\r\n",
}


@pytest.mark.parametrize("kind", SMUGGLED)
async def test_a_body_of_two_lengths_is_refused(serving: Serving, kind: str) -> None:
    """Whoever stands in front might believe the other one, and take the rest for another client's request."""
    async with serving() as (node, gateway):
        inner = post(CHAT, json.dumps(ASK).encode())
        sent = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\n" + SMUGGLED[kind] + b"\r\n0\r\n\r\n" + inner
        async with raw_client(gateway.port) as client:
            await client.send(sent)
            got = await client.answer()
            assert 400 <= got.status < 500
            check_error(got, got.status)
            assert await client.closed()
        await asyncio.sleep(0.02)
        assert node.asked == []


@pytest.mark.parametrize(
    "chunks",
    [
        b"zz\r\n",
        b"-5\r\n",
        b"5;\x00\r\n",
        b"5\r\nhelloworld\r\n",
        b"fffffffffffffffff\r\n",
        b"5\nhello\n0\n\n",
        b" 5\r\n",
    ],
)
async def test_broken_chunks_are_refused(serving: Serving, chunks: bytes) -> None:
    async with serving(timeouts={"body": 0.5}) as (node, gateway):
        async with raw_client(gateway.port) as client:
            await client.send(head("POST", CHAT, "transfer-encoding: chunked") + chunks)
            assert b"200 OK" not in await client.rest()
        assert node.asked == []


async def test_a_chunked_body_is_as_good_as_any(serving: Serving) -> None:
    async with serving() as (node, gateway):
        raw = json.dumps(ASK).encode()
        async with raw_client(gateway.port) as client:
            for size in (1, 7, len(raw)):
                await client.send(head("POST", CHAT, "transfer-encoding: chunked"))
                for at in range(0, len(raw), size):
                    await client.send(chunk(raw[at : at + size]))
                await client.send("0;name=value\r\ntrailer: x\r\n\r\n")
                assert (await client.answer()).status == 200
        assert [asked.body for asked in node.asked] == [raw] * 3
        assert all("transfer-encoding" not in asked.headers for asked in node.asked)


async def test_a_client_that_waits_for_100_continue_is_told_to_go_on(serving: Serving) -> None:
    async with serving() as (_, gateway):
        raw = json.dumps(ASK).encode()
        async with raw_client(gateway.port) as client:
            await client.send(head("POST", CHAT, f"content-length: {len(raw)}", "expect: 100-continue"))
            assert (await client.answer()).status == 100
            await client.send(raw)
            assert (await client.answer()).status == 200


async def test_a_client_that_waits_for_100_continue_is_spared_a_body_that_nobody_wants(serving: Serving) -> None:
    async with serving(requests={"max_body": 2000}) as (_, gateway):
        for path, length, status in ((CHAT, 2001, 413), ("/nowhere", 5, 404)):
            async with raw_client(gateway.port, patience=1.5) as client:
                await client.send(head("POST", path, f"content-length: {length}", "expect: 100-continue"))
                check_error(await client.answer(), status)
                with contextlib.suppress(TimeoutError):
                    assert b"100 Continue" not in await client.rest()


async def test_pipelined_requests_are_answered_in_order(serving: Serving) -> None:
    async with serving() as (_, gateway):
        async with raw_client(gateway.port) as client:
            requests = [post(CHAT, json.dumps({**ASK, "id": number}).encode()) for number in range(20)]
            await client.send(b"".join(requests))
            assert [(await client.answer()).json()["id"] for _ in requests] == list(range(20))


async def test_pipelined_behind_an_error(serving: Serving) -> None:
    async with serving() as (_, gateway):
        async with raw_client(gateway.port) as client:
            await client.send(post(CHAT, b"{") + post(CHAT, json.dumps({**ASK, "id": 2}).encode()))
            check_error(await client.answer(), 400)
            assert (await client.answer()).json() == {"id": 2}


async def test_a_client_that_leaves_with_requests_in_the_pipe_frees_the_node() -> None:
    async with scripted_node(silent) as node, running_gateway(node.url) as gateway:
        async with raw_client(gateway.port) as client:
            await client.send(post(CHAT, json.dumps(ASK).encode()) * 2)
            await eventually(lambda: len(node.asked) == 1)
            await asyncio.sleep(0.05)
        await eventually(lambda: node.hung_up == 1, seconds=10)
        await eventually(lambda: gateway.app.relay.open_exchanges == 0, seconds=10)


async def test_a_slow_reader_with_requests_in_the_pipe_gets_its_whole_stream() -> None:
    async def flood(node: ScriptedNode, asked: Asked, reader: Reader, writer: Writer) -> None:
        writer.write(STREAM_HEAD)
        for _ in range(1000):
            writer.write(chunk(event("x" * 16_000)))
            await writer.drain()
        writer.write(chunk(DONE) + LAST_CHUNK)

    stall = {"client_stall": 2.0}
    async with scripted_node(flood) as node, running_gateway(node.url, timeouts=stall) as gateway:
        async with raw_client(gateway.port) as client:
            await client.send(post(CHAT, json.dumps({**ASK, "stream": True}).encode()))
            await client.answer_head()
            await client.send(post(CHAT, b"{"))
            await asyncio.sleep(0.5)
            seen = b""
            async with asyncio.timeout(10):
                while b"[DONE]" not in seen:
                    piece = await client.reader.read(1 << 20)
                    assert piece, "the stream was cut"
                    seen = seen[-10:] + piece
                    assert b'"error"' not in seen.partition(b"[DONE]")[0]


async def test_http_1_0(serving: Serving) -> None:
    """A plain answer with its length, then the connection ends; no chunks, which 1.0 does not know."""
    async with serving() as (_, gateway):
        raw = json.dumps({**ASK, "id": 7}).encode()
        async with raw_client(gateway.port) as client:
            await client.send(head("POST", CHAT, f"content-length: {len(raw)}", version="1.0") + raw)
            got = await client.answer()
            assert (got.status, got.json()) == (200, {"id": 7})
            assert "transfer-encoding" not in got.headers
            assert await client.closed()


async def test_a_stream_for_http_1_0_is_framed_by_the_end_of_the_connection(serving: Serving) -> None:
    async with serving() as (_, gateway):
        raw = json.dumps({**ASK, "stream": True}).encode()
        async with raw_client(gateway.port) as client:
            await client.send(head("POST", CHAT, f"content-length: {len(raw)}", version="1.0") + raw)
            _, headers = await client.answer_head()
            assert "transfer-encoding" not in headers
            assert await client.rest() == event("a") + event("b") + DONE


async def test_absolute_form(serving: Serving) -> None:
    """As a proxy would be asked (RFC 9112, section 3.2.2); the host in it changes nothing."""
    async with serving() as (node, gateway):
        got = await one(gateway, post(f"http://elsewhere.example{CHAT}", json.dumps(ASK).encode()))
        assert got.status == 200
        assert node.asked[0].path == CHAT
        assert "elsewhere" not in node.asked[0].headers["host"]
        got = await one(gateway, head("GET", "http://elsewhere.example/metrics"))
        check_error(got, 404)


async def test_options_for_the_server_as_a_whole(serving: Serving) -> None:
    async with serving() as (_, gateway):
        got = await one(gateway, head("OPTIONS", "*"))
        check_error(got, got.status)
        assert got.status in (400, 404, 405)


async def test_head_has_no_body(serving: Serving) -> None:
    async with serving() as (_, gateway):
        async with raw_client(gateway.port) as client:
            for path in ("/nowhere", "/health", "/v1/models"):
                await client.send(head("HEAD", path))
                assert (await client.answer("HEAD")).status in (200, 404, 405)
            await client.send(head("GET", "/health"))
            assert (await client.answer()).json() == {"status": "ok"}


async def test_a_connection_is_kept_after_a_refused_body(serving: Serving) -> None:
    async with serving() as (_, gateway):
        async with raw_client(gateway.port) as client:
            for bad in (b"{", b'{"model": 5}', b'{"model": "none"}'):
                await client.send(post(CHAT, bad))
                got = await client.answer()
                assert got.status in (400, 404) and "connection" not in got.headers
                await client.send(head("GET", "/nowhere"))
                assert (await client.answer()).status == 404
                await client.post(CHAT, ASK)
                assert (await client.answer()).status == 200


async def test_a_client_that_offers_http_2_is_served_over_1_1_again_and_again(serving: Serving) -> None:
    """Java's HttpClient sends this offer with every cleartext request."""
    offer = (
        "connection: Upgrade, HTTP2-Settings",
        "upgrade: h2c",
        "http2-settings: AAEAAEAAAAIAAAABAAMAAABkAAQBAAAAAAUAAEAA",
    )
    async with serving() as (_, gateway):
        async with raw_client(gateway.port) as client:
            for number in range(3):
                await client.post(CHAT, {**ASK, "id": number}, *offer)
                assert (await client.answer()).json() == {"id": number}


async def test_a_websocket_is_not_offered(serving: Serving) -> None:
    async with serving() as (_, gateway):
        lines = ("connection: upgrade", "upgrade: websocket", "sec-websocket-version: 13", "sec-websocket-key: eA==")
        got = await one(gateway, head("GET", "/v1/realtime", *lines))
        check_error(got, 404)


async def test_folded_and_repeated_headers_reach_no_node(serving: Serving) -> None:
    async with serving() as (node, gateway):
        raw = json.dumps(ASK).encode()
        sent = head("POST", CHAT, f"content-length: {len(raw)}", "accept: a", " x-smuggled: 1", "traceparent: 1") + raw
        got = await one(gateway, sent)
        assert got.status in (200, 400)
        assert all("x-smuggled" not in asked.headers for asked in node.asked)


async def test_a_client_that_half_closes_still_gets_its_error(serving: Serving) -> None:
    async with serving() as (_, gateway):
        async with raw_client(gateway.port) as client:
            await client.send(post(CHAT, b"{"))
            client.writer.write_eof()
            check_error(await client.answer(), 400, code="invalid_json")


async def test_garbage_in_every_cut_of_a_good_request_hangs_nothing(serving: Serving) -> None:
    """A request that breaks off anywhere and goes on as noise is answered or closed, and never reaches the node."""
    async with serving(timeouts={"headers": 0.3, "body": 0.3}) as (node, gateway):
        good = post(CHAT, json.dumps(ASK).encode())

        async def cut(at: int) -> bytes:
            async with raw_client(gateway.port) as client:
                await client.send(good[:at] + b"\xff\x00\xfe" * 3)
                client.writer.write_eof()
                return await client.rest()

        for at in range(0, len(good) - 9, 5):
            assert b"200 OK" not in await cut(at)
        assert node.asked == []
