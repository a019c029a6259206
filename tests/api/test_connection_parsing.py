"""Where each request of a connection begins and ends: the same for every way to cut its bytes into reads.

What is found is compared with what the bytes were made of, and with h11, a parser that shares no code with ours.
"""

import asyncio
import itertools
from dataclasses import dataclass, field
from typing import Any, cast

import h11
import httptools
import pytest
import uvicorn
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gateway.api.body import BodyLimits, RequestBounds
from gateway.api.connection_bounds import ConnectionBounds
from gateway.api.listener_settings import ListenerSettings
from gateway.api.middleware import Middleware
from gateway.api.protocol import GatewayProtocol
from gateway.api.request_head import Endpoint, RequestHead
from gateway.core.dialects import DIALECTS

PATH = "/v1/chat/completions"
SMUGGLED = b"GET /smuggled HTTP/1.1\r\nhost: e\r\n\r\n"
MAX_HEADERS = 4096
Found = tuple[str, str, bytes]


class Request:
    """Notes its body, and answers when it is whole and all requests before it are answered."""

    keep_alive = True

    def __init__(self, edge: "Recorder", connection: Any, head: RequestHead, body: bytes | None) -> None:
        self.edge, self.connection, self.head = edge, connection, head
        self.begun = self.started = False
        self.body = body or b""
        self.whole = body is not None

    def begin(self) -> None:
        self.begun = True
        self.proceed()

    def proceed(self) -> None:
        if self.whole and not self.started:
            self.started = True
            self.edge.found.append((self.head.method, self.head.path, self.body))
            self.connection.transport.write(b"answer")
            if not self.head.keep_alive:
                self.connection.transport.close()
            self.connection.answered()

    def feed(self, piece: bytes) -> None:
        self.body += piece

    def end_of_body(self) -> None:
        self.whole = True

    def on_gone(self) -> None: ...

    def on_full(self) -> None: ...

    def on_writable(self) -> None: ...


async def nowhere(scope: object, receive: object, send: object) -> None: ...


@dataclass
class Recorder:
    """Stands for the front door: every request is its own, and noted."""

    found: list[Found] = field(default_factory=list)
    middleware: Middleware = field(default_factory=lambda: Middleware(nowhere))

    def find(self, head: RequestHead) -> Endpoint:
        return Endpoint(DIALECTS[0])

    def open(self, connection: Any, endpoint: Endpoint, head: RequestHead, body: bytes | None) -> Request:
        return Request(self, connection, head, body)


class Wire(asyncio.Transport):
    """Notes what was written, and whether it was closed."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[bytes] = []
        self.closed = self.paused = False

    def write(self, data: Any) -> None:
        self.written.append(bytes(data))

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    def can_write_eof(self) -> bool:
        return False

    def get_write_buffer_size(self) -> int:
        return 0

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default


class Loop:
    """Callbacks of one connection, run when asked; its timers never go off."""

    def __init__(self) -> None:
        self.soon: list[Any] = []

    def call_soon(self, what: Any, *arguments: Any) -> Any:
        self.soon.append(lambda: what(*arguments))
        return self

    def call_later(self, delay: float, what: Any, *arguments: Any) -> Any:
        return self

    def cancel(self) -> None: ...

    def time(self) -> float:
        return 0.0

    def run(self) -> None:
        while self.soon:
            self.soon.pop(0)()


CONFIG = uvicorn.Config(cast(Any, lambda: None), http=GatewayProtocol, ws="none", lifespan="off", log_config=None)
CONFIG.load()


def read(pieces: list[bytes]) -> tuple[list[Found], bool, list[bytes]]:
    """What one connection finds in these reads, whether it is closed then, and what it wrote."""
    recorder, loop, wire = Recorder(), Loop(), Wire()
    edge = ListenerSettings(
        admin_port=None,
        connections=ConnectionBounds(10, 10, ()),
        admin_connections=ConnectionBounds(10, 10, ()),
        max_headers=MAX_HEADERS,
        headers_timeout=30,
        client_stall=30,
        bounds=RequestBounds(BodyLimits(1 << 20, 30, 1000, 1 << 20, memory=1 << 26)),
        tls=None,
        dispatcher=cast(Any, recorder),
        on_shutdown=lambda: None,
    )
    connection = GatewayProtocol(
        CONFIG, uvicorn.Server(CONFIG).server_state, {"listener_settings": edge}, cast(Any, loop)
    )
    connection.connection_made(wire)
    for piece in pieces:
        connection.data_received(piece)
        loop.run()
        assert not wire.paused or wire.closed, "nobody would read what follows"
    closed = wire.closed
    connection.connection_lost(None)
    return recorder.found, closed, wire.written


def cut(data: bytes, places: list[int]) -> list[bytes]:
    at = sorted({place % (len(data) + 1) for place in places} | {0, len(data)})
    return [data[a:b] for a, b in itertools.pairwise(at)]


OFFERS = (
    b"",
    b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA\r\n",
    b"upgrade: websocket\r\nconnection: keep-alive, upgrade\r\n",
    b"upgrade: h2c\r\n",
    b"connection: upgrade\r\n",
)
BODIES = st.one_of(
    st.binary(max_size=40),
    st.sampled_from(
        (b"", b"{}", SMUGGLED, b"\r\nupgrade:" * 5, b"\r\n\r\n" * 4, b"0\r\n\r\n" + SMUGGLED, b'{"a": 1}\r\n')
    ),
)


@st.composite
def requests(draw: Any) -> tuple[bytes, Found]:
    """A request's bytes, and what they say."""
    offer, body = draw(st.sampled_from(OFFERS)), draw(BODIES)
    method = draw(st.sampled_from(("POST", "GET", "PUT", "OPTIONS")))
    framing = draw(st.sampled_from(("length", "chunked", "none")))
    lines = [b"host: gateway\r\n", offer, b"x-pad: %b\r\n" % (b"y" * draw(st.integers(0, 9)))]
    if framing == "none":
        body, rest = b"", b""
    elif framing == "length":
        lines.append(b"content-length: %d\r\n" % len(body))
        rest = body
    else:
        lines.append(b"Transfer-Encoding: chunked\r\n")
        pieces = cut(body, draw(st.lists(st.integers(0, 40), max_size=3)))
        extension = draw(st.sampled_from((b"", b";a=b", b';upgrade="h2c"')))
        trailers = draw(st.sampled_from((b"", b"x-t: 1\r\n", b"connection: upgrade\r\nupgrade: h2c\r\n")))
        chunks = b"".join(b"%x%b\r\n%b\r\n" % (len(piece), extension, piece) for piece in pieces)
        rest = chunks + b"0%b\r\n%b\r\n" % (extension, trailers)
    lines = draw(st.permutations(lines))
    head = b"%b %b HTTP/1.1\r\n%b\r\n" % (method.encode(), PATH.encode(), b"".join(lines))
    return head + rest, (method, PATH, body)


