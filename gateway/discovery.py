"""Puts together where nodes come from, by what the config says: its own list, names in the DNS, registrations."""

import asyncio
import ipaddress
from collections.abc import Callable, Coroutine
from typing import Any

from gateway.config.discovery import DnsConfig, RegistrationsConfig
from gateway.config.fleet import NodeConfig
from gateway.config.tree import Config
from gateway.core.registration import Belief
from gateway.fleet.dns import DnsName, DnsWatch
from gateway.fleet.fleet import Fleet
from gateway.fleet.node import NodeSpec
from gateway.fleet.registrations import SOURCE, RegistrationRules, Registrations
from gateway.fleet.roster import Roster
from gateway.shared.link import Link

LIST = "config"


class Discovery:
    """The sources of nodes, and the tasks that watch them."""

    def __init__(self, config: Config, fleet: Fleet, link: Link | None, take: Callable[[list[NodeSpec]], None]) -> None:
        """`take` is given all nodes whenever they have changed."""
        self._names = [(f"dns {name.host}:{name.port}", _dns_name(name)) for name in config.discovery.dns]
        self._roster = Roster((LIST, *[source for source, _ in self._names], SOURCE), take)
        told = config.discovery.registrations
        self._registrations = None
        if told is not None and link is not None:
            self._registrations = Registrations(link, _rules(told), self._roster, fleet)
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begin to watch names and registrations."""
        for source, name in self._names:
            self._run(DnsWatch(name, self._roster, source).follow(), source)
        if self._registrations is not None:
            self._run(self._registrations.follow(), SOURCE)

    def list_nodes(self, config: Config) -> None:
        """Take the nodes of the config's own list."""
        self._roster.tell(LIST, [_spec(node) for node in config.nodes])

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _run(self, work: Coroutine[Any, Any, None], name: str) -> None:
        self._tasks.append(asyncio.create_task(work, name=name))


def _spec(node: NodeConfig) -> NodeSpec:
    return NodeSpec(
        url=node.url,
        api_key=node.api_key.reveal() if node.api_key is not None else None,
        ca_file=str(node.ca_file) if node.ca_file is not None else None,
        max_concurrency=node.max_concurrency,
        weight=node.weight,
        price=node.price,
        labels=tuple(node.labels.items()),
    )


def _dns_name(name: DnsConfig) -> DnsName:
    spec = NodeSpec(
        url=f"{name.scheme}://{name.host}",
        api_key=name.api_key.reveal() if name.api_key is not None else None,
        ca_file=str(name.ca_file) if name.ca_file is not None else None,
        max_concurrency=name.max_concurrency,
        weight=name.weight,
    )
    return DnsName(name.host, name.port, name.interval, spec)


def _rules(told: RegistrationsConfig) -> RegistrationRules:
    belief = Belief(
        secret=told.secret.reveal() if told.secret is not None else None,
        networks=tuple(ipaddress.ip_network(network) for network in told.networks),
        models=frozenset(told.models),
        skew=told.skew,
    )
    return RegistrationRules(
        belief=belief,
        interval=told.interval,
        api_key=told.api_key.reveal() if told.api_key is not None else None,
        ca_file=str(told.ca_file) if told.ca_file is not None else None,
    )
