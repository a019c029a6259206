"""Heads of HTTP messages that come again and again, known without parsing them.

Client libraries send the same head with every request but for the length of its body, and so do nodes with every
plain answer, within a second at least (the date). A parser starts every message anew: where the bytes before and
behind that number are the same, and it is a number, it would find the same again, down to the number. A message is
taken for a familiar one only where it is all there, to its last byte: then the number is that of the bytes at hand.
"""

import re
from typing import Generic, Self, TypeVar

_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*([0-9]{1,15})(?=\r\n)", re.IGNORECASE)
_BLANK_LINE = b"\r\n\r\n"
_DIGITS = 16

T = TypeVar("T")


class HeadCache(Generic[T]):
    """The bytes of a head, cut open where its length stands, and what is `known` about it."""

    __slots__ = ("_after", "_before", "_start", "known")

    def __init__(self, before: bytes, after: bytes, known: T) -> None:
        self._before = before
        self._after = after
        self._start = len(before)
        self.known = known

    @classmethod
    def of(cls, data: bytes, known: T) -> Self | None:
        """The head of `data`, which is one message that a parser took to its end, from its first byte to its last.

        None where its body is not simply as long as its one content-length says.
        """
        end = data.find(_BLANK_LINE)
        lengths = list(_LENGTH.finditer(data, 0, end + 2)) if end >= 0 else []
        if len(lengths) != 1 or len(data) - end - len(_BLANK_LINE) != int(lengths[0][1]):
            return None
        start, stop = lengths[0].span(1)
        return cls(data[:start], data[stop : end + len(_BLANK_LINE)], known)

    def body_in(self, data: bytes) -> bytes | None:
        """The body, where `data` is exactly one message with this head; else None."""
        start = self._start
        if not data.startswith(self._before):
            return None
        end = data.find(b"\r", start, start + _DIGITS)
        if end < 0 or not data.startswith(self._after, end):
            return None
        length = data[start:end]
        if not length.isdigit():
            return None
        body = data[end + len(self._after) :]
        return body if len(body) == int(length) else None
