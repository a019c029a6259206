"""The upstream connection without a network: answers whole, byte by byte, cut anywhere, with bytes behind them."""

import asyncio
import itertools
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core.errors import BadUpstreamResponse, StaleConnection, UpstreamCut, UpstreamError
from gateway.upstream.connection import MAX_QUIET_BYTES, UpstreamConnection
from gateway.upstream.response_parser import ResponseHead


class Wire(asyncio.Transport):
    """A transport that only remembers."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.closed = False
        self.reading = True
        self.unsent = 0

    def write(self, data: Any) -> None:
        self.written += bytes(data)

    def writelines(self, list_of_data: Any) -> None:
        self.written += b"".join(list_of_data)

    def is_closing(self) -> bool:
        return self.closed

    def abort(self) -> None:
        self.closed = True

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def get_write_buffer_size(self) -> int:
        return self.unsent


@dataclass
class Heard:
    """A receiver that writes down what it is told."""

    head: ResponseHead | None = None
    body: bytes = b""
    chunks: int = 0
    ends: int = 0
    errors: list[UpstreamError] = field(default_factory=list)

    def on_head(self, head: ResponseHead) -> None:
        assert self.head is None, "one head"
        self.head = head

    def on_chunk(self, chunk: bytes, data: bytes) -> None:
        assert chunk == b"%x\r\n%b\r\n" % (len(data), data)
        self.chunks += 1
        self.on_data(data)

    def on_data(self, data: bytes) -> None:
        assert self.head is not None, "head before body"
        assert not self.over, "nothing after the end"
        self.body += data

    def on_end(self) -> None:
        assert not self.over
        self.ends += 1

    def on_error(self, error: UpstreamError) -> None:
        assert not self.over
        self.errors.append(error)

    def on_broken(self, error: Exception) -> None:
        raise error

    @property
    def over(self) -> bool:
        return self.ends > 0 or len(self.errors) > 0


@dataclass
class Talk:
    """A connection with a request on it."""

    connection: UpstreamConnection
    wire: Wire
    heard: Heard
    freed: list[UpstreamConnection]

    def again(self) -> Heard:
        self.heard = Heard()
        self.connection.send((b"next",), self.heard)
        return self.heard


def talk() -> Talk:
    freed: list[UpstreamConnection] = []
    connection = UpstreamConnection(freed.append)
    wire = Wire()
    connection.connection_made(wire)
    heard = Heard()
    connection.send((b"POST / HTTP/1.1\r\n\r\n", b"body"), heard)
    return Talk(connection, wire, heard, freed)


LENGTH = b"HTTP/1.1 200 OK\r\nContent-Type: a/b\r\nContent-Length: 5\r\n\r\nhello"
CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nhel\r\n2;x=y\r\nlo\r\n0\r\ntrailer: z\r\n\r\n"
INTERIM = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n" + LENGTH
WHOLE = {"length": LENGTH, "chunked": CHUNKED, "interim": INTERIM}
EMPTY = {
    "no content": b"HTTP/1.1 204 No Content\r\n\r\n",
    "zero length": b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
    "zero chunks": b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
}


@pytest.mark.parametrize("answer", WHOLE.values(), ids=WHOLE)
@given(cuts=st.lists(st.integers(0, 200), max_size=6))
@settings(deadline=None)
def test_every_way_to_cut_an_answer_gives_the_same(answer: bytes, cuts: list[int]) -> None:
    case = talk()
    places = [0, *sorted(min(cut, len(answer)) for cut in cuts), len(answer)]
    for start, end in itertools.pairwise(places):
        if start != end:
            case.connection.data_received(answer[start:end])
    assert (case.heard.body, case.heard.ends, case.heard.errors) == (b"hello", 1, [])
    assert case.heard.head is not None and case.heard.head.status == 200
    assert case.freed == [case.connection] and case.connection.usable


@pytest.mark.parametrize("answer", [*WHOLE.values(), *EMPTY.values()], ids=[*WHOLE, *EMPTY])
def test_byte_by_byte_and_then_the_next_exchange(answer: bytes) -> None:
    case = talk()
    for _ in range(2):
        for at in range(len(answer)):
            case.connection.data_received(answer[at : at + 1])
        assert case.heard.ends == 1
        case.again()


@pytest.mark.parametrize("answer", WHOLE.values(), ids=WHOLE)
@pytest.mark.parametrize("behind", [b"x", LENGTH, b"\r\n\r\nHTTP/1.1 200 OK\r\n"])
def test_bytes_behind_an_answer_end_the_connection(answer: bytes, behind: bytes) -> None:
    """Nobody asked for them: kept, they would be taken for the next request's answer."""
    case = talk()
    case.connection.data_received(answer + behind)
    assert (case.heard.body, case.heard.ends) == (b"hello", 1)
    assert case.wire.closed and case.freed == []


