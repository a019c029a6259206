"""JSON text without its escapes: every quote that is left begins or ends a string.

Each byte becomes a letter for its role, a quote the end of a line. Python's decoder of string literals then takes the
escapes out, in their order: it reads two backslashes as one, and drops a backslash before the end of a line. Any other
escape becomes a control character.

The plain way replaces pairs of backslashes by nothing, and escaped quotes after that, in a text out of which most bytes
were dropped before. It takes 1.6 ns a byte where the same line comes again and again, and 3 to 4 ns in real text, whose
bytes no processor foresees. This takes 0.7 to 1.0. It was two thirds of the CPU time of 4 MB of code.
"""

from codecs import escape_decode
from typing import Final

QUOTE: Final = b"\n"
CONTAINER: Final = b"a"
COMMA: Final = b"f"
COLON: Final = b"r"
UNICODE: Final = b"\v"
SURROGATE: Final = b"\vb"
"""What becomes of a quote, an opening brace or bracket, a comma, a colon, `\\u`, and `\\u` with a d or D behind it."""

_TEXT: Final = b"t"
_ROLES: Final = (
    (b'"', QUOTE),
    (b"{[", CONTAINER),
    (b",", COMMA),
    (b":", COLON),
    (b"u", b"v"),
    (b"dD", b"b"),
    (b"\\", b"\\"),
)
"""The decoder knows each of these letters behind a backslash: it has no sequence to warn of, whatever comes."""


def _table() -> bytes:
    table = bytearray(_TEXT * 256)
    for spelled, role in _ROLES:
        for byte in spelled:
            table[byte] = role[0]
    return bytes(table)


_TABLE: Final = _table()


def ends_in_escape(text: bytes) -> bool:
    """Whether the last byte is a backslash that escapes what comes next; `text` does not begin within an escape."""
    return text.endswith(b"\\") and (len(text) - len(text.rstrip(b"\\"))) % 2 == 1


def without_escapes(text: bytes) -> bytes:
    """The roles of the bytes of `text`, which neither begins nor ends within an escape."""
    return escape_decode(text.translate(_TABLE))[0]
