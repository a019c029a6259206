"""Escapes are taken out of JSON text as a reader of one byte after the other takes them out."""

from itertools import product

from hypothesis import example, given
from hypothesis import strategies as st

from gateway.core.http.json_escapes import (
    COLON,
    COMMA,
    CONTAINER,
    QUOTE,
    SURROGATE,
    UNICODE,
    ends_in_escape,
    without_escapes,
)

STRUCTURE = {**dict.fromkeys(b"{[", CONTAINER), ord(","): COMMA, ord(":"): COLON, ord('"'): QUOTE}
TELLING = b"".join({*STRUCTURE.values(), UNICODE})
WORDS = [b"\\", b"\\\\", b'\\"', b'"', b"\\u", b"d", b"D", b"\\n", b"n", b"{", b"[", b",", b":", b"\n", b"x", b"\xff"]

texts = st.lists(st.sampled_from(WORDS) | st.binary(max_size=4), max_size=40).map(b"".join)


def plainly(text: bytes) -> tuple[bytes, bool]:
    """The roles that tell something, and whether the text ends within an escape."""
    roles, escaped = [], False
    for byte in text:
        if not escaped and byte == ord("\\"):
            escaped = True
            continue
        if not escaped:
            roles.append(STRUCTURE.get(byte, b""))
        elif byte == ord("u"):
            roles.append(UNICODE)
        escaped = False
    return b"".join(roles), escaped


def telling(roles: bytes) -> bytes:
    return bytes(role for role in roles if role in TELLING)


@given(texts)
@example(b"\\\\\\")
@example(b'\\\\\\"\\\\"')
def test_what_is_left_is_what_no_backslash_escapes(text: bytes) -> None:
    roles, escaped = plainly(text)
    assert ends_in_escape(text) == escaped
    assert telling(without_escapes(text[:-1] if escaped else text)) == roles


def test_no_pair_of_bytes_is_read_otherwise_or_warned_of() -> None:
    """Warnings are errors here: a sequence that Python's decoder does not know would be one."""
    for first, second in product(range(256), repeat=2):
        text = b'{"' + bytes((first, second)) + b'"'
        roles, escaped = plainly(text)
        assert not escaped
        assert telling(without_escapes(text)) == roles


def test_half_a_character_is_told_from_a_whole_one() -> None:
    halves, others = (b"\\ud83d", b"\\uD83D"), (b"\\u00dd", b"\\\\ud", b"ud")
    assert all(SURROGATE in without_escapes(text) for text in halves)
    assert not any(SURROGATE in without_escapes(text) for text in others)