REFUSED = (
    b"NOT HTTP\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    b"CONNECT a:1 HTTP/1.1\r\nhost: a\r\n\r\n",
    b"CONNECT a:1 HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\n{}",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"GET / HTTP/2.0\r\nhost: a\r\n\r\n",
    b"GET /\r\n\r\n",
    b"GET / HTTP/1.1\r\n\r\n",
    b"GET / HTTP/1.1\r\nhost: a\r\nhost: a\r\n\r\n",
    b"GET / HTTP/1.1\r\nhost: a, b\r\n\r\n",
    b"GET / HTTP/1.1\r\nhost: a/b\r\n\r\n",
    b"GET / HTTP/1.1\r\nhost: [\r\n\r\n",
    b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: +5\r\n\r\n12345",
    b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: -1\r\n\r\n",
    b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1, 1\r\n\r\n1",
    b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n12",
    b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: " + b"9" * 3000 + b"\r\n\r\n1",
    b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: " + b"0" * 3000 + b"1\r\n\r\n1",
    b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\ncontent-length: 1\r\n\r\n0\r\n\r\n",
    b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    b"POST / HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    b"POST / HTTP/1.1\r\nhost: a\r\nupgrade: h2c\r\nconnection: upgrade\r\ncontent-length: 1\r\n"
    b"transfer-encoding: chunked\r\n\r\n",
    b"GET / HTTP/1.1\r\nhost: a\r\nx: " + b"y" * MAX_HEADERS + b"\r\n\r\n",
    b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n0\r\nx: " + b"y" * MAX_HEADERS + b"\r\n\r\n",
    b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n1;"
    + b"y" * 2 * MAX_HEADERS
    + b"\r\n1\r\n0\r\n\r\n",
)
SPLITS = st.lists(st.integers(0, 2000), max_size=6)


def ends_of(data: bytes) -> list[Found]:
    """The requests that h11 finds."""
    server = h11.Connection(h11.SERVER)
    server.receive_data(data)
    found: list[Found] = []
    while True:
        event = server.next_event()
        if event is h11.NEED_DATA:
            return found
        if isinstance(event, h11.Request):
            found.append((event.method.decode(), event.target.decode(), b""))
        elif isinstance(event, h11.Data):
            method, path, body = found[-1]
            found[-1] = (method, path, body + bytes(event.data))
        elif isinstance(event, h11.EndOfMessage):
            server.send(h11.Response(status_code=200, headers=[("content-length", "0")]))
            server.send(h11.EndOfMessage())
            server.start_next_cycle()


@settings(deadline=None, max_examples=150)
@given(st.lists(requests(), min_size=1, max_size=4), SPLITS)
def test_every_split_finds_the_requests_that_were_sent_and_so_does_h11(
    sent: list[tuple[bytes, Found]], splits: list[int]
) -> None:
    data, expected = b"".join(raw for raw, _ in sent), [found for _, found in sent]
    assert ends_of(data) == expected
    for pieces in (cut(data, splits), [data], [raw for raw, _ in sent]):
        assert read(pieces)[:2] == (expected, False)


