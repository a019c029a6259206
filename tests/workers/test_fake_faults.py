"""Faults on demand: each does what its row in the table says, and heals."""

import asyncio
import contextlib
import json
import socket
from typing import Any

import httpx
import pytest

from tests.contract.client import CHAT, COMPLETIONS, QUESTION, USAGE, NodeClient, node_client
from workers.fake import FakeNode, FakeSettings, Fault, serve_fake
from workers.fake.faults import parse_fault

BODY = {"messages": QUESTION, "stream": True}
PLAIN = {"messages": QUESTION}


async def read_all(fake: FakeNode, body: dict[str, Any], timeout: float = 2.0) -> bytes:
    """What the node sends until it closes, as raw bytes; a reset raises ConnectionResetError."""
    reader, writer = await asyncio.open_connection(fake.settings.host, fake.port)
    try:
        writer.write(request(body))
        return await asyncio.wait_for(reader.read(), timeout)
    finally:
        writer.close()


def request(body: dict[str, Any], more: str = "connection: close\r\n") -> bytes:
    data = json.dumps(body).encode()
    head = f"POST {CHAT} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n{more}"
    return f"{head}content-length: {len(data)}\r\n\r\n".encode() + data


async def read_body(fake: FakeNode, body: dict[str, Any], timeout: float = 20.0) -> bytes:
    """What of a stream's body comes until it ends, breaks or is silent for `timeout` seconds."""
    got = b""
    async with httpx.AsyncClient(timeout=timeout) as http:
        with contextlib.suppress(httpx.RemoteProtocolError, httpx.ReadError, httpx.ReadTimeout):
            async with http.stream("POST", f"{fake.url}{CHAT}", json=body) as response:
                async for data in response.aiter_raw():
                    got += data
    return got


def split_events(body: bytes) -> list[bytes]:
    return body.removesuffix(b"\n\n").split(b"\n\n")


async def events_of(node: NodeClient, body: dict[str, Any]) -> list[str]:
    """The events of a stream up to where it breaks."""
    lines: list[str] = []
    try:
        async with node.http.stream("POST", CHAT, json=body, timeout=0.3) as response:
            async for line in response.aiter_lines():
                if line.startswith("data: "):
                    lines.append(line)
    except (httpx.RemoteProtocolError, httpx.ReadError, httpx.ReadTimeout) as error:
        lines.append(type(error).__name__)
    return lines


@pytest.mark.parametrize(
    ("kind", "end"),
    [("die", "RemoteProtocolError"), ("reset", "ReadError"), ("stall", "ReadTimeout"), ("error_event", "data: [DONE]")],
)
async def test_a_stream_breaks_after_k_events(kind: Any, end: str) -> None:
    async with serve_fake() as fake, node_client(fake.url) as node:
        fake.set_faults(Fault(kind, after=5, next=1))
        lines = await events_of(node, BODY)
        assert lines[-1] == end
        extra = 1 if kind == "error_event" else 0
        assert len(lines) == 5 + 1 + extra
        if extra:
            assert json.loads(lines[5][6:])["error"]["code"] == 500
        healed = await events_of(node, BODY)
        assert healed[-1] == "data: [DONE]"


