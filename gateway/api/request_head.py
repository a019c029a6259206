"""The head of a request as the parser found it, and the endpoint that it is for."""

import random
import re
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import unquote

import httptools

from gateway.core.dialects import Dialect
from gateway.core.errors import InvalidRequest
from gateway.core.telemetry.trace_context import merge_context

Fields = Sequence[tuple[bytes, bytes]]

FRAMING = (b"content-length", b"transfer-encoding")

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:-]{1,128}")
_HOST = re.compile(rb"(?:\[[0-9A-Za-z:.%]+\]|[^\x00-\x20\x7f-\xff/?#@\[\]\\:,]*)(?::[0-9]{0,5})?")


class RequestHead:
    """A request up to its body.

    `fields` are its headers as they came, names in lower case; `headers` the same by name, the last one where a name
    stands twice (of a trace context: see `merge_context`). `path` is decoded, `raw_path` and `query` are not. `old` is
    HTTP/1.0. `expects` a "100 Continue".
    """

    __slots__ = ("expects", "fields", "headers", "keep_alive", "method", "old", "path", "query", "raw_path")

    def __init__(
        self,
        method: str,
        path: str,
        raw_path: bytes,
        query: bytes,
        fields: Fields,
        headers: dict[bytes, bytes],
        old: bool,
        keep_alive: bool,
        expects: bool,
    ) -> None:
        self.method = method
        self.path = path
        self.raw_path = raw_path
        self.query = query
        self.fields = fields
        self.headers = headers
        self.old = old
        self.keep_alive = keep_alive
        self.expects = expects


class Endpoint:
    """An endpoint of the data plane. `stored`: the response that it is about, and what follows its id in the path."""

    __slots__ = ("dialect", "methods", "stored")

    def __init__(
        self, dialect: Dialect, methods: tuple[str, ...] = ("POST",), stored: tuple[str, str] | None = None
    ) -> None:
        self.dialect = dialect
        self.methods = methods
        self.stored = stored


def is_usual(head: RequestHead) -> bool:
    """Whether a head may be kept in the connection's `HeadCache`."""
    return not (head.old or head.expects or b"transfer-encoding" in head.headers) and head.keep_alive


def brings_body(head: RequestHead) -> bool:
    """Whether a body of at least one byte, or of unknown length, is declared."""
    return b"transfer-encoding" in head.headers or bool(head.headers.get(b"content-length", b"").strip(b" \t0"))


def declared_length(headers: Mapping[bytes, bytes]) -> int:
    """The body's length as its content-length declares it; 0 where it declares none."""
    digits = headers.get(b"content-length", b"").lstrip(b"0")
    return int(digits[:20]) if digits.isdigit() else 0


def request_id_of(headers: Mapping[bytes, bytes]) -> str:
    """The client's `x-request-id`, if it can be logged unchanged, else a new one.

    A new one has to be unique, not secret: 96 bits that cost no system call.
    """
    given = headers.get(b"x-request-id")
    if given is not None and _REQUEST_ID.fullmatch(given):
        return given.decode()
    return "req_" + random.getrandbits(96).to_bytes(12, "big").hex()


def split_target(url: bytes) -> tuple[str, bytes, bytes]:
    """Path, path as it came, and query of a request's target; HttpParserInvalidURLError where it is none."""
    if url.startswith(b"/") and b"%" not in url and b"#" not in url:
        raw_path, _, query = url.partition(b"?")
        return raw_path.decode("ascii"), raw_path, query
    parsed: Any = httptools.parse_url(url)  # its stub has no None
    if parsed.path is None:
        raise httptools.HttpParserInvalidURLError("it has no path")
    return unquote(parsed.path.decode("ascii")), parsed.path, parsed.query or b""


def not_http(why: str) -> InvalidRequest:
    return InvalidRequest(f"This is not a valid HTTP request: {why}", code="invalid_http")


def check_head(fields: Fields, headers: dict[bytes, bytes], old: bool) -> None:
    """Checks of RFC 9112 that llhttp leaves out: one Host, and a length that reads in one way. Of `headers`, a trace
    context that stands twice becomes what it means."""
    coding = headers.get(b"transfer-encoding")
    if coding is not None and (old or coding.lower() != b"chunked"):
        raise InvalidRequest("The only transfer-encoding of a body is chunked, in HTTP/1.1.", code="invalid_http")
    host = headers.get(b"host")
    if host is None:
        if not old:
            raise not_http("it has no Host header.")
    elif _HOST.fullmatch(host) is None:
        raise not_http("its Host header is not a name and port.")
    if len(headers) != len(fields):
        names = [name for name, _ in fields]
        for name in (b"host", *FRAMING):
            if names.count(name) > 1:
                raise not_http(f"it has more than one {name.decode()} header.")
        merge_context(fields, headers)
