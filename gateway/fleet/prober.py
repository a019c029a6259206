"""The prober: one background task for each node, which probes the node for as long as it is in the fleet."""

import asyncio
import contextlib

import structlog

from gateway.fleet.canary import Canary
from gateway.fleet.fleet import Fleet
from gateway.fleet.node import Node
from gateway.fleet.node_client import client_of
from gateway.fleet.node_probes import NodeProbes, ProbeSettings, is_own_shortage
from gateway.telemetry.shortages import ResourceShortages

log = structlog.get_logger("fleetgate.prober")

Access = tuple[str, str | None, str | None]


class Prober:
    """The tasks, by node and by the way in which the node is reached."""

    def __init__(self, fleet: Fleet, settings: ProbeSettings, shortages: ResourceShortages) -> None:
        self._fleet = fleet
        self._shortages = shortages
        self._tasks: dict[tuple[Node, Access], asyncio.Task[None]] = {}
        self._probed: set[Node] = set()
        self._progress = asyncio.Event()
        self.configure(settings)

    def configure(self, settings: ProbeSettings) -> None:
        """Go by `settings` from each node's next round on."""
        self._settings = settings

    def sync_tasks(self) -> None:
        """Have a task for each node of the fleet, as it is reached now, and no others. Called at start and after every
        update of the fleet."""
        wanted = {(node, node.access) for node in self._fleet.nodes}
        for gone in self._tasks.keys() - wanted:
            self._tasks.pop(gone).cancel()
        for node, access in wanted - self._tasks.keys():
            self._tasks[node, access] = asyncio.create_task(self._run(node), name=f"probe {node.name}")
        self._probed.intersection_update(self._fleet.nodes)

    async def first_round(self, seconds: float) -> None:
        """Wait until every node was probed once, or for `seconds`."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while not all(node in self._probed for node in self._fleet.nodes):
                    await self._progress.wait()
                    self._progress.clear()

    async def stop(self) -> None:
        tasks = list(self._tasks.values())
        self._tasks.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self, node: Node) -> None:
        """Probe `node` for ever. After an unexpected failure everything about the node is found out anew."""
        while True:
            try:
                async with client_of(node) as client, asyncio.TaskGroup() as group:
                    probes = NodeProbes(
                        node, client, Canary(), group, self._fleet, self._shortages, lambda: self._settings
                    )
                    while True:
                        await probes.probe()
                        is_first = node not in self._probed
                        self._probed.add(node)
                        self._progress.set()
                        probes.conclude(is_first)
                        await probes.pause()
            except Exception as error:
                if not is_own_shortage(error, node, self._shortages):
                    node.refused(f"probe failed: {error}", asyncio.get_running_loop().time())
                    log.exception("probe_loop_failed", node=node.name)
                await asyncio.sleep(self._settings.interval)
