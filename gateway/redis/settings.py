"""redis-py, as the gateway uses it: how it is set up, and what its errors mean."""

import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from redis.asyncio import Redis, RedisCluster
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisClusterException
from redis.exceptions import TimeoutError as RedisTimeoutError

from gateway.core.redis.url import RedisUrl, read_redis_url
from gateway.redis.schema import KeySchema

NAMING = ("CLIENT", "SETNAME", "fleetgate")
"""Follows the login, for whoever looks at Redis' clients. A user without the right to it is served all the same."""

PATIENCE = 10
"""Plain commands, which no request waits for, may take so many times as long as a script."""

TRANSPORT = (RedisConnectionError, RedisTimeoutError, RedisClusterException, OSError, TimeoutError)
"""What is raised where Redis was not reached; the rest is about the call."""

UNREADABLE = (TypeError, ValueError, LookupError, AttributeError)
"""What redis-py's own reading of a reply raises where the reply is of another shape."""

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
        """What the URL says."""
        return read_redis_url(self.url)

    def tls(self) -> ssl.SSLContext | None:
        """What a TLS connection is made with, None where the URL asks for none."""
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
        """The commands that a new connection begins with; it is of no use where one of them is refused."""
        place = self.place
        commands: list[tuple[str, ...]] = []
        if place.password is not None:
            commands.append(("AUTH", *(() if place.user is None else (place.user,)), place.password))
        if place.database:
            commands.append(("SELECT", str(place.database)))
        return commands


def client_of(settings: RedisSettings) -> Any:
    """A client that fails at once: waiting and trying again are the link's affair.

    So is the time that a command may take: given a `socket_timeout`, redis-py sends through `asyncio.wait_for`, and
    that of Python 3.11 now and then forgets that it was cancelled (CPython issue 86296): its caller would not stop.
    """
    place = settings.place
    options: dict[str, Any] = {
        "socket_timeout": None,
        "socket_connect_timeout": settings.connect_timeout,
        "retry": Retry(NoBackoff(), 0),
    }
    if place.tls:
        options["ssl_ca_certs"] = str(settings.ca_file) if settings.ca_file is not None else None
        options["ssl_certfile"] = str(settings.cert_file) if settings.cert_file is not None else None
        options["ssl_keyfile"] = str(settings.key_file) if settings.key_file is not None else None
        options["ssl_cert_reqs"] = ssl.CERT_REQUIRED
    kind: Any = RedisCluster if settings.cluster else Redis
    return kind.from_url(place.spelled(), **options)


def spell(error: BaseException) -> str:
    """For the log: never an address's password, since redis-py names host and port only."""
    if isinstance(error, TimeoutError | RedisTimeoutError):
        return "no answer in time"
    return str(error) or type(error).__name__
