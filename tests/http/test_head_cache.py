"""A head that is known again is what the parser, asked in its place, would have found."""

from dataclasses import dataclass, field
from typing import Any

import httptools
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core.http.head_cache import HeadCache

REQUEST = b"POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\nContent-Length: %d\r\nauthorization: Bearer k\r\n\r\n%b"
ANSWER = b"HTTP/1.1 200 OK\r\ndate: Tue, 24 Nov 2026 22:46:50 GMT\r\ncontent-length: %d\r\nserver: x\r\n\r\n%b"


@dataclass
class Found:
    """What a parser finds. It notes the callbacks in their order, pieces of a body put together."""

    said: list[Any] = field(default_factory=list)
    body: bytes = b""

    def on_message_begin(self) -> None:
        self.said.append("begin")

    def on_url(self, url: bytes) -> None:
        self.said.append(url)

    def on_status(self, status: bytes) -> None:
        self.said.append(status)

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() != b"content-length":
            self.said.append((name, value))

    def on_headers_complete(self) -> None:
        self.said.append("head")

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        self.said.append("complete")


def parse(kind: Any, first: bytes, second: bytes) -> tuple[Found, Found]:
    """What one parser finds in two messages, one after the other."""
    both = (Found(), Found())
    now = [both[0]]

    class Switch:
        def __getattr__(self, name: str) -> Any:
            return lambda *arguments: getattr(now[0], name)(*arguments)

    parser = kind(Switch())
    parser.feed_data(first)
    now[0] = both[1]
    try:
        parser.feed_data(second)
    except httptools.HttpParserError:
        both[1].said.append("error")
    return both


CHANGES = st.lists(
    st.tuples(st.sampled_from(("put", "insert", "cut")), st.integers(0, 200), st.binary(min_size=1, max_size=3)),
    max_size=2,
)


def changed(data: bytes, changes: list[tuple[str, int, bytes]]) -> bytes:
    for what, at, piece in changes:
        at %= len(data) + 1
        data = data[:at] + (b"" if what == "cut" else piece) + data[at + (0 if what == "insert" else len(piece)) :]
    return data


@pytest.mark.parametrize(
    ("kind", "message"),
    [(httptools.HttpRequestParser, REQUEST), (httptools.HttpResponseParser, ANSWER)],
    ids=["request", "answer"],
)
@given(first=st.binary(max_size=40), second=st.binary(max_size=120), changes=CHANGES)
@settings(deadline=None, max_examples=400)
def test_a_familiar_message_is_what_the_parser_would_find(
    kind: Any, message: bytes, first: bytes, second: bytes, changes: list[tuple[str, int, bytes]]
) -> None:
    one, other = message % (len(first), first), changed(message % (len(second), second), changes)
    familiar = HeadCache.of(one, "known")
    assert familiar is not None
    body = familiar.body_in(other)
    if not changes:
        assert body == second
    if body is not None:
        before, after = parse(kind, one, other)
        assert after.said == before.said and after.body == body
        assert before.said[-1] == "complete" and before.body == first


@pytest.mark.parametrize(
    "data",
    [
        b"POST / HTTP/1.1\r\nhost: a\r\n\r\n",
        b"POST / HTTP/1.1\r\ncontent-length: 5\r\n\r\nhell",
        b"POST / HTTP/1.1\r\ncontent-length: 5\r\n\r\nhello!",
        b"POST / HTTP/1.1\r\ncontent-length: 5\r\nContent-Length: 5\r\n\r\nhello",
        b"POST / HTTP/1.1\r\ncontent-length: 5 \r\n\r\nhello",
        b"POST / HTTP/1.1\r\nx-content-length: 5\r\n\r\nhello",
        b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\ncontent-length: 5\r\n",
        b"",
    ],
)
def test_what_is_not_simply_as_long_as_it_says_is_not_kept(data: bytes) -> None:
    assert HeadCache.of(data, None) is None


@pytest.mark.parametrize("length", (b"", b"+5", b"-5", b" 5", b"5 ", b"0x5", b"5,5", b"\xd9", b"5\r\nx: y", b"1" * 17))
def test_only_plain_numbers_are_lengths(length: bytes) -> None:
    familiar = HeadCache.of(REQUEST % (5, b"hello"), None)
    assert familiar is not None
    head, _, rest = REQUEST.partition(b"%d")
    assert familiar.body_in(head + length + rest % b"hello") is None
    assert familiar.body_in(REQUEST % (5, b"hullo")) == b"hullo"