def test_bytes_on_an_idle_connection_end_it() -> None:
    case = talk()
    case.connection.data_received(LENGTH)
    case.connection.data_received(LENGTH)
    assert case.wire.closed and not case.connection.usable


@pytest.mark.parametrize("answer", WHOLE.values(), ids=WHOLE)
def test_an_answer_cut_short_is_never_whole(answer: bytes) -> None:
    for length in range(len(answer)):
        for exc in (None, ConnectionResetError()):
            case = talk()
            if length:
                case.connection.data_received(answer[:length])
            case.connection.connection_lost(exc)
            assert case.heard.ends == 0
            assert [type(error) for error in case.heard.errors] == [UpstreamCut]


def test_an_event_in_a_read_of_its_own_is_told_as_the_chunk_that_it_is() -> None:
    head, *chunks = (
        CHUNKED.replace(b";x=y", b"").split(b"\r\n\r\n", 1)[0] + b"\r\n\r\n",
        b"3\r\nhel\r\n",
        b"2\r\nlo\r\n",
    )
    case = talk()
    case.connection.data_received(head)
    case.connection.data_received(chunks[0])  # the parser is asked until it stands between two chunks
    assert case.heard.chunks == 0
    case.connection.data_received(chunks[1])
    case.connection.data_received(chunks[0])
    assert case.heard.chunks == 2
    case.connection.data_received(b"0\r\n\r\n")
    assert (case.heard.body, case.heard.ends, case.heard.errors) == (b"hellohel", 1, [])
    assert case.connection.usable


@given(sizes=st.lists(st.integers(1, 400), min_size=1, max_size=8), cuts=st.lists(st.integers(0, 4000), max_size=12))
@settings(deadline=None)
def test_chunks_that_look_like_chunks_inside_are_told_right_at_every_cut(sizes: list[int], cuts: list[int]) -> None:
    """A read that begins inside of a chunk may look like a whole one."""
    data = [(b"3\r\nhel\r\n" * 50)[:size] for size in sizes]
    wire = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in data)
    case = talk()
    case.connection.data_received(CHUNKED.split(b"\r\n\r\n")[0] + b"\r\n\r\n")
    places = sorted({0, len(wire), *(min(cut, len(wire)) for cut in cuts)})
    for start, end in itertools.pairwise(places):
        case.connection.data_received(wire[start:end])
    case.connection.data_received(b"0\r\n\r\n")
    assert (case.heard.body, case.heard.ends, case.heard.errors) == (b"".join(data), 1, [])


def test_a_body_that_ends_with_the_connection() -> None:
    head = b"HTTP/1.1 200 OK\r\ncontent-type: a/b\r\n\r\n"
    whole, cut = talk(), talk()
    for case, exc in ((whole, None), (cut, ConnectionResetError())):
        case.connection.data_received(head + b"hel")
        case.connection.data_received(b"lo")
        case.connection.connection_lost(exc)
    assert (whole.heard.body, whole.heard.ends, whole.freed) == (b"hello", 1, [])
    assert isinstance(cut.heard.errors[0], UpstreamCut)


def test_a_kept_connection_that_closes_before_a_byte_is_stale() -> None:
    case = talk()
    case.connection.data_received(LENGTH)
    heard = case.again()
    case.connection.connection_lost(None)
    assert isinstance(heard.errors[0], StaleConnection)


