"""redis-py for plain commands: connected at the first use, and made anew once where a kept connection is lost."""

import asyncio
import contextlib
import ssl
from collections.abc import Awaitable, Callable
from typing import Any

from redis.asyncio import Redis, RedisCluster
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisClusterException, RedisError

from gateway.redis.settings import Address, RedisSettings


class PlainClient:
    """One client of redis-py. The caller bounds the time of `run`, and says what its errors mean."""

    def __init__(self, settings: RedisSettings) -> None:
        self._settings = settings
        self._client: Any = None
        self._files: tuple[float, ...] = ()
        """When the certificates were written that it has read."""

    async def run(self, work: Callable[[Any], Awaitable[Any]]) -> Any:
        """`work(client)`, whose commands may be carried out twice: after a lost connection it is run again, once."""
        with contextlib.suppress(RedisConnectionError):
            return await self._run(work)
        return await self._run(work)  # not in an `except`: its errors would keep the first one and the lost connection

    async def _run(self, work: Callable[[Any], Awaitable[Any]]) -> Any:
        try:
            return await work(self._connect())
        except (RedisError, RedisClusterException) as error:
            # redis-py raises a refusal that it has in a local variable: a reference cycle, which holds the connection.
            _forget_frames(error)
            raise error from None

    def server_of(self, key: str) -> Address:
        """The server of a cluster that has `key`, as far as it is known."""
        if self._client is None or not self._client.get_nodes():
            return self._settings.address
        node = self._client.get_node_from_key(key)
        return node.host, int(node.port)

    async def close(self, seconds: float) -> None:
        """Close the connections, within `seconds`; `run` opens new ones, to wherever the name leads then."""
        client, self._client = self._client, None
        if client is None:
            return
        with contextlib.suppress(RedisError, OSError, TimeoutError):
            async with asyncio.timeout(seconds):
                await client.aclose()
            if self._client is None and self._serves_again(client):
                self._client = client

    def _serves_again(self, client: Any) -> bool:
        """Whether a closed client would find what a new one finds: a new one for each probe leaves reference cycles.
        That of a cluster forgets the name once it knows the servers' addresses, which may be old ones."""
        return not (self._settings.cluster and client.get_nodes()) and self._files == _written(self._settings)

    def _connect(self) -> Any:
        if self._client is None:
            self._files = _written(self._settings)
            self._client = client_of(self._settings)
        return self._client


def _forget_frames(error: BaseException) -> None:
    """Drop the tracebacks of `error` and of those that it was raised for."""
    each: BaseException | None = error
    while each is not None:
        each.__traceback__ = None
        cause, each.__context__, each.__cause__ = each.__cause__ or each.__context__, None, None
        each = cause


def _written(settings: RedisSettings) -> tuple[float, ...]:
    """When the files of certificates were last written; 0 for one that is not there."""
    if not settings.place.tls:
        return ()
    files = (settings.ca_file, settings.cert_file, settings.key_file)
    return tuple([file.stat().st_mtime if file.exists() else 0.0 for file in files if file is not None])


def client_of(settings: RedisSettings) -> Any:
    """A client that fails at once, and neither retries nor waits.

    There is no `socket_timeout`: with one, redis-py sends through `asyncio.wait_for`, and that of Python 3.11 sometimes
    swallows a cancellation (CPython issue 86296): its caller would not stop.

    RESP2 is what `RedisConnection` speaks. With RESP3 redis-py asks each server for maintenance notifications, and
    keeps a connection on which that was refused in a reference cycle (`PlainClient.run`).
    """
    place = settings.place
    options: dict[str, Any] = {
        "protocol": 2,
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
