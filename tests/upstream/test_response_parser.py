"""The response parser: what it notes of an answer, however the bytes are cut."""

import itertools

import pytest

from gateway.upstream.response_parser import ResponseParser

OK = b"HTTP/1.1 200 OK\r\n"
LENGTH = OK + b"Content-Length: 5\r\n\r\nhello"
CHUNKED = OK + b"transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"


def parsed(*pieces: bytes) -> ResponseParser:
    parser = ResponseParser()
    for piece in pieces:
        assert parser.feed(piece)
    return parser


@pytest.mark.parametrize(
    ("answer", "complete", "until_eof", "keep_alive"),
    [
        (LENGTH, True, False, True),
        (CHUNKED, True, False, True),
        (OK + b"\r\nhello", False, True, False),
        (OK + b"connection: close\r\ncontent-length: 5\r\n\r\nhello", True, False, False),
        (b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n" + LENGTH, True, False, True),
    ],
    ids=["length", "chunked", "until the end of the connection", "close", "interim head"],
)
def test_framing_is_found_at_every_cut(answer: bytes, complete: bool, until_eof: bool, keep_alive: bool) -> None:
    for cut in range(1, len(answer)):
        parser = parsed(answer[:cut], answer[cut:])
        assert parser.head is not None and parser.head.status == 200
        assert b"link" not in dict(parser.head.headers)
        assert b"".join(parser.body) == b"hello"
        assert (parser.complete, parser.until_eof, parser.keep_alive) == (complete, until_eof, keep_alive)
        assert not parser.surplus


@pytest.mark.parametrize("behind", [b"x", LENGTH, b"\r\n\r\n" + OK])
def test_bytes_behind_an_answer_are_surplus(behind: bytes) -> None:
    parser = parsed(LENGTH + behind)
    assert parser.complete and parser.surplus
    assert b"".join(parser.body) == b"hello", "of the next answer nothing is noted"


@pytest.mark.parametrize("data", [b"no HTTP", b"HTTP/1.1 101 Switching\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n"])
def test_what_is_not_an_answer_is_refused(data: bytes) -> None:
    assert not ResponseParser().feed(data)


def test_between_two_chunks_at_their_boundaries_alone() -> None:
    """A chunk that comes alone is passed on without being parsed, so the parser must stand exactly between two."""
    head = CHUNKED[: CHUNKED.index(b"5\r\n")]
    first, second = b"3\r\na\r\n\r\n", b"2\r\nhi\r\n"
    boundaries = {len(first), len(first + second)}
    for at in range(1, len(first + second) + 1):
        parser = parsed(head, (first + second)[:at])
        assert parser.between_chunks is (at in boundaries), at
    assert not parsed(head, first, b"0\r\n").between_chunks
    assert not parsed(CHUNKED).between_chunks


def test_each_answer_is_parsed_afresh() -> None:
    parser = ResponseParser()
    for answer, _ in itertools.product((LENGTH, CHUNKED), range(2)):
        parser.reset()
        assert (parser.head, parser.body, parser.complete) == (None, [], False)
        assert parser.feed(answer) and parser.complete and not parser.surplus