def test_a_kept_connection_that_closes_after_a_byte_is_cut() -> None:
    case = talk()
    case.connection.data_received(LENGTH)
    heard = case.again()
    case.connection.data_received(b"H")
    case.connection.connection_lost(None)
    assert isinstance(heard.errors[0], UpstreamCut)


def test_connection_close_is_obeyed() -> None:
    case = talk()
    case.connection.data_received(LENGTH.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
    assert case.heard.ends == 1 and case.wire.closed and case.freed == []


def test_an_answer_before_the_request_was_sent_ends_the_connection() -> None:
    case = talk()
    case.wire.unsent = 1
    case.connection.data_received(LENGTH)
    assert case.heard.ends == 1 and case.wire.closed and case.freed == []


@pytest.mark.parametrize(
    "smuggled",
    [
        b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\ncontent-length: 5, 5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\ncontent-length: +5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n-1\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5 \r\nhello\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello!!",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nfffffffffffffffff\r\n",
        b"HTTP/1.1 200 OK\nfoo : bar\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
        b"HTTP/9.9 200 OK\r\n\r\n",
        b"SSH-2.0-OpenSSH\r\n",
        b"\x16\x03\x01\x02\x00\x01",
        b"GET / HTTP/1.1\r\n\r\n",
    ],
)
def test_what_is_not_certain_is_refused(smuggled: bytes) -> None:
    case = talk()
    case.connection.data_received(smuggled)
    assert case.wire.closed and case.heard.ends == 0
    assert isinstance(case.heard.errors[0], BadUpstreamResponse)


@pytest.mark.parametrize(
    "start",
    [
        b"HTTP/1.1 200 OK\r\nx: ",
        b"HTTP/1.1 200 ",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5;",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\nx: ",
    ],
)
def test_heads_and_trailers_without_end_are_bounded(start: bytes) -> None:
    case = talk()
    case.connection.data_received(start)
    for _ in range(MAX_QUIET_BYTES // 1000 + 2):
        if case.wire.closed:
            break
        case.connection.data_received(b"a" * 1000)
    assert case.wire.closed
    assert isinstance(case.heard.errors[0], BadUpstreamResponse)


def test_endless_interim_heads_are_bounded() -> None:
    case = talk()
    while not case.wire.closed:
        case.connection.data_received(b"HTTP/1.1 100 Continue\r\n\r\n" * 100)
    assert isinstance(case.heard.errors[0], BadUpstreamResponse)


@given(noise=st.lists(st.binary(min_size=1, max_size=300), max_size=8))
@settings(deadline=None, max_examples=300)
def test_garbage_never_crashes_and_never_passes_for_an_answer(noise: list[bytes]) -> None:
    case = talk()
    for piece in noise:
        case.connection.data_received(piece)
    case.connection.connection_lost(None)
    assert case.heard.over
    assert case.heard.ends == 0 or case.heard.head is not None


@given(
    at=st.integers(0, len(CHUNKED) - 1), byte=st.integers(0, 255), answer=st.sampled_from([LENGTH, CHUNKED, INTERIM])
)
@settings(deadline=None, max_examples=500)
def test_one_wrong_byte_never_hangs_or_crashes(at: int, byte: int, answer: bytes) -> None:
    bent = bytearray(answer)
    bent[at % len(bent)] = byte
    case = talk()
    case.connection.data_received(bytes(bent))
    case.connection.connection_lost(None)
    assert case.heard.over


def test_abort_from_within_tells_the_receiver_nothing_more() -> None:
    case = talk()

    class Leaves(Heard):
        def on_head(self, head: ResponseHead) -> None:
            case.connection.abort()

    leaver = Leaves()
    case.connection.data_received(LENGTH)
    case.connection.send((b"next",), leaver)
    case.connection.data_received(LENGTH)
    assert leaver.body == b""
    assert case.wire.closed
    assert not leaver.over


def test_pause_is_taken_back_before_the_connection_is_kept() -> None:
    case = talk()
    case.connection.pause()
    assert not case.wire.reading
    case.connection.data_received(LENGTH)
    assert case.freed == [case.connection]
    assert [case.wire.reading] == [True]


def test_only_one_exchange_at_a_time() -> None:
    case = talk()
    with pytest.raises(RuntimeError):
        case.connection.send((b"",), Heard())


def outcome(case: Talk) -> object:
    """What has been heard, what was freed, and whether the connection still stands."""
    heard = case.heard
    fields = None if heard.head is None else [item for item in heard.head.headers if item[0] != b"content-length"]
    errors = [type(error) for error in heard.errors]
    return heard.body, heard.ends, errors, fields, len(case.freed), case.wire.closed, case.connection.usable


@given(
    body=st.binary(max_size=30),
    at=st.integers(0, 99),
    bent=st.one_of(st.none(), st.binary(min_size=1, max_size=2)),
    cut=st.one_of(st.none(), st.integers(1, 80)),
)
@settings(deadline=None, max_examples=400)
def test_an_answer_that_begins_as_the_last_one_did_is_told_as_any(
    body: bytes, at: int, bent: bytes | None, cut: int | None
) -> None:
    answer = LENGTH.replace(b"5\r\n\r\nhello", b"%d\r\n\r\n%b" % (len(body), body))
    if bent is not None:
        answer = answer[:at] + bent + answer[at + len(bent) :]
    outcomes = []
    for remembers in (True, False):
        case = talk()
        case.connection.data_received(LENGTH)
        assert case.connection._head_cache.familiar is not None
        if not remembers:
            case.connection._head_cache.familiar = None
        case.again()
        for piece in (answer[:cut], answer[cut:] if cut is not None else b""):
            if piece:
                case.connection.data_received(piece)
        outcomes.append(outcome(case))
        case.connection.connection_lost(None)
        assert case.heard.over
    assert outcomes[0] == outcomes[1]


@pytest.mark.parametrize("raises_in", ["on_head", "on_data", "on_chunk", "on_end", "on_error"])
@pytest.mark.parametrize(
    "answer", [LENGTH, CHUNKED, LENGTH[:-1], b"no HTTP"], ids=["length", "chunked", "cut", "garbage"]
)
@pytest.mark.parametrize("size", [1, 7, 1000])
def test_whatever_a_receiver_raises_is_told_to_it_once(raises_in: str, answer: bytes, size: int) -> None:
    """And to nobody else: not to the event loop, and not to whoever has the connection by then."""
    case = talk()
    broken: list[Exception] = []

    class Breaks(Heard):
        def __getattribute__(self, name: str) -> Any:
            if name == raises_in:
                return _raise
            return super().__getattribute__(name)

        def on_broken(self, error: Exception) -> None:
            broken.append(error)

    case.connection.data_received(LENGTH)
    breaks = Breaks()
    case.connection.send((b"next",), breaks)
    for at in range(0, len(answer), size):
        case.connection.data_received(answer[at : at + size])
    case.connection.connection_lost(None)
    assert len(broken) + breaks.ends + len(breaks.errors) == 1
    assert not broken or isinstance(broken[0], RecursionError)
    assert case.heard.ends == 1, "the answer before is not touched"


def _raise(*_: object) -> None:
    raise RecursionError


def test_what_the_last_callback_raises_does_not_meet_the_next_exchange() -> None:
    """A connection that is free again has a new receiver within `on_end`, as where a request waits for its place."""
    case = talk()
    broken: list[Exception] = []
    after = Heard()

    class Breaks(Heard):
        def on_end(self) -> None:
            case.connection.send((b"another",), after)
            raise RecursionError

        def on_broken(self, error: Exception) -> None:
            broken.append(error)

    case.connection.data_received(LENGTH)
    case.connection.send((b"next",), Breaks())
    case.connection.data_received(LENGTH)
    assert len(broken) == 1
    assert not case.wire.closed
    case.connection.data_received(LENGTH)
    assert after.ends == 1
