"""The sources of nodes and the tasks that watch them: the config's own list, names in the DNS, registrations."""

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass
from typing import Any

from gateway.fleet.dns import DnsName, DnsWatch
from gateway.fleet.fleet import Fleet
from gateway.fleet.node_sources import NodeSources
from gateway.fleet.node_spec import NodeSpec
from gateway.fleet.registrations import SOURCE, RegistrationRules, Registrations
from gateway.redis.client import RedisClient

LIST = "config"


@dataclass(frozen=True, slots=True)
class DiscoverySettings:
    """The sources beside the config's list. `registrations` None: nodes cannot register."""

    names: tuple[DnsName, ...] = ()
    registrations: RegistrationRules | None = None


class Discovery:
    """The sources of nodes, and the tasks that watch them."""

    def __init__(
        self,
        settings: DiscoverySettings,
        fleet: Fleet,
        redis: RedisClient | None,
        on_change: Callable[[list[NodeSpec]], None],
    ) -> None:
        """`on_change` is called with all nodes whenever they have changed."""
        self._names = [(f"dns {name.host}:{name.port}", name) for name in settings.names]
        self._sources = NodeSources((LIST, *[source for source, _ in self._names], SOURCE), on_change)
        self._registrations = None
        if settings.registrations is not None and redis is not None:
            self._registrations = Registrations(redis, settings.registrations, self._sources, fleet)
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begin to watch names and registrations."""
        for source, name in self._names:
            self._run(DnsWatch(name, self._sources, source).run(), source)
        if self._registrations is not None:
            self._run(self._registrations.run(), SOURCE)

    def configure(self, nodes: Iterable[NodeSpec]) -> None:
        """Have the config list these nodes from now on."""
        self._sources.update(LIST, list(nodes))

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _run(self, work: Coroutine[Any, Any, None], name: str) -> None:
        self._tasks.append(asyncio.create_task(work, name=name))