@pytest.mark.parametrize("kind", ["die", "truncate"])
async def test_a_plain_body_ends_before_its_length(kind: Any) -> None:
    async with serve_fake() as fake:
        fake.set_faults(Fault(kind, size=7))
        head, _, body = (await read_all(fake, PLAIN)).partition(b"\r\n\r\n")
        length = int(head.split(b"content-length: ")[1].split(b"\r\n")[0])
        assert len(body) == (length - 7 if kind == "truncate" else length // 2)


async def test_statuses_and_the_zombie() -> None:
    async with serve_fake() as fake, node_client(fake.url) as node:
        fake.set_faults(Fault("status", status=503, seconds=2, next=2))
        for _ in range(2):
            answer = await node.post(CHAT, PLAIN)
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")
        assert (await node.post(CHAT, PLAIN)).status_code == 200
        fake.set_faults(Fault("zombie"))
        assert (await node.http.get("/health")).status_code == 200
        assert (await node.http.get("/v1/models")).status_code == 200
        error = (await node.post(CHAT, PLAIN)).json()["error"]
        assert error["message"] == "cannot schedule new futures after shutdown"
        anthropic = (await node.post("/v1/messages", {**PLAIN, "max_tokens": 9, "model": "x"})).json()
        assert anthropic["type"] == "error"


async def test_refuse_closes_the_port_and_the_control_route_stays() -> None:
    async with serve_fake() as fake, node_client(fake.url) as node, httpx.AsyncClient() as other:
        fake.set_faults(Fault("refuse"))
        await asyncio.sleep(0)
        with pytest.raises(httpx.ConnectError):
            await other.get(f"{fake.url}/health")
        shown = await other.get(f"{fake.control_url}/fake/control")
        assert shown.json()["faults"][0]["kind"] == "refuse"
        await other.post(f"{fake.control_url}/fake/control", json={"faults": []})
        await asyncio.sleep(0.01)
        assert (await other.get(f"{fake.url}/health")).status_code == 200
        assert (await node.http.get("/health")).status_code == 200


async def test_refuse_for_a_time() -> None:
    async with serve_fake() as fake, httpx.AsyncClient() as http:
        fake.set_faults(Fault("refuse", seconds=0.02))
        await asyncio.sleep(0.05)
        assert (await http.get(f"{fake.url}/health")).status_code == 200


async def test_exit_takes_the_whole_node_and_restart_brings_it_back_cold() -> None:
    async with serve_fake() as fake, node_client(fake.url) as node:
        await node.post(CHAT, PLAIN)
        fake.set_faults(Fault("exit", after=3))
        assert len(await events_of(node, BODY)) == 4
        await asyncio.wait_for(fake.exited.wait(), 20)
        with pytest.raises(httpx.ConnectError):
            await node.http.get("/health")
        await fake.restart()
        answer = (await node.post(CHAT, PLAIN)).json()
        assert answer["usage"]["prompt_tokens_details"]["cached_tokens"] == 0


async def test_hang_hits_what_its_scope_says() -> None:
    async with serve_fake() as fake, node_client(fake.url) as node:
        fake.set_faults(Fault("hang"))
        with pytest.raises(httpx.ReadTimeout):
            await node.http.post(CHAT, json=PLAIN, timeout=0.05)
        assert (await node.http.get("/health")).status_code == 200
        fake.set_faults(Fault("hang", scope="all"))
        with pytest.raises(httpx.ReadTimeout):
            await node.http.get("/health", timeout=0.05)


async def test_a_wedged_node_stops_the_streams_under_way_and_goes_on_when_healed() -> None:
    async with serve_fake(FakeSettings(rate=500)) as fake, node_client(fake.url) as node:
        task = asyncio.create_task(node.chat_stream(max_tokens=40))
        while not any(s.made for s in fake.node.engine.running):
            await asyncio.sleep(0.001)
        fake.set_faults(Fault("wedge", scope="all"))
        made = await paused(fake)
        with pytest.raises(httpx.ReadTimeout):
            await node.http.get("/health", timeout=0.05)
        assert await paused(fake) == made < 40
        late = asyncio.create_task(node.chat_stream(max_tokens=2))
        assert await paused(fake) == made
        fake.set_faults()
        assert [(await each).events[-1].data for each in (task, late)] == ["[DONE]"] * 2


async def test_garbage_and_a_reset_before_the_head() -> None:
    async with serve_fake() as fake:
        fake.set_faults(Fault("garbage"))
        assert not (await read_all(fake, PLAIN)).startswith(b"HTTP")
        fake.set_faults(Fault("reset", after=-1))
        with pytest.raises(ConnectionResetError):
            await read_all(fake, PLAIN)


async def test_an_answer_before_the_body_is_read() -> None:
    async with serve_fake() as fake:
        fake.set_faults(Fault("early"))
        reader, writer = await asyncio.open_connection(fake.settings.host, fake.port)
        writer.write(request(PLAIN)[:200])
        assert (await asyncio.wait_for(reader.read(), 20)).startswith(b"HTTP/1.1 413")
        writer.close()


async def test_a_slow_reader_of_bodies() -> None:
    async with serve_fake() as fake, node_client(fake.url) as node:
        fake.set_faults(Fault("slow_read", seconds=0.005))
        big = {"messages": [{"role": "user", "content": "x" * 2_000_000}], "max_tokens": 1}
        started = asyncio.get_running_loop().time()
        assert (await node.post(CHAT, big)).json()["error"]["param"] == "input_tokens"
        assert asyncio.get_running_loop().time() - started > 0.02


@pytest.mark.parametrize("kind", ["die", "reset", "eof", "stall", "exit"])
async def test_a_stream_breaks_within_an_event(kind: Any) -> None:
    async with serve_fake(FakeSettings(rate=500)) as fake:
        whole = split_events(await read_body(fake, BODY))
        fake.set_faults(Fault(kind, after=5, part=0.5))
        events = split_events(await read_body(fake, BODY, 0.5 if kind == "stall" else 20))
    assert len(events) == 6
    assert [len(event) for event in events[:5]] == [len(event) for event in whole[:5]]
    assert len(events[5]) == len(whole[5] + b"\n\n") // 2


async def test_a_body_that_ends_early_is_whole_http_without_the_streams_end() -> None:
    async with serve_fake() as fake, node_client(fake.url) as node:
        fake.set_faults(Fault("eof", after=5))
        got = await node.http.post(CHAT, json=BODY)
        assert got.status_code == 200
        assert len(split_events(got.content)) == 5
        assert b"[DONE]" not in got.content
        fake.set_faults()
        assert (await node.chat_stream()).events[-1].data == "[DONE]"


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
async def test_an_engine_gives_an_answer_up(path: str) -> None:
    body = {**PLAIN, "prompt": "Once", "stream_options": USAGE, "return_token_ids": True, "ignore_eos": True}
    async with serve_fake(FakeSettings(tokens_per_event=2)) as fake, node_client(fake.url) as node:
        fake.set_faults(Fault("abort", after=7))
        stream = await node.stream(path, body)
        plain = await node.ok(path, {**body, "stream_options": None})
    assert [c["finish_reason"] for chunk in stream.chunks for c in chunk["choices"] if c["finish_reason"]] == ["abort"]
    assert len(stream.token_ids()) == stream.chunks[-1]["usage"]["completion_tokens"] == 7
    assert stream.events[-1].data == "[DONE]"
    assert (plain["choices"][0]["finish_reason"], plain["usage"]["completion_tokens"]) == ("abort", 7)


async def test_the_other_dialects_tell_an_answer_that_was_given_up_as_they_do() -> None:
    async with serve_fake() as fake, node_client(fake.url) as node:
        fake.set_faults(Fault("abort", after=7))
        message = await node.stream("/v1/messages", {**PLAIN, "model": node.model, "max_tokens": 50})
        response = await node.ok("/v1/responses", {"input": "hi", "model": node.model})
    assert message.chunks[-2]["delta"]["stop_reason"] is None
    assert message.chunks[-2]["usage"]["output_tokens"] == 7
    assert (response["status"], response["usage"]["output_tokens"]) == ("completed", 7)


async def test_odd_cuts_joined_events_comments_and_crlf_change_no_event() -> None:
    async with serve_fake() as fake, node_client(fake.url) as node:
        whole = (await node.chat_stream()).joined("content")
        for fault in (Fault("split", size=7), Fault("coalesce", size=4), Fault("comments", size=3)):
            fake.set_faults(fault)
            assert (await node.chat_stream()).joined("content") == whole
        raw = await read_all(fake, BODY)
        assert raw.count(b": keep-alive\n\n") > 5
        fake.set_faults(Fault("crlf"))
        raw = await read_all(fake, BODY)
        assert raw.count(b"]}\r\n\r\n") > 5
        assert b"]}\n" not in raw


async def test_split_makes_many_writes_and_coalesce_few() -> None:
    async with serve_fake() as fake:
        sizes = {}
        for fault in (Fault("split", size=7), Fault("coalesce", size=1000)):
            fake.set_faults(fault)
            raw = await read_all(fake, BODY)
            sizes[fault.kind] = len(
                [li for li in raw.split(b"\r\n") if li and all(c in b"0123456789abcdef" for c in li)]
            )
        assert sizes["coalesce"] == 2
        assert sizes["split"] > 1000


async def test_a_client_that_leaves_is_counted_and_frees_its_place() -> None:
    async with serve_fake(FakeSettings(rate=100)) as fake, node_client(fake.url) as node:
        task = asyncio.create_task(node.post(CHAT, {**BODY, "max_tokens": 500}))
        while fake.running == 0:
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await asyncio.sleep(0.01)
        assert (fake.running, fake.aborted) == (0, 1)


async def test_stats_show_what_the_gateway_sent() -> None:
    async with serve_fake() as fake, node_client(fake.url) as node:
        await node.http.post(CHAT, json=PLAIN, headers={"x-test": "1"})
        stats = (await node.http.get("/fake/stats")).json()
        assert stats["last"]["headers"]["x-test"] == "1"
        assert stats["last"]["body"] == PLAIN
        assert stats["requests"] == {"/v1/models": 1, CHAT: 1}
        assert stats["connections"] == 1
        assert fake.last is not None
        assert fake.last.json == PLAIN


async def test_settings_change_while_it_runs_and_nonsense_is_refused() -> None:
    async with serve_fake() as fake, node_client(fake.url) as node:
        await node.post("/fake/control", {"settings": {"budget": "absent"}})
        refused = await node.post(CHAT, {**PLAIN, "thinking_token_budget": 5})
        assert refused.json()["error"]["message"].startswith("thinking_token_budget is set but reasoning_config")
        for wrong in ({"settings": {"port": 1}}, {"faults": [{"kind": "nope"}]}, {"add": [{"kind": "die", "x": 1}]}):
            assert (await node.post("/fake/control", wrong)).status_code == 400


async def test_slow_start_and_faults_from_the_settings() -> None:
    settings = FakeSettings(slow_start=3600, faults=(Fault("status", status=502),))
    async with serve_fake(settings) as fake, node_client(fake.url) as node:
        assert (await node.http.get("/health")).status_code == 503
        assert (await node.post(CHAT, PLAIN)).status_code == 502
    async with serve_fake(FakeSettings(slow_start=0.2)) as fake, node_client(fake.url) as node:
        while (await node.http.get("/health")).status_code != 200:
            await asyncio.sleep(0.01)


def test_flags_read_as_faults() -> None:
    assert parse_fault("die:after=5,next=10") == Fault("die", after=5, next=10)
    assert parse_fault("reset:after=3,part=0.5") == Fault("reset", after=3, part=0.5)
    assert parse_fault("503:next=3") == Fault("status", status=503, next=3)
    assert parse_fault("refuse:seconds=0.5") == Fault("refuse", seconds=0.5)
    with pytest.raises(ValueError, match="unknown"):
        parse_fault("nope")
    with pytest.raises(ValueError, match="unknown"):
        parse_fault("die:x=1")


async def test_a_slow_client_pauses_its_stream_and_nobody_elses() -> None:
    async with serve_fake(FakeSettings(max_model_len=10**6)) as fake, node_client(fake.url) as node:
        loop = asyncio.get_running_loop()
        with socket.socket() as sock:
            sock.setblocking(False)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            await loop.sock_connect(sock, (fake.settings.host, fake.port))
            await loop.sock_sendall(sock, request({**BODY, "max_tokens": 500_000, "ignore_eos": True}, ""))
            await paused(fake)
            assert (await node.post(CHAT, PLAIN)).status_code == 200
            made = await paused(fake)
            assert 0 < made < 500_000


async def paused(fake: FakeNode) -> int:
    """Waits until the running request makes no more tokens; how many it made."""
    made = -1
    while made != (made := sum(len(s.made) for s in fake.node.engine.running)) or made == 0:
        await asyncio.sleep(0.02)
    return made
