"""Event streams: however a stream is cut into pieces, the same events come out, to the letter."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core.errors import AnswerTooLarge
from gateway.core.http.sse import EventSplitter, event_data, split_events

lines = st.sampled_from(
    [b"data: a", b"data:b", b"data", b"data: ", b"event: x", b": comment", b"id: 1", b"data: \xc3\xa9"]
)
ends = st.sampled_from([b"\n", b"\r\n", b"\r"])
one_kind = ends.flatmap(
    lambda end: st.lists(st.lists(lines, min_size=1, max_size=3), max_size=5).map(
        lambda events: b"".join(end.join(event) + end + end for event in events)
    )
)
mixed = st.lists(st.tuples(st.lists(st.tuples(lines, ends), min_size=1, max_size=3), ends), max_size=5).map(
    lambda events: b"".join(b"".join(a + b for a, b in event) + last for event, last in events)
)


def reference(stream: bytes) -> list[bytes]:
    """The data of each event, by the standard's own algorithm, line by line."""
    found: list[bytes] = []
    data: list[bytes] = []
    seen = False
    for line in stream.splitlines():  # of bytes: LF, CRLF and CR, and nothing else
        if not line:
            if seen:
                found.append(b"\n".join(data))
            data, seen = [], False
            continue
        seen = True
        if line.startswith(b"data:"):
            data.append(line[5:].removeprefix(b" "))
    return [value for value in found if value]


def events_of(stream: bytes, cuts: list[int]) -> list[bytes]:
    """What comes out of a splitter that is fed pieces cut at `cuts`, and the data of each event in it."""
    splitter = EventSplitter()
    edges = sorted({0, len(stream), *(cut % (len(stream) + 1) for cut in cuts)})
    passed = b""
    data: list[bytes] = []
    for start, end in itertools.pairwise(edges):
        run = splitter.feed(stream[start:end])
        passed += run
        data += [event_data(event) for event in split_events(run)]
    assert passed + splitter.rest == stream, "not a byte is lost, added or turned around"
    return [value for value in data if value]


# A last CR might be half of a CRLF that is still to come, so the last event may wait for it.
cuttings = st.lists(st.integers(0, 300), max_size=6)


@given(one_kind, cuttings)
@settings(max_examples=300)
def test_any_cut_gives_the_same_events(stream: bytes, cuts: list[int]) -> None:
    stream += b": end\n\n"
    assert events_of(stream, cuts) == reference(stream)


@given(mixed, cuttings)
@settings(max_examples=300)
def test_any_cut_gives_the_same_events_where_line_ends_are_mixed(stream: bytes, cuts: list[int]) -> None:
    stream += b": end\n\n"
    assert events_of(stream, cuts) == reference(stream)


@given(one_kind)
def test_byte_by_byte(stream: bytes) -> None:
    stream += b": end\n\n"
    assert events_of(stream, list(range(len(stream)))) == reference(stream)


@given(st.binary(max_size=60), cuttings)
def test_noise_passes_whole_and_in_order(stream: bytes, cuts: list[int]) -> None:
    events_of(stream, cuts)


@given(one_kind | mixed)
def test_single_events_joined_are_the_run_again(stream: bytes) -> None:
    assert b"".join(split_events(stream)) == stream


@pytest.mark.parametrize(
    ("stream", "events"),
    [
        (b"data: a\n\ndata: b\n\n", [b"data: a\n\n", b"data: b\n\n"]),
        (b"data: a\r\n\r\ndata: b\r\n\r\n", [b"data: a\r\n\r\n", b"data: b\r\n\r\n"]),
        (b"data: a\r\rdata: b\r\r", [b"data: a\r\r", b"data: b\r\r"]),
        (b"event: x\ndata: a\ndata: b\n\n", [b"event: x\ndata: a\ndata: b\n\n"]),
        (b"", []),
    ],
)
def test_examples(stream: bytes, events: list[bytes]) -> None:
    assert split_events(stream) == events


def test_an_event_waits_for_its_end() -> None:
    splitter = EventSplitter()
    assert splitter.feed(b"data: a\n") == b""
    assert splitter.feed(b"\ndata: b") == b"data: a\n\n"
    assert splitter.rest == b"data: b"
    assert splitter.feed(b"\r\n\r") == b"data: b\r\n\r"
    assert splitter.feed(b"\n") == b""
    assert splitter.feed(b"data: c\r\n\r\n") == b"\ndata: c\r\n\r\n"
    assert splitter.rest == b""


@pytest.mark.parametrize(
    ("event", "data"),
    [
        (b"data: a\n\n", b"a"),
        (b"data:a\n\n", b"a"),
        (b"data:  a \n\n", b" a "),
        (b"data: a\ndata: b\r\n\r\n", b"a\nb"),
        (b"event: x\nid: 1\ndata: a\nretry: 5\n\n", b"a"),
        (b": data: a\n\n", b""),
        (b"database: a\n\n", b""),
        (b"data: a\xe2\x80\xa8b\x0bc\x0cd\n\n", b"a\xe2\x80\xa8b\x0bc\x0cd"),
    ],
)
def test_data_of_an_event(event: bytes, data: bytes) -> None:
    assert event_data(event) == data


def test_an_event_without_end_is_given_up() -> None:
    splitter = EventSplitter(limit=100)
    assert splitter.feed(b"x" * 100) == b""
    with pytest.raises(AnswerTooLarge):
        splitter.feed(b"x")
    splitter = EventSplitter(limit=100)
    assert len(splitter.feed(b"data: " + b"x" * 500 + b"\n\n")) == 508, "only what waits is bounded"


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
@given(sizes=st.lists(st.integers(0, 3), min_size=1, max_size=4), piece=st.integers(40, 90_000))
@settings(max_examples=15, deadline=None)
def test_long_events_are_cut_as_short_ones(end: bytes, sizes: list[int], piece: int) -> None:
    """However they are cut; the last bytes of one piece and the first of the next may be one boundary."""
    stream = b"".join(b"data: " + b"x" * (size * 50_000 + 1) + end + end for size in sizes)
    splitter = EventSplitter()
    passed = []
    for at in range(0, len(stream), piece):
        passed.append(splitter.feed(stream[at : at + piece]))
    assert b"".join(passed) == stream or b"".join(passed) + splitter.rest == stream
    found = [data for run in passed for event in split_events(run) if (data := event_data(event))]
    assert [len(data) for data in found] == [size * 50_000 + 1 for size in sizes]


def test_what_a_long_event_costs_does_not_grow_with_its_pieces() -> None:
    """Bytes that are looked through: each piece once, and not all that came before it."""
    splitter = EventSplitter()
    for _ in range(40_000):
        splitter.feed(b"y" * 500)
        assert len(splitter.rest) <= 1 << 12
    assert len(splitter.feed(b"\n\n")) == 20_000_002
