"""The head of a request as the parser found it, what it is for, and how one that comes again is known."""

import re
from collections.abc import Sequence
from typing import NamedTuple, Self

from gateway.core.dialects import Dialect

Fields = Sequence[tuple[bytes, bytes]]

_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*([0-9]{1,15})(?=\r\n)", re.IGNORECASE)
_BLANK_LINE = b"\r\n\r\n"


class Head(NamedTuple):
    """What a request says before its body.

    `fields` are its headers as they came, names in lower case; `headers` the same by name, the last one where a name
    stands twice. `path` is decoded, `raw_path` and `query` are not. `old` is HTTP/1.0. `expects` a "100 Continue".
    """

    method: str
    path: str
    raw_path: bytes
    query: bytes
    fields: Fields
    headers: dict[bytes, bytes]
    old: bool
    keep_alive: bool
    expects: bool


class Route(NamedTuple):
    """An endpoint of the data plane. `stored`: the response that it is about, and what follows its id in the path."""

    dialect: Dialect
    method: str = "POST"
    stored: tuple[str, str] | None = None


class FamiliarHead:
    """A head that a connection sent before: its bytes, cut open where the body's length stands.

    Client libraries send the same head with every request but for that number. Where the bytes before and behind
    it are the same, and it is a number, the parser would find the same again: it starts every message anew. What it
    would say of the number is that of the body's end, and only a body that ends with the bytes at hand is taken.
    """

    __slots__ = ("_after", "_before", "_start", "head", "route")

    def __init__(self, before: bytes, after: bytes, head: Head, route: Route) -> None:
        self._before = before
        self._after = after
        self._start = len(before)
        self.head = head
        self.route = route

    @classmethod
    def of(cls, data: bytes, head: Head, route: Route) -> Self | None:
        """`head` as it can be known again; None where it is of an unusual kind.

        `data` is all of a request that the parser took to its end, from its first byte to its last.
        """
        unusual = head.old or head.expects or not head.keep_alive or b"transfer-encoding" in head.headers
        end = data.find(_BLANK_LINE)
        lengths = list(_LENGTH.finditer(data, 0, end + 2)) if end >= 0 else []
        if unusual or len(lengths) != 1 or len(data) - end - len(_BLANK_LINE) != int(lengths[0][1]):
            return None
        start, stop = lengths[0].span(1)
        return cls(data[:start], data[stop : end + len(_BLANK_LINE)], head, route)

    def body_in(self, data: bytes) -> bytes | None:
        """The body, where `data` is exactly one request with this head; else None."""
        start = self._start
        if not data.startswith(self._before):
            return None
        end = data.find(b"\r", start, start + 16)
        length = data[start:end]
        if end < 0 or not length.isdigit() or not data.startswith(self._after, end):
            return None
        body = data[end + len(self._after) :]
        return body if len(body) == int(length) else None
