"""The head of a request as the parser found it, and what it is for."""

from collections.abc import Sequence
from typing import NamedTuple

from gateway.core.dialects import Dialect

Fields = Sequence[tuple[bytes, bytes]]


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


def is_usual(head: Head) -> bool:
    """Whether a head may be kept to be known again (see `core.familiar`)."""
    return not (head.old or head.expects or b"transfer-encoding" in head.headers) and head.keep_alive
