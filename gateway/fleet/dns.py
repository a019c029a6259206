"""DNS discovery: every address of a name is a node. The name is resolved again every few seconds."""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass

import structlog

from gateway.fleet.node_sources import NodeSources
from gateway.fleet.node_spec import NodeSpec

log = structlog.get_logger("fleetgate.discovery")


Resolve = Callable[[str], Awaitable[Iterable[str]]]


@dataclass(frozen=True, slots=True)
class DnsName:
    """`host` is resolved every `interval` seconds; each address is a node like `spec`, on `port`."""

    host: str
    port: int
    interval: float
    spec: NodeSpec


class DnsWatch:
    """Gives the addresses of a name to `NodeSources`. While the name does not resolve, the last addresses stay: a node
    that is gone accepts no connections, and a name server that is down must not remove nodes."""

    def __init__(self, name: DnsName, sources: NodeSources, source: str, resolve: Resolve | None = None) -> None:
        """`resolve` returns the addresses of a host, or raises OSError; None: the system's resolver."""
        self._name = name
        self._resolve = resolve or _resolve_by_system
        self._sources = sources
        self._source = source
        self._failing = False

    async def run(self) -> None:
        """Resolve, for ever."""
        while True:
            try:
                await self.resolve()
            except Exception:
                log.exception("dns_refresh_failed", host=self._name.host)
            await asyncio.sleep(self._name.interval)

    async def resolve(self) -> None:
        """Resolve once."""
        name = self._name
        try:
            addresses = await self._resolve(name.host)
        except OSError as error:
            if not self._failing:
                log.warning("dns_lookup_failed", host=name.host, error=str(error))
            self._failing = True
            return
        self._failing = False
        self._sources.update(self._source, [self._spec(address) for address in sorted(set(addresses))])

    def _spec(self, address: str) -> NodeSpec:
        spec = self._name.spec
        host = f"[{address}]" if ":" in address else address
        return NodeSpec(
            url=f"{spec.url.partition('://')[0]}://{host}:{self._name.port}",
            api_key=spec.api_key,
            ca_file=spec.ca_file,
            max_concurrency=spec.max_concurrency,
            priority_scheduling=spec.priority_scheduling,
            weight=spec.weight,
            price=spec.price,
            labels=spec.labels,
        )


async def _resolve_by_system(host: str) -> list[str]:
    found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return [str(address[0]) for _, _, _, _, address in found]
