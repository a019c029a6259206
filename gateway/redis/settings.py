"""The settings of the connections to Redis, and the kinds of errors that redis-py raises."""

import ssl
from dataclasses import dataclass, field
from pathlib import Path

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisClusterException
from redis.exceptions import TimeoutError as RedisTimeoutError

from gateway.core.redis.url import RedisUrl, read_redis_url
from gateway.redis.schema import KeySchema

NAMING = ("CLIENT", "SETNAME", "fleetgate")
"""The command after the login, which names the connection in `CLIENT LIST`. A user without the right is served too."""

PATIENCE = 10
"""Plain commands may take so many times as long as scripts: no request waits for one."""

TRANSPORT = (RedisConnectionError, RedisTimeoutError, RedisClusterException, OSError, TimeoutError)
"""Errors that say that Redis was not reached; any other is about the call."""

UNREADABLE = (TypeError, ValueError, LookupError, AttributeError)
"""Errors of redis-py while it reads a reply of another shape."""

Address = tuple[str, int]


@dataclass(frozen=True, slots=True)
class RedisSettings:
    """Where Redis is. Times are in seconds; `url` may hold a password and is never printed.

    `schema` says how keys begin, so that gateways of two versions do not mix what they must not.
    """

    url: str
    cluster: bool = False
    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None
    timeout: float = 0.05
    connect_timeout: float = 0.25
    schema: KeySchema = field(default_factory=KeySchema)

    @property
    def place(self) -> RedisUrl:
        """The parts of the URL."""
        return read_redis_url(self.url)

    def tls(self) -> ssl.SSLContext | None:
        """The context of TLS connections; None where the URL has no TLS."""
        if not self.place.tls:
            return None
        context = ssl.create_default_context(cafile=self.ca_file)
        if self.cert_file is not None:
            context.load_cert_chain(self.cert_file, self.key_file)
        return context

    @property
    def address(self) -> Address:
        """Host and port of the URL."""
        place = self.place
        return place.host, place.port

    @property
    def login(self) -> list[tuple[str, ...]]:
        """The commands that a new connection begins with. Each of them has to be accepted."""
        place = self.place
        commands: list[tuple[str, ...]] = []
        if place.password is not None:
            commands.append(("AUTH", *(() if place.user is None else (place.user,)), place.password))
        if place.database:
            commands.append(("SELECT", str(place.database)))
        return commands


def spell(error: BaseException) -> str:
    """An error for the log. It has no password: redis-py names host and port only."""
    if isinstance(error, TimeoutError | RedisTimeoutError):
        return "no answer in time"
    return str(error) or type(error).__name__
