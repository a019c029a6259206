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


_LONG: Final = 4096
"""Bytes of a long string. The end of a string without escapes is searched for, which takes a quarter of the time of
reading it; the many short strings of a dense text are read sooner than searched for."""

_BLOCK: Final = 256
_LARGER: Final = 8
"""Bytes read after a long string: mostly enough to hold the beginning of the next one. Each block after that is so many
times larger."""

_SMALL: Final = 32 * 1024
"""Bytes up to which a text is read in one block: many blocks would cost what they save."""


class JsonSize:
    """The size of a text that comes in pieces, without its strings' content. A byte takes 0.1 ns in long strings, 0.3
    ns elsewhere, and up to 2 ns among escapes.

    `values`: the elements of arrays, the members of objects, and the arrays and objects themselves.
    """

    __slots__ = ("_block", "_containers", "_in_string", "_keys", "_quotes", "_rest", "_widest", "length", "values")

    def __init__(self) -> None:
        self.length = 0
        self.values = 0
        self._containers = 0
        self._keys = 0
        self._quotes = 0
        self._in_string = False
        self._block = _BLOCK
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
        if self.length <= _SMALL:
            self._read(piece)
        else:
            self._read_blocks(piece)

    def _read_blocks(self, piece: bytes) -> None:
        """Read a piece in blocks that end with a quote, and skip strings without escapes between them."""
        at, end = 0, len(piece)
        while at < end:
            if self._in_string:
                quote = piece.find(b'"', at)
                if piece.find(b"\\", at, end if quote < 0 else quote) < 0:
                    if quote < 0:  # the string goes on in the next piece
                        return
                    self._quotes += 1
                    self._in_string = False
                    if quote - at >= _LONG:
                        self._block = _BLOCK
                    at = quote + 1
                    continue
            if end - at <= self._block:
                self._read(piece[at:])
                return
            behind = piece.rfind(b'"', at, at + self._block) + 1
            if behind:
                self._read(piece[at:behind])
                at = behind
            self._block *= _LARGER

    def _read(self, piece: bytes) -> None:
        """Read a piece whole."""
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
