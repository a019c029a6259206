"""The memory that JSON takes once it is parsed, estimated from its bytes.

A body of `[],[],[]` takes 24 times its bytes as objects, and parsing it stops the event loop for seconds; a prompt of
the same length takes the length of its text. The bytes outside of strings tell them apart. The sizes below were
measured with CPython 3.11 and orjson (64-bit): the memory of one more of each shape, rounded up.
"""

import re
from typing import Final

from gateway.core.json_text import UNICODE_ESCAPE

_STRUCTURE = b"{[,:"
_TEXT_OR_QUOTE = bytes(set(range(256)) - set(_STRUCTURE))
_TEXT = bytes(set(range(256)) - set(_STRUCTURE + b'"'))
_PLAIN_TEXT = bytes(set(_TEXT) - set(b"\\/bfnrtu"))
"""What neither is structure nor stands in an escape's first two bytes: two thirds of a prompt. It is dropped before
escapes are: a pass by a table costs half of a search for two bytes. Saves two thirds of the time. What follows a
backslash in JSON stays, so that no escape comes to be where there was none."""
_SURROGATE = re.compile(rb"\\u(?:[dD]|\Z)")
"""An escape that is half of a character beyond the first plane, or may be one: the rest is in the next piece."""

PER_CONTAINER = 120
PER_VALUE = 72
PER_KEY = 80
"""Bytes of an empty object or array, of a short value in one (a comma), and of a key's slot (a colon)."""

COPIES: Final = 4
"""The body, its text as strings, the node's body, and one of these while the next is made of it."""

WIDE = 2
WIDEST = 6
"""Copies on top where one character beyond Latin-1, or beyond the first plane, widens a whole string."""

_BEYOND_FIRST_PLANE = (b"\xf0", b"\xf1", b"\xf2", b"\xf3", b"\xf4")
"""The first bytes of such a character in UTF-8; as an escape it is a surrogate, `\\ud8` to `\\udf`."""


TINY: Final = 4096
DENSEST: Final = 28
"""Bodies up to `TINY` bytes are taken for the densest shape, `DENSEST` times their bytes: a scan costs 1.5 µs."""


def small_size(raw: bytes) -> int:
    """An upper bound of a parsed body's bytes, in one pass: brackets and commas in strings count as structure."""
    if len(raw) <= TINY:
        return len(raw) * DENSEST
    copies = COPIES if raw.isascii() and raw.find(b"\\") < 0 else COPIES + WIDEST
    return len(raw) * copies + len(raw.translate(None, _TEXT_OR_QUOTE)) * PER_VALUE


class JsonSize:
    """The size of a text that comes in pieces, without its strings' content, in 0.3 ns a byte, or 0.7 with escapes.

    `values`: the elements of arrays, the members of objects, and the arrays and objects themselves.
    """

    __slots__ = ("_containers", "_in_string", "_keys", "_quotes", "_rest", "_widest", "length", "values")

    def __init__(self) -> None:
        self.length = 0
        self.values = 0
        self._containers = 0
        self._keys = 0
        self._quotes = 0
        self._in_string = False
        self._rest = b""
        self._widest = 0

    @property
    def strings(self) -> int:
        """Strings in the text, keys included: exact, where it is valid JSON."""
        return self._quotes // 2

    @property
    def size(self) -> int:
        """Bytes of the parsed text."""
        structure = self.values * PER_VALUE + self._containers * (PER_CONTAINER - PER_VALUE) + self._keys * PER_KEY
        return self.length * (COPIES + self._widest) + structure

    def feed(self, piece: bytes) -> None:
        """Take in the next piece of the text."""
        self.length += len(piece)
        if self._rest:
            piece = self._rest + piece
            self._rest = b""
        if self._widest < WIDEST and not piece.isascii():
            self._widest = WIDEST if any(lead in piece for lead in _BEYOND_FIRST_PLANE) else WIDE
        if piece.find(b"\\") >= 0:
            whole = piece
            piece = piece.translate(None, _PLAIN_TEXT)
            if self._widest < WIDEST and UNICODE_ESCAPE.search(piece):
                self._widest = WIDEST if _SURROGATE.search(whole) else max(WIDE, self._widest)
            piece = piece.replace(b"\\\\", b"")
            if piece.endswith(b"\\"):  # the escaped character is in the next piece
                piece, self._rest = piece[:-1], b"\\"
            piece = piece.replace(b'\\"', b"")
        parts = piece.translate(None, _TEXT).split(b'"')
        outside = b"".join(parts[1::2] if self._in_string else parts[::2])
        self._quotes += len(parts) - 1
        if len(parts) % 2 == 0:
            self._in_string = not self._in_string
        if outside:
            containers = outside.count(b"{") + outside.count(b"[")
            self._containers += containers
            self._keys += outside.count(b":")
            self.values += containers + outside.count(b",")