@settings(deadline=None, max_examples=150)
@given(st.lists(requests(), max_size=2), st.sampled_from(REFUSED), SPLITS)
def test_what_is_no_request_is_refused_after_those_before_it(
    sent: list[tuple[bytes, Found]], bad: bytes, splits: list[int]
) -> None:
    data = b"".join(raw for raw, _ in sent) + bad
    found, closed, written = read(cut(data + SMUGGLED, [*splits, *range(0, len(data), 499)]))
    assert (found, closed) == ([found for _, found in sent], True)
    assert written[: len(sent)] == [b"answer"] * len(sent)
    assert written[-1].split()[1] in (b"400", b"405", b"431")
    assert len(written) == len(sent) + 1


@pytest.mark.parametrize("bad", REFUSED)
def test_nothing_behind_a_refusal_is_read(bad: bytes) -> None:
    found, closed, written = read(cut(bad + SMUGGLED, list(range(0, len(bad), 2999))))
    assert (found, closed, len(written)) == ([], True, 1)


HEAD = b"POST %b HTTP/1.1\r\nhost: a\r\n%bcontent-length: %d\r\n\r\n"
JAVA = OFFERS[1]


@pytest.mark.parametrize("offer", [b"", JAVA])
@pytest.mark.parametrize("body", [b"{}" * 20, SMUGGLED, b'{"x": 1' + b"\r\nupgrade:" * 12 + b"\r\n" + SMUGGLED])
@pytest.mark.parametrize("primed", [False, True])
def test_a_request_cut_anywhere_is_one_request(offer: bytes, body: bytes, primed: bool) -> None:
    """Every place, also byte by byte; its head known from the request before, or not; another request behind it."""
    data = HEAD % (PATH.encode(), offer, len(body)) + body
    behind = b"GET /behind HTTP/1.1\r\nhost: a\r\n\r\n"
    first = [HEAD % (PATH.encode(), offer, 2) + b"{}"] if primed else []
    expected: list[Found] = [("POST", PATH, b"{}")] * primed + [("POST", PATH, body), ("GET", "/behind", b"")]
    for at in range(1, len(data) + 1):
        assert read([*first, data[:at], data[at:] + behind])[:2] == (expected, False)
    assert read([*first, *(data[at : at + 1] for at in range(len(data))), behind])[:2] == (expected, False)
    assert read([b"\r\n\r\n", *first, data, b"\r\n", behind])[:2] == (expected, False)


@settings(deadline=None, max_examples=150)
@given(
    st.sampled_from((b"content-length: %d\r\n", b"Content-Length:\t%d\r\n", b"x: y\r\ncontent-length:%d\r\n")),
    st.lists(
        st.tuples(
            st.sampled_from(("put", "insert", "cut")),
            st.integers(0, 200),
            st.sampled_from(list(b"\r\n\t :;,0195upgradeUTx")),
        ),
        max_size=3,
    ),
    st.sampled_from((b"{}", b"{}\r\n\r\n", SMUGGLED)),
)
def test_a_head_that_is_known_says_what_the_parser_says(
    line: bytes, changes: list[tuple[str, int, int]], body: bytes
) -> None:
    """A head that was seen, changed in a few bytes: with it in the cache and without, the same is found."""
    head = b"POST %b HTTP/1.1\r\nhost: a\r\n%b\r\n" % (PATH.encode(), line)
    data = head % len(body) + body
    for what, at, byte in changes:
        at %= len(data)
        data = data[:at] + (b"" if what == "cut" else bytes([byte])) + data[at + (0 if what == "insert" else 1) :]
    primer = head % 2 + b"{}"
    found, closed, written = read([primer, data])
    alone, closed_alone, written_alone = read([data])
    assert (found[1:], closed) == (alone, closed_alone)
    assert [piece[:13] for piece in written[1:]] == [piece[:13] for piece in written_alone]


@settings(deadline=None, max_examples=100)
@example(b"\r\nupgrade:")
@given(st.binary(max_size=60))
def test_one_parser_alone_agrees_about_bytes_of_any_kind(noise: bytes) -> None:
    """llhttp, fed without our cuts, takes what we take; where it refuses, so do we."""
    data = b"GET /a HTTP/1.1\r\nhost: a\r\n\r\n" + noise

    class Count:
        ends = 0

        def on_message_complete(self) -> None:
            self.ends += 1

    count, refused = Count(), False
    parser = httptools.HttpRequestParser(count)
    parser.set_dangerous_leniencies(lenient_data_after_close=True)
    try:
        parser.feed_data(data)
    except httptools.HttpParserError:
        refused = True
    found, closed, _ = read(cut(data, list(range(0, len(data), 3))))
    assert len(found) <= count.ends
    assert closed or not refused


def test_a_read_of_thousands_of_requests_is_worked_off() -> None:
    """One read of thousands: worked off in shares, all of them in the end."""
    data = (HEAD % (PATH.encode(), b"", 2) + b"{}") * 3000
    found, closed, _ = read([data])
    assert (len(found), closed) == (3000, False)


def test_a_request_that_is_the_last_by_its_own_words_is_the_last() -> None:
    data = b"GET /a HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n"
    assert read([data + SMUGGLED])[:2] == ([("GET", "/a", b"")], True)
    assert read([data, SMUGGLED])[:2] == ([("GET", "/a", b"")], True)
