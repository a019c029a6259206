"""Recognises the head of an HTTP message that differs from the last one in its content-length alone.

Client libraries repeat their head with every request, and nodes with every plain answer, for a second (the date). Where
the bytes before and behind the length are the same, a parser would find the same. A message is recognised only where it
is whole, so that the length is that of the bytes at hand.
"""

import re
from typing import Generic, Self, TypeVar

_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*([0-9]{1,15})(?=\r\n)", re.IGNORECASE)
_BLANK_LINE = b"\r\n\r\n"
_DIGITS = 16

T = TypeVar("T")


class HeadCache(Generic[T]):
    """The bytes of a head before and behind its length, and `known`, what was made of it."""

    __slots__ = ("_after", "_before", "_start", "known")

    def __init__(self, before: bytes, after: bytes, known: T) -> None:
        self._before = before
        self._after = after
        self._start = len(before)
        self.known = known

    @classmethod
    def of(cls, data: bytes, known: T) -> Self | None:
        """The cache of the head of `data`, which is exactly one message by its parser.

        None unless its body has the length of its only content-length.
        """
        end = data.find(_BLANK_LINE)
        lengths = list(_LENGTH.finditer(data, 0, end + 2)) if end >= 0 else []
        if len(lengths) != 1 or len(data) - end - len(_BLANK_LINE) != int(lengths[0][1]):
            return None
        start, stop = lengths[0].span(1)
        return cls(data[:start], data[stop : end + len(_BLANK_LINE)], known)

    def body_in(self, data: bytes) -> bytes | None:
        """The body of `data`, if that is exactly one message with this head; else None."""
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
