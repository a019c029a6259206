"""The head of a request as the parser found it, and what it is for."""

import re
from collections.abc import Sequence
from typing import Any, NamedTuple
from urllib.parse import unquote

import httptools

from gateway.core.dialects import Dialect

_UPGRADE = re.compile(rb"\r\nupgrade[ \t]*:", re.IGNORECASE)

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


def split_target(url: bytes) -> tuple[str, bytes, bytes]:
    """Path, path as it came, and query of a request's target; HttpParserInvalidURLError where it is none."""
    if url.startswith(b"/") and b"%" not in url and b"#" not in url:
        raw_path, _, query = url.partition(b"?")
        return raw_path.decode("ascii"), raw_path, query
    parsed: Any = httptools.parse_url(url)  # its stub has no None
    return unquote(parsed.path.decode("ascii")), parsed.path, parsed.query or b""


def without_upgrade(data: bytes) -> bytes:
    """What `data` begins, a request, without its offer to speak another protocol.

    Java's HTTP client offers HTTP/2 with every request; a server that does not take it up answers as if it had not
    been made. The parser, however, would stop at it and lose the body.
    """
    if _UPGRADE.search(data) is None:
        return data
    head, blank, rest = data.partition(b"\r\n\r\n")
    return _UPGRADE.sub(b"\r\nx-not-taken:", head) + blank + rest
