"""The memory that JSON takes once it is parsed, estimated from its bytes.

A body of `[],[],[]` takes 24 times its bytes as objects, and parsing it stops the event loop for seconds; a prompt of
the same length takes the length of its text. The bytes outside of strings tell them apart. The sizes below were
measured with CPython 3.11 and orjson (64-bit): the memory of one more of each shape, rounded up.
"""

import re
from typing import Final

from gateway.core.http import json_escapes
from gateway.core.http.json_escapes import UNICODE, ends_in_escape, without_escapes

_STRUCTURE = b"{[,:"
_TEXT_OR_QUOTE = bytes(set(range(256)) - set(_STRUCTURE))
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
"""Bytes of a long string. The end of a string is searched for, which takes a quarter of the time of reading it; many
short strings are read sooner than searched for."""

_BLOCK: Final = 256
_LARGER: Final = 8
"""Bytes read after a long string: mostly enough to hold the beginning of the next one. Each block after that is so many
times larger."""

_SMALL: Final = 32 * 1024
"""Bytes up to which a text is read in one block: many blocks would cost what they save."""

_WINDOW: Final = 32 * 1024
"""Bytes out of which escapes are taken at a time, from a backslash on: what follows may be text without any."""


class _Alphabet:
    """The bytes that are a text's structure."""

    __slots__ = ("colon", "comma", "opening", "others", "quote")

    def __init__(self, quote: bytes, opening: bytes, comma: bytes, colon: bytes) -> None:
        self.quote = quote
        self.opening = [opening[at : at + 1] for at in range(len(opening))]
        self.comma = comma
        self.colon = colon
        self.others = bytes(set(range(256)) - set(quote + opening + comma + colon))


_SURROGATE: Final = re.compile(json_escapes.SURROGATE)
"""To be searched for: `re` finds two bytes in half the time of `find`."""

_JSON: Final = _Alphabet(b'"', b"{[", b",", b":")
_ROLES: Final = _Alphabet(json_escapes.QUOTE, json_escapes.CONTAINER, json_escapes.COMMA, json_escapes.COLON)


class JsonSize:
    """The size of a text that comes in pieces, without its strings' content. A byte takes 0.1 ns in long strings, 0.3
    ns elsewhere, and 1 ns where there are escapes.

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
        at, backslash = 0, piece.find(b"\\")
        while backslash >= 0:
            if backslash > at:
                self._read(piece[at:backslash], _JSON)
            window = piece[backslash : backslash + _WINDOW]
            if ends_in_escape(window):
                window = window[:-1]
            if not window:  # the escaped character is in the next piece
                self._rest = b"\\"
                return
            at = backslash + len(window)
            roles = without_escapes(window)
            if self._widest < WIDEST and (unicode := roles.find(UNICODE)) >= 0:
                self._widen(roles, unicode, piece[at : at + 1])
            self._read(roles, _ROLES)
            backslash = piece.find(b"\\", at)
        if at < len(piece):
            self._read(piece[at:], _JSON)

    def _widen(self, roles: bytes, at: int, behind: bytes) -> None:
        """Count the characters that stand as `\\u` in a window, from `at` on; `behind`: the first byte behind it."""
        halved = roles.endswith(UNICODE) and behind in (b"", b"d", b"D")
        self._widest = WIDEST if halved or _SURROGATE.search(roles, at) else WIDE

    def _read(self, text: bytes, alphabet: _Alphabet) -> None:
        """Read a text without escapes in blocks that end with a quote, and skip strings between them."""
        if self.length <= _SMALL:
            self._count(text, alphabet)
            return
        at, end, quote = 0, len(text), alphabet.quote
        while at < end:
            if self._in_string:
                closing = text.find(quote, at)
                if closing < 0:  # the string goes on in the next text
                    return
                self._quotes += 1
                self._in_string = False
                if closing - at >= _LONG:
                    self._block = _BLOCK
                at = closing + 1
                continue
            if end - at <= self._block:
                self._count(text[at:], alphabet)
                return
            behind = text.rfind(quote, at, at + self._block) + 1
            if behind:
                self._count(text[at:behind], alphabet)
                at = behind
            self._block *= _LARGER

    def _count(self, text: bytes, alphabet: _Alphabet) -> None:
        """Count the whole of a text without escapes."""
        parts = text.translate(None, alphabet.others).split(alphabet.quote)
        outside = b"".join(parts[1::2] if self._in_string else parts[::2])
        self._quotes += len(parts) - 1
        if len(parts) % 2 == 0:
            self._in_string = not self._in_string
        if outside:
            containers = 0
            for opening in alphabet.opening:
                containers += outside.count(opening)
            self._containers += containers
            self._keys += outside.count(alphabet.colon)
            self.values += containers + outside.count(alphabet.comma)
