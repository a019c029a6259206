"""Asking every node, again and again, whether it lives and what it serves."""

import asyncio
import random
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import httpx
import structlog

from gateway.fleet.fleet import Fleet
from gateway.fleet.node import Node

log = structlog.get_logger("fleetgate.prober")


@dataclass(frozen=True, slots=True)
class ProbeTiming:
    """Seconds between probes (with a tenth of jitter), seconds for one, and how many may fail in a row."""

    interval: float
    timeout: float
    tolerated: int


class Prober:
    """One background task per node. A probe is `/health`, then `/v1/models`; both have to answer 200."""

    def __init__(self, fleet: Fleet, timing: ProbeTiming) -> None:
        self._fleet = fleet
        self._timing = timing
        self._tasks: dict[Node, asyncio.Task[None]] = {}

    def follow(self) -> None:
        """Probe the nodes that the fleet has now, and no others. Called at start and after every update."""
        for node in [node for node in self._tasks if node not in self._fleet.nodes]:
            self._tasks.pop(node).cancel()
        for node in self._fleet.nodes:
            if node not in self._tasks:
                self._tasks[node] = asyncio.create_task(self._watch(node), name=f"probe {node.name}")

    def retime(self, timing: ProbeTiming) -> None:
        """Use other timings from the next round on."""
        self._timing = timing

    async def stop(self) -> None:
        tasks = list(self._tasks.values())
        self._tasks.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _watch(self, node: Node) -> None:
        while True:
            try:
                async with _client(node) as client:
                    await self._probe_for_ever(client, node)
            except Exception as error:
                node.refused(f"cannot be probed: {error}")
                log.exception("probing_failed_unexpectedly", node=node.name)
                await asyncio.sleep(self._timing.interval)

    async def _probe_for_ever(self, client: httpx.AsyncClient, node: Node) -> None:
        while True:
            await self._probe(client, node)
            pause = self._timing.interval if node.ready else min(self._timing.interval, 1.0)
            await asyncio.sleep(pause * random.uniform(0.9, 1.1))

    async def _probe(self, client: httpx.AsyncClient, node: Node) -> None:
        before = node.ready
        try:
            async with asyncio.timeout(self._timing.timeout):
                cards = await _ask(client)
        except TimeoutError:
            node.probe_failed(f"no answer to its probe within {self._timing.timeout:g} s", self._timing.tolerated)
        except httpx.ConnectError as error:
            node.refused(f"takes no connection: {error}")
        except (httpx.HTTPError, ValueError) as error:
            node.probe_failed(str(error) or type(error).__name__, self._timing.tolerated)
        else:
            node.probe_succeeded(cards)
        if node.ready != before:
            log.info("node_ready" if node.ready else "node_not_ready", node=node.name, error=node.last_error)


def _client(node: Node) -> httpx.AsyncClient:
    headers = {"authorization": f"Bearer {node.spec.api_key}"} if node.spec.api_key else {}
    verify: ssl.SSLContext | bool = True
    if node.spec.ca_file is not None:
        verify = ssl.create_default_context(cafile=node.spec.ca_file)
    return httpx.AsyncClient(base_url=node.spec.url, headers=headers, verify=verify, timeout=None, trust_env=False)


async def _ask(client: httpx.AsyncClient) -> Mapping[str, Mapping[str, Any]]:
    """The node's model cards by id; an httpx error or ValueError says why it is not ready."""
    health = await client.get("/health")
    if health.status_code != 200:
        raise ValueError(f"/health answered {health.status_code}")
    listing = await client.get("/v1/models")
    if listing.status_code != 200:
        raise ValueError(f"/v1/models answered {listing.status_code}")
    try:
        return {card["id"]: card for card in listing.json()["data"]}
    except (KeyError, TypeError, ValueError):
        raise ValueError("/v1/models answered something that is not a list of models") from None
