"""The URL of a Redis, read in one way by all that need it: the configuration's check and the connections themselves.

    redis://[[user]:password@]host[:port][/database]      rediss:// for TLS

Nothing that is said against a URL holds a part of it: where it was cut wrongly, a part of a password stands where a
host is looked for.
"""

import re
from typing import NamedTuple

from gateway.core.http.host_names import NO_HOST, is_bracketed, is_port

DEFAULT_PORT = 6379

_URL = re.compile(r"(rediss?)://([^/?#]*)([/?#].*)?", re.IGNORECASE | re.DOTALL)
_SECRET = re.compile(r"(?:[A-Za-z0-9._~!$&'()*+,;=:-]|%[0-9A-Fa-f]{2})*")
_ESCAPES = "/ ? # [ ] @ % and spaces in a user or password are written as %2F %3F %23 %5B %5D %40 %25 %20"


class RedisUrl(NamedTuple):
    """What a URL says; `user` and `password` as they are, without escapes."""

    tls: bool
    host: str
    port: int
    user: str | None
    password: str | None
    database: int

    def spelled(self) -> str:
        """As a URL again, such that every reader takes it for the same: with all that may be escaped escaped."""
        login = "" if self.password is None else f"{_escaped(self.user or '')}:{_escaped(self.password)}@"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"redis{'s' if self.tls else ''}://{login}{host}:{self.port}/{self.database}"


def read_redis_url(url: str) -> RedisUrl:
    """Raises ValueError with what was expected."""
    found = _URL.fullmatch(url)
    if found is None:
        raise ValueError("expected redis://host:6379, or rediss://host:6379 for TLS")
    scheme, authority, rest = found.groups()
    login, at, place = authority.rpartition("@")
    path = re.fullmatch(r"/?([0-9]{0,5})/?", rest or "")
    if path is None:
        raise ValueError(f"after host and port only /DATABASE, a number, may follow; {_ESCAPES}")
    user, password = _login(login) if at else (None, None)
    host, port = _place(place)
    return RedisUrl(scheme.lower() == "rediss", host, port, user, password, int(path[1] or 0))


def _login(login: str) -> tuple[str | None, str]:
    user, colon, password = login.partition(":")
    if not colon or not password:
        raise ValueError("a login is user:password@ or :password@")
    if not _SECRET.fullmatch(login):
        raise ValueError(_ESCAPES)
    return _plain(user) or None, _plain(password)


def _place(place: str) -> tuple[str, int]:
    name, bracket, port = place.rpartition("]")
    if bracket:
        name, port = name + bracket, port
    else:
        name, colon, port = place.partition(":")
        port = colon + port
    if port and not (port.startswith(":") and is_port(port[1:])):
        raise ValueError(f"a port is a number from 1 to 65535; {_ESCAPES}")
    if not is_bracketed(name):
        raise ValueError(f"expected redis://host:6379; {NO_HOST} in brackets; {_ESCAPES}")
    return name.strip("[]").lower(), int(port[1:]) if port else DEFAULT_PORT


def _escaped(text: str) -> str:
    return "".join([f"%{byte:02X}" for byte in text.encode()])


def _plain(text: str) -> str:
    """Without the escapes. Raises ValueError where they are not UTF-8."""
    try:
        return re.sub("%(..)", lambda found: chr(int(found[1], 16)), text).encode("latin-1").decode()
    except UnicodeDecodeError:
        raise ValueError("the %-escapes of a user or password are the bytes of its UTF-8") from None
