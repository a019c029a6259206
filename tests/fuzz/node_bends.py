"""Ways to bend a node's answer: its JSON, its events, its head, its framing, its bytes."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from hypothesis import strategies as st

from tests.fuzz.node_shapes import RAW, Shape, answer_of

VALUES: list[Any] = [None, True, -1, 0, 1, 2**31, 2**63, 10**30, 1.5, "", "x", "</think>", "\x00\r\n\n", [], {}, [None]]
VALUES += [[[]], [1], {"a": None}, {"message": 5}, "error", "length", "abort", *RAW]
EVENTS = [
    *(b"\n", b"\n\n\n", b"data:\n\n", b"data: \n\n", b": c\n\n", b"\xef\xbb\xbf: c\n\n", b"data: x", b"\x00\n\n"),
    *(b"data: [DONE]\n\n", b"data: hello\n\n", b"data: null\n\n", b"data: []\n\n", b"data: {}\n\n", b"data: {\n\n"),
    *(b'data: {"choices":[]}\n\n', b'data: {"choices":\ndata: []}\n\n', b"data: \xff\xfe\n\n"),
    *(b'data: {"error":{"message":"x","code":500}}\n\n', b'data: {"error":"boom"}\n\n', b'data: {"error":[1]}\n\n'),
    *(b'event: error\ndata: {"type":"error","error":{"type":"x"}}\n\n', b"data: " + b"y" * 70_000 + b"\n\n"),
    *(b'data: {"usage":' + b"[" * 3000 + b"\n\n", b'data: {"usage":{"prompt_tokens":1e999}}\n\n'),
    b"event: x\nid: 1\nretry: 1\n\n",
]
STATUSES = [b"%d X" % status for status in (*range(0, 1000, 37), 100, 101, 103, 204, 205, 206, 301, 304, 307, 600, 999)]
STATUSES += [b"%d X" % status for status in (400, 401, 404, 413, 422, 429, 500, 502, 503, 504) for _ in range(4)]
WAITS = (b"1", b"0", b"-5", b"1e9", b"nan", b"9" * 400, b"99999999999", b"Mon, 01 Jan 2035 00:00:00 GMT")
HEADERS = [
    *(b"set-cookie: a=b", b"location: http://127.0.0.1/", b"www-authenticate: Basic", b"x-node: 1"),
    *(b"retry-after: " + value for value in WAITS),
    *(b"retry-after-ms: 99999999999", b"content-encoding: gzip", b"content-encoding: identity"),
    *(b"content-type: a\x7fb", b"content-type: text/event-stream", b"transfer-encoding: chunked"),
    *(b"transfer-encoding: gzip", b"content-length: 5", b"content-length: 0", b"content-length: -1", b"x: a\rb"),
    *(b"x: \x00", b"x : y", b" folded", b"upgrade: h2c", b"x-fleetgate-max-tokens: 1", b"x: " + b"y" * 70_000),
    *(b"trailer: x", b"keep-alive: timeout=1", b"connection: close"),
]
PIECES = [b"\r\n", b"\n\n", b"\r", b"\x00", b"0\r\n\r\n", b"data: ", b"HTTP/1.1 200 OK\r\n\r\n", b"ffffffff\r\n"]
PIECES += [
    b"HTTP/1.1 103 E\r\n\r\n",
    b":",
    b"\xff\xfe",
    b"{",
    b"}",
    b'"usage"',
    b'"error"',
    b"event: error\n",
    b"1" * 400,
]
FRAMINGS = ["length"] * 4 + ["chunks"] * 6 + ["close", "short", "long", "bad size", "no end", "twice"]

Bend = Callable[[str, dict[str, Any]], tuple[list[bytes], bool]]


@st.composite
def bent_answers(draw: st.DrawFn) -> Bend:
    """A way to answer badly: what it is given is the request, so that it fits every dialect and mode."""
    at = st.floats(0, 1)
    values = draw(st.lists(st.tuples(at, at, st.sampled_from(VALUES)), max_size=3))
    events = draw(st.lists(st.tuples(at, st.sampled_from(["drop", "double", "last", *EVENTS])), max_size=3))
    end = draw(st.sampled_from([b"\n"] * 6 + [b"\r\n", b"\r"]))
    status = draw(st.sampled_from(STATUSES)) if draw(st.integers(0, 5)) == 1 else b"200 OK"
    headers = draw(st.lists(st.sampled_from(HEADERS), max_size=2)) if draw(st.integers(0, 3)) == 0 else []
    framing = draw(st.sampled_from(FRAMINGS))
    size = draw(st.sampled_from([1, 3, 17, 400, 4096, 10**6, 10**6, 10**6]))
    edits = draw(st.lists(st.tuples(at, st.sampled_from(["cut", "drop", *PIECES])), max_size=2))
    edits = edits if draw(st.integers(0, 2)) == 0 else []
    close = draw(st.integers(0, 29)) > 0

    def bend(path: str, asked: dict[str, Any]) -> tuple[list[bytes], bool]:
        shape = answer_of(path, asked)
        documents = [
            _twisted(document, values, at / len(shape.documents)) for at, document in enumerate(shape.documents)
        ]
        shape = replace(shape, documents=_shuffled(documents, events) if shape.stream else documents)
        whole = _framed(shape, status, headers, framing, shape.body(end), size)
        for where, what in edits:
            index = int(where * len(whole))
            rest = {"cut": b"", "drop": whole[index + 9 :]}.get(str(what), whole[index:])
            whole = whole[:index] + (what if isinstance(what, bytes) else b"") + rest
        step = max(size, len(whole) // 400 + 1)
        return [whole[index : index + step] for index in range(0, len(whole), step)], close

    return bend


def _twisted(document: Any, values: list[tuple[float, float, Any]], position: float) -> Any:
    """The document with some of `values` in it: each in one place of one part of the answer."""
    for where, place, value in values:
        if abs(where - position) < 0.2 and not isinstance(document, bytes):
            document = json.loads(json.dumps(document))
            places = list(_places(document))
            if not places:
                return value
            holder, key = places[int(place * (len(places) - 1))]
            holder[key] = value
    return document


def _places(document: Any) -> Iterator[tuple[Any, Any]]:
    if not isinstance(document, dict | list):
        return
    for key, value in list(document.items() if isinstance(document, dict) else enumerate(document)):
        yield document, key
        yield from _places(value)


def _shuffled(documents: list[Any], events: list[tuple[float, Any]]) -> list[Any]:
    documents = list(documents)
    for where, what in events:
        index = int(where * len(documents))
        if what == "drop":
            del documents[index : index + 1]
        elif what == "double":
            documents[index:index] = documents[index : index + 1]
        elif what == "last":
            documents = documents[:index]
        else:
            documents.insert(index, what)
    return documents


def _framed(shape: Shape, status: bytes, headers: list[bytes], framing: str, body: bytes, size: int) -> bytes:
    lines = [shape.head(status, headers)]
    lengths = {"length": len(body), "short": len(body) // 2, "long": len(body) + 9, "twice": len(body)}
    if framing in lengths:
        lines.append(b"content-length: %d" % lengths[framing])
        whole = b"\r\n".join(lines) + b"\r\n\r\n" + body
        return whole * 2 if framing == "twice" else whole
    if framing == "close":
        return b"\r\n".join(lines) + b"\r\n\r\n" + body
    lines.append(b"transfer-encoding: chunked")
    step = max(size, len(body) // 2000 + 1)
    pieces = [body[index : index + step] for index in range(0, len(body), step)]
    chunks = [b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces]
    if framing == "bad size":
        chunks.insert(len(chunks) // 2, b"zz\r\n")
    return b"\r\n".join(lines) + b"\r\n\r\n" + b"".join(chunks) + (b"" if framing == "no end" else b"0\r\n\r\n")
