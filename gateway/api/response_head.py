"""Parts of a response's head that every kind of answer shares: the status line, the check of header fields."""

import re
from collections.abc import Iterable
from http import HTTPStatus
from typing import Final

Headers = list[tuple[bytes, bytes]]

_NO_TOKEN = re.compile(rb'[\x00-\x1f\x7f()<>@,;:\[\]={} \t\\"]')
_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")


def _status_line(status: int) -> bytes:
    phrase = HTTPStatus(status).phrase if status in _KNOWN else ""
    return b"HTTP/1.1 %d %b\r\n" % (status, phrase.encode())


_KNOWN = frozenset(status.value for status in HTTPStatus)

STATUS_LINE: Final = {status: _status_line(status) for status in range(100, 600)}

LAST_CHUNK = b"0\r\n\r\n"


def header_lines(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    return b"".join([b"%b: %b\r\n" % pair for pair in headers])


def check_values(headers: Iterable[tuple[bytes, bytes]]) -> None:
    """Raises RuntimeError where a value could end its line. (A node's values have passed its parser.)"""
    if _CONTROL.search(b"".join([value for _, value in headers])):
        raise RuntimeError("a response header has a control character in it")


def check_names(headers: Iterable[tuple[bytes, bytes]]) -> None:
    """Raises RuntimeError where a name is no token (RFC 9110, section 5.1)."""
    if any(_NO_TOKEN.search(name) for name, _ in headers):
        raise RuntimeError("a response header has a name that is no token")
