"""Session tokens of the console: what is read back, and what is not."""

import pytest

from gateway.core.console.session_token import (
    MAX_TOKEN,
    Session,
    name_problem,
    open_session,
    seal_session,
    session_key,
    session_mark,
)

KEY = session_key(b"the-admin-token-of-ops")
SESSION = Session("ops", "Zoë O. Brien-Smith", 1000.0, 900.0, "0a1b2c3d4e5f6071")
SEALED = seal_session(SESSION, KEY)


def test_a_token_is_read_by_whoever_has_the_key() -> None:
    assert open_session(SEALED, {"ops": KEY, "other": session_key(b"x")}, 999.9) == SESSION
    assert SESSION.who == "Zoë O. Brien-Smith (ops)"


def test_a_cookie_can_carry_it() -> None:
    assert all(letter.isalnum() or letter in "-_." for letter in SEALED)


@pytest.mark.parametrize("now", [1000.0, 5000.0])
def test_one_that_is_over_is_none(now: float) -> None:
    assert open_session(SEALED, {"ops": KEY}, now) is None


def test_it_ends_with_its_admin_token() -> None:
    assert open_session(SEALED, {"ops": session_key(b"another-token")}, 0.0) is None
    assert open_session(SEALED, {"else": KEY}, 0.0) is None
    assert open_session(SEALED, {}, 0.0) is None


def test_a_mark_tells_admin_tokens_apart_and_little_of_them() -> None:
    marks = {session_mark(session_key(b"token-%d" % number)) for number in range(20)}
    assert len(marks) > 15 and {len(mark) for mark in marks} == {4}
    assert session_mark(KEY) == session_mark(session_key(b"the-admin-token-of-ops"))


def test_no_byte_of_it_can_be_changed() -> None:
    for at in range(len(SEALED)):
        other = "-" if SEALED[at] != "-" else "_"
        assert open_session(SEALED[:at] + other + SEALED[at + 1 :], {"ops": KEY}, 0.0) is None


@pytest.mark.parametrize(
    "sealed",
    [
        "",
        ".",
        "a.b",
        SEALED.partition(".")[0],
        SEALED + "0",
        "." + "0" * 64,
        "é." + "0" * 64,
        "bnVsbA." + "0" * 64,  # null
        "W1tdLFtdLFtdXQ." + "0" * 64,  # lists in a list
        "W10." + "z" * 64,
        "A" * MAX_TOKEN + "." + "0" * 64,
    ],
)
def test_what_is_no_token_is_none(sealed: str) -> None:
    assert open_session(sealed, {"ops": KEY}, 0.0) is None


@pytest.mark.parametrize("name", ["Ada", "Zoë O'Neil".replace("'", "’"), "李雷", "j.doe-2", "a" * 60])
def test_names_of_people(name: str) -> None:
    assert name_problem(name) is None


@pytest.mark.parametrize(
    "name",
    [
        "",
        "  ",
        "a" * 61,
        "a@b",
        "a (ops)",
        "<b>",
        'a"b',
        "a\nb",
        "a\u202eb",
        "a\x00b",
        "a\ud800",
        "`id`",
        "a\u2028b",
        "a （ops）",
    ],
)
def test_names_that_would_lie_in_an_audit_line(name: str) -> None:
    assert name_problem(name) is not None
