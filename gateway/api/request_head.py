"""The head of a request as the parser found it, and what it is for."""

import re
from collections.abc import Sequence
from typing import Any, NamedTuple
from urllib.parse import unquote

import httptools

from gateway.core.dialects import Dialect
from gateway.core.errors import InvalidRequest

Fields = Sequence[tuple[bytes, bytes]]

FRAMING = (b"content-length", b"transfer-encoding")

_HOST = re.compile(rb"(?:\[[0-9A-Za-z:.%]+\]|[^\x00-\x20\x7f-\xff/?#@\[\]\\:,]*)(?::[0-9]{0,5})?")


class RequestHead(NamedTuple):
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


class Endpoint(NamedTuple):
    """An endpoint of the data plane. `stored`: the response that it is about, and what follows its id in the path."""

    dialect: Dialect
    method: str = "POST"
    stored: tuple[str, str] | None = None


def is_usual(head: RequestHead) -> bool:
    """Whether a head may be kept to be known again (see `core.familiar`)."""
    return not (head.old or head.expects or b"transfer-encoding" in head.headers) and head.keep_alive


def brings_body(head: RequestHead) -> bool:
    """Whether a body of at least one byte, or of unknown length, is declared."""
    return b"transfer-encoding" in head.headers or bool(head.headers.get(b"content-length", b"").strip(b" \t0"))


def split_target(url: bytes) -> tuple[str, bytes, bytes]:
    """Path, path as it came, and query of a request's target; HttpParserInvalidURLError where it is none."""
    if url.startswith(b"/") and b"%" not in url and b"#" not in url:
        raw_path, _, query = url.partition(b"?")
        return raw_path.decode("ascii"), raw_path, query
    parsed: Any = httptools.parse_url(url)  # its stub has no None
    if parsed.path is None:
        raise httptools.HttpParserInvalidURLError("there is no path in it")
    return unquote(parsed.path.decode("ascii")), parsed.path, parsed.query or b""


def not_http(why: str) -> InvalidRequest:
    return InvalidRequest(f"This is not a valid HTTP request: {why}", code="invalid_http")


def check_head(fields: Fields, headers: dict[bytes, bytes], old: bool) -> None:
    """What RFC 9112 asks of a head and llhttp does not: one Host, and a length that reads in one way."""
    coding = headers.get(b"transfer-encoding")
    if coding is not None and (old or coding.lower() != b"chunked"):
        raise InvalidRequest("The only transfer-encoding of a body is chunked, in HTTP/1.1.", code="invalid_http")
    host = headers.get(b"host")
    if host is None:
        if not old:
            raise not_http("it has no Host header.")
    elif _HOST.fullmatch(host) is None:
        raise not_http("its Host header is no name and port.")
    if len(headers) != len(fields):
        names = [name for name, _ in fields]
        for name in (b"host", *FRAMING):
            if names.count(name) > 1:
                raise not_http(f"its {name.decode()} header stands twice.")
