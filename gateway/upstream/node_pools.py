"""The connections to all nodes, one pool a node; new ones are made within the request's deadline."""

import asyncio
from collections.abc import Iterable

from gateway.core.errors import ConnectFailed, OutOfResources
from gateway.fleet.node import Node
from gateway.telemetry.shortages import ResourceShortages
from gateway.upstream.connection import UpstreamConnection
from gateway.upstream.failed_answers import deadline_exceeded
from gateway.upstream.pool import Pool

CLOCK_STEP = 0.01
"""Seconds: the event loop's clock moves in milliseconds, and a time-out may end a little before its time."""


class NodePools:
    """By a node's URL, key and certificate: a node that is reached in a new way gets a new pool."""

    def __init__(self, shortages: ResourceShortages) -> None:
        self._shortages = shortages
        self._pools: dict[tuple[str, str | None, str | None], Pool] = {}

    async def connect(
        self, pool: Pool, timeout: float, deadline: float, loop: asyncio.AbstractEventLoop
    ) -> UpstreamConnection:
        """A new connection of `pool`. `timeout` is in seconds, `deadline` is loop time.

        Raises `ConnectFailed`, `OutOfResources` where this machine has nothing left for it, and `DeadlineExceeded`.
        """
        try:
            return await self._connect(pool, min(timeout, deadline - loop.time()))
        except ConnectFailed:
            if loop.time() < deadline - CLOCK_STEP:
                raise
            raise deadline_exceeded() from None  # a short deadline says nothing about the node
        except OutOfResources as error:
            self._shortages.note(error.cause, "connecting to a node")
            raise

    def of(self, node: Node) -> Pool:
        pool = self._pools.get(node.access)
        if pool is None:
            spec = node.spec
            pool = Pool(spec.url, spec.api_key, spec.ca_file)
            if node.left:  # it would be closed by nobody
                pool.close()
            else:
                self._pools[node.access] = pool
        return pool

    def keep_only(self, nodes: Iterable[Node]) -> None:
        """Close the pools of all other nodes; their open exchanges run to the end."""
        for access in self._pools.keys() - {node.access for node in nodes}:
            self._pools.pop(access).close()

    def close(self) -> None:
        for pool in self._pools.values():
            pool.close()

    def drop_idle(self) -> bool:
        """Close all connections that no request uses now; whether there were any."""
        dropped = [pool.drop_idle() for pool in self._pools.values()]
        return True in dropped

    async def _connect(self, pool: Pool, timeout: float) -> UpstreamConnection:
        """Where this machine has nothing left for it, idle connections are closed first."""
        try:
            return await pool.connect(timeout)
        except OutOfResources:
            if not self.drop_idle():
                raise
        for _ in range(2):  # turns of the loop, until the sockets are closed
            await asyncio.sleep(0)
        return await pool.connect(timeout)
