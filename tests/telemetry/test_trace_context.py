"""W3C trace context: what is valid, what passes, what is bounded."""

import pytest

from gateway.core.telemetry.trace_context import (
    bounded_state,
    merge_context,
    passed_lines,
    read_context,
    trace_lines,
    unrecorded_lines,
)

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
VALID = f"00-{TRACE}-{PARENT}-01".encode()


@pytest.mark.parametrize(
    "given",
    [
        b"",
        b"garbage",
        VALID.upper(),
        VALID[:-1],
        VALID + b"0",
        VALID + b"-more",
        VALID.replace(b"00-", b"ff-", 1),
        f"00-{'0' * 32}-{PARENT}-01".encode(),
        f"00-{TRACE}-{'0' * 16}-01".encode(),
        VALID.replace(b"-", b"_"),
        VALID + b"\xff",
    ],
)
def test_what_is_not_valid_is_no_context(given: bytes) -> None:
    assert read_context({b"traceparent": given, b"tracestate": b"a=1"}) is None
    assert passed_lines({b"traceparent": given, b"tracestate": b"a=1"}) == b""


def test_a_context_is_read_and_passed_on_as_it_is() -> None:
    found = read_context({b"traceparent": VALID, b"tracestate": b"a=1"})
    assert found is not None and (f"{found.trace:032x}", f"{found.parent:016x}") == (TRACE, PARENT)
    assert found.sampled and found.state == b"a=1"
    assert passed_lines({b"traceparent": VALID}) == b"traceparent: " + VALID + b"\r\n"
    assert passed_lines({b"tracestate": b"a=1"}) == passed_lines({}) == b""


def test_a_later_version_is_read_as_this_one() -> None:
    later = VALID.replace(b"00-", b"cc-", 1) + b"-what-comes"
    assert passed_lines({b"traceparent": later}) == b"traceparent: " + VALID + b"\r\n"


def test_only_the_flag_of_recording_is_known() -> None:
    for flags, sampled in ((b"00", False), (b"01", True), (b"02", False), (b"ff", True)):
        found = read_context({b"traceparent": VALID[:-2] + flags})
        assert found is not None and found.sampled is sampled


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (None, b""),
        (b"", b""),
        (b"a=1, b=2 ,,c=3", b"a=1,b=2,c=3"),
        (b"a=1\x00", b""),
        (b"a=\xc3\xa4", b""),
        (b",".join(b"k%d=1" % n for n in range(40)), b",".join(b"k%d=1" % n for n in range(32))),
        (b"a=" + b"x" * 600, b""),
        (b"a=1,b=" + b"x" * 600 + b",c=3", b"a=1"),
    ],
)
def test_state_is_bounded(given: bytes | None, kept: bytes) -> None:
    assert bounded_state(given) == kept


def test_lines_for_nodes_have_all_digits() -> None:
    assert trace_lines(1, 2, False, b"") == b"traceparent: 00-" + b"0" * 31 + b"1-" + b"0" * 15 + b"2-00\r\n"
    assert trace_lines(1, 2, True, b"a=1").endswith(b"-01\r\ntracestate: a=1\r\n")


def test_spaces_before_a_member_do_not_have_it_cut() -> None:
    state = b"a=1," + b" " * 300 + b"b=" + b"x" * 250
    assert bounded_state(state) == b"a=1"
    assert bounded_state(b"a=1," + b" " * 250 + b"b=" + b"x" * 250) == b"a=1,b=" + b"x" * 250


def test_a_trace_that_is_not_recorded_has_its_ids_and_says_so() -> None:
    assert unrecorded_lines(1 << 64 | 2) == trace_lines(1, 2, False, b"")
    assert unrecorded_lines((1 << 192) - 1) == trace_lines((1 << 128) - 1, (1 << 64) - 1, False, b"")


@pytest.mark.parametrize(
    ("fields", "passed"),
    [
        ([(b"traceparent", VALID)] * 2, b""),
        ([(b"traceparent", VALID), (b"tracestate", b"a=1"), (b"traceparent", b"garbage")], b""),
        (
            [(b"tracestate", b"a=1, b=2"), (b"traceparent", VALID), (b"tracestate", b""), (b"tracestate", b"c=3")],
            b"traceparent: " + VALID + b"\r\ntracestate: a=1,b=2,c=3\r\n",
        ),
        ([(b"x", b"1"), (b"x", b"2"), (b"traceparent", VALID)], b"traceparent: " + VALID + b"\r\n"),
    ],
    ids=["the same twice", "one that is valid", "lists of state", "other names"],
)
def test_headers_that_stand_twice(fields: list[tuple[bytes, bytes]], passed: bytes) -> None:
    headers = dict(fields)
    merge_context(fields, headers)
    assert passed_lines(headers) == passed and headers.get(b"x") == dict(fields).get(b"x")
