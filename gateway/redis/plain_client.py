"""redis-py for plain commands: connected at the first use, and made anew once where a kept connection is lost."""

import asyncio
import contextlib
import ssl
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from redis.asyncio import Redis, RedisCluster
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisClusterException, RedisError

from gateway.redis.settings import Address, RedisSettings

CLOSING = 1.0
"""Seconds for the connections of a client whose certificates were written anew."""


class PlainClient:
    """One client of redis-py. The caller bounds the time of `run`, and says what its errors mean."""

    def __init__(self, settings: RedisSettings, beside: "PlainClient | None" = None) -> None:
        """`beside`: another client of the same Redis, which may know servers that this one has not heard of."""
        self._settings = settings
        self._beside = beside
        self._client: Any = None
        self._files: tuple[float, ...] = ()
        """When the certificates were written that it has read."""
        self._servers: tuple[Address, ...] = ()
        """Of a cluster, as last known: where the one that the URL names is away, any other tells of all."""
        self._left: set[asyncio.Task[bool]] = set()
        """Closes clients of earlier settings."""

    def configure(self, settings: RedisSettings, seconds: float) -> None:
        """Go over to `settings`: commands under way are run again with them. The old connections are closed within
        `seconds`."""
        self._settings, self._servers = settings, ()
        self._leave(seconds)

    def _leave(self, seconds: float) -> None:
        client, self._client = self._client, None
        if client is not None:
            task = asyncio.get_running_loop().create_task(_close(client, seconds))
            self._left.add(task)
            task.add_done_callback(self._left.discard)

    async def run(self, work: Callable[[Any], Awaitable[Any]]) -> Any:
        """`work(client)`, whose commands may be carried out twice: after a lost connection it is run again, once."""
        with contextlib.suppress(RedisConnectionError):
            return await self._run(work)
        if self._files != _written(self._settings):  # it may be the certificate that was refused
            self._leave(CLOSING)
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

    @property
    def servers(self) -> tuple[Address, ...]:
        """The servers of a cluster that are known; none of another Redis."""
        return self._servers if self._client is None else self._servers_of(self._client)

    def _servers_of(self, client: Any) -> tuple[Address, ...]:
        nodes = client.get_nodes() if self._settings.cluster else ()
        return tuple([(str(node.host), int(node.port)) for node in nodes]) or self._servers

    async def close(self, seconds: float) -> None:
        """Close the connections, within `seconds`; `run` opens new ones, to wherever the name leads then."""
        client, self._client, settings = self._client, None, self._settings
        if client is None:
            return
        self._servers = self._servers_of(client)
        closed = await _close(client, seconds)
        if closed and self._client is None and settings is self._settings and self._serves_again(client):
            self._client = client

    def _serves_again(self, client: Any) -> bool:
        """Whether a closed client would find what a new one finds: a new one for each probe leaves reference cycles.
        That of a cluster forgets the name once it knows the servers' addresses, which may be old ones."""
        return not (self._settings.cluster and client.get_nodes()) and self._files == _written(self._settings)

    def _connect(self) -> Any:
        if self._client is None:
            self._files = _written(self._settings)
            known = self._servers if self._beside is None else self._beside.servers or self._servers
            self._client = client_of(self._settings, known)
            self._servers = known[1:] + known[:1]  # the first one may be what hangs
        return self._client


async def _close(client: Any, seconds: float) -> bool:
    """Whether it was closed within `seconds`."""
    try:
        async with asyncio.timeout(seconds):
            await client.aclose()
            if isinstance(client, RedisCluster):  # which leaves open what it has while it is to look anew
                for node in (*client.get_nodes(), *client.nodes_manager.startup_nodes.values()):
                    with contextlib.suppress(RedisError, OSError):
                        await node.disconnect()
    except (RedisError, OSError, TimeoutError):
        return False
    return True


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


def client_of(settings: RedisSettings, servers: Sequence[Address] = ()) -> Any:
    """A client that fails at once, and neither retries nor waits. `servers` of a cluster are asked before the one that
    the URL names.

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
    if settings.cluster and servers:
        options["startup_nodes"] = [ClusterNode(host, port) for host, port in servers]
    kind: Any = RedisCluster if settings.cluster else Redis
    return kind.from_url(place.spelled(), **options)
