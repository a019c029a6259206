"""What a log tells of an unexpected error: where it came from, and nothing of the request."""

import json
import subprocess
import sys
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.telemetry.tracebacks import MAX_MESSAGE, format_error, message_of, scrub
from tests.telemetry.failing_gateway import PLACES, SECRETS, fail

LONGEST = 16_000
"""Bytes of one event: a 2 KB body once made 13.7 MB of one."""


@pytest.mark.parametrize("format", ["json", "text"])
def test_whatever_fails_wherever_tells_no_secret(format: Literal["json", "text"]) -> None:
    """Every way an error leaves the process, in a process of its own: `failing_gateway` says which."""
    command = [sys.executable, "-m", "tests.telemetry.failing_gateway", format]
    log = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False).stderr
    for what, secret in SECRETS.items():
        assert secret not in log, f"{what} is in the log"
        assert secret[-9:] not in log, f"a part of {what} is in the log"
    for place in PLACES:
        assert place in log, log
    assert "in _deeper" in log and "frames are left out" in log
    assert len(log) < LONGEST * len(PLACES)
    if format == "json":
        for line in log.splitlines():
            assert json.loads(line)["event"] and len(line) < LONGEST


def test_a_traceback_is_short_however_deep_and_chained() -> None:
    with pytest.raises(ValueError) as raised:
        fail()
    error: BaseException = raised.value
    for number in range(50):
        above = RuntimeError("x" * 100_000 + str(number))
        above.__context__ = error
        error = above
    told = format_error((type(error), error, error.__traceback__))
    assert len(told) < LONGEST and "earlier exceptions are left out" in told
    error.__context__ = error  # a ring
    assert format_error((type(error), error, None))


TOLD = {
    "what is wrong": (TypeError("unhashable type: 'list'"), "TypeError: unhashable type: 'list'"),
    "a missing attribute": (
        AttributeError("'NoneType' object has no attribute 'get'"),
        "AttributeError: 'NoneType' object has no attribute 'get'",
    ),
    "a key of a body": (KeyError("sekret"), "KeyError: '...'"),
    "a text of a body": (TypeError("f() got an argument 'my sekret'"), "TypeError: f() got an argument '...'"),
    "an open quote": (ValueError("cut: 'sekret and no en"), "ValueError: cut: '...'"),
    "bytes": (ValueError("no number: b'sekret'"), "ValueError: no number: '...'"),
    "a password": (OSError("redis://u:sekret@h:1/0 is down"), "OSError: redis://h:1/0 is down"),
    "a query": (OSError("GET http://h:1/p?key=sekret failed"), "OSError: GET http://h:1/p failed"),
    "a header": (RuntimeError("Authorization: Bearer sekret"), "RuntimeError: Authorization: ..."),
    "a key": (RuntimeError("sk-sekret is wrong"), "RuntimeError: ... is wrong"),
    "a digest": (RuntimeError("a" * 64 + " is not there"), "RuntimeError: ... is not there"),
    "a line's end": (RuntimeError("one\ntwo\x1b[31m"), "RuntimeError: one\\ntwo\\x1b[31m"),
}


@pytest.mark.parametrize("what", TOLD)
def test_a_message_keeps_its_words_and_leaves_out_what_it_quotes(what: str) -> None:
    error, told = TOLD[what]
    assert message_of(error) == told


class _NoText(Exception):
    def __str__(self) -> str:
        raise RuntimeError


def test_an_error_without_a_text_is_told_by_its_type() -> None:
    assert message_of(_NoText()) == "_NoText"
    assert message_of(ValueError()) == "ValueError"


@given(st.text(max_size=5000), st.booleans())
def test_any_message_becomes_one_bounded_line(text: str, names: bool) -> None:
    told = scrub(text, names)
    assert len(told) <= MAX_MESSAGE + 3
    assert len(told.splitlines()) <= 1


@given(st.text(st.characters(codec="utf-8"), min_size=1, max_size=200), st.sampled_from([repr, json.dumps, ascii]))
def test_what_is_quoted_in_any_way_is_left_out(text: str, quote: object) -> None:
    assert callable(quote)
    secret = f"<{text}>"
    told = scrub(f"cannot read {quote(secret)} here")
    assert told == "cannot read '...' here"
