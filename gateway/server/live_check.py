"""The live check behind `fleetgate check --probe`: asks the nodes and the Redis of a configuration, as a gateway would.

It asks for no tokens, and writes nothing but the key by which a gateway finds out whether Redis accepts writes.
"""

import asyncio
import socket
from collections.abc import Iterable
from difflib import get_close_matches
from typing import NamedTuple

from gateway.config.tree import Config
from gateway.core.fleet.model_cards import read_cards
from gateway.fleet.dns import DnsWatch
from gateway.fleet.node_client import NodeClient, NodeRequestError
from gateway.fleet.node_sources import NodeSources
from gateway.fleet.node_spec import NodeSpec
from gateway.server.dry_run import silence
from gateway.wiring import parts
from gateway.wiring.reloadable import named_models_of, reloadable

AT_ONCE = 32
"""Nodes that are asked at the same time."""

SHOWN_MODELS = 5


class ProbeResult(NamedTuple):
    """What was asked, whether it is as it should be, and what it said."""

    what: str
    ok: bool
    words: str


class _AskedNode(NamedTuple):
    finding: ProbeResult
    models: frozenset[str]


async def ask_all(config: Config) -> list[ProbeResult]:
    """Ask every node of the list and of the DNS, and Redis; registered nodes are not known here."""
    with silence():
        specs, lost = await _nodes(config)
        gate = asyncio.Semaphore(AT_ONCE)
        answers = await asyncio.gather(*(_ask_node(spec, config.health.timeout, gate) for spec in specs))
        redis = await ask_redis(config)
    served = frozenset[str]().union(*(answer.models for answer in answers))
    mixed = _in_several_groups(config, answers)
    return [*lost, *(answer.finding for answer in answers), *mixed, *_unserved(config, served), *redis]


async def _nodes(config: Config) -> tuple[list[NodeSpec], list[ProbeResult]]:
    """The nodes, and the names that have no address."""
    lost: list[ProbeResult] = []
    found = {spec.url: spec for spec in reloadable(config, config, b"").nodes}
    for name in parts.discovery(config).names:
        gathered: list[NodeSpec] = []
        sources = NodeSources(("check",), gathered.extend)
        try:
            await asyncio.get_running_loop().getaddrinfo(name.host, None, type=socket.SOCK_STREAM)
            await DnsWatch(name, sources, "check").resolve()
        except OSError as error:
            lost.append(ProbeResult(name.host, False, f"has no address ({error.strerror or error})"))
        found |= {spec.url: spec for spec in gathered if spec.url not in found}
    return list(found.values()), lost


async def _ask_node(spec: NodeSpec, seconds: float, gate: asyncio.Semaphore) -> _AskedNode:
    client = NodeClient(spec)
    nothing: frozenset[str] = frozenset()
    try:
        async with gate, asyncio.timeout(seconds):
            health = await client.get("/health")
            if health.status != 200:
                return _AskedNode(ProbeResult(spec.url, False, f"/health answered {health.status}"), nothing)
            page = await client.get("/v1/models")
            if page.status in (401, 403):
                words = f"/v1/models answered {page.status}: it requires a key (nodes[].api_key)"
                return _AskedNode(ProbeResult(spec.url, False, words), nothing)
            if page.status != 200:
                return _AskedNode(ProbeResult(spec.url, False, f"/v1/models answered {page.status}"), nothing)
            models = frozenset(read_cards(page.body))
    except TimeoutError:
        return _AskedNode(ProbeResult(spec.url, False, f"no answer within {seconds:g} s (health.timeout)"), nothing)
    except (NodeRequestError, ValueError) as error:
        return _AskedNode(ProbeResult(spec.url, False, str(error) or type(error).__name__), nothing)
    finally:
        client.close()
    return _AskedNode(ProbeResult(spec.url, bool(models), f"answers; serves {_shown(models)}"), models)


def _unserved(config: Config, served: frozenset[str]) -> Iterable[ProbeResult]:
    """Models of the file that no node serves. Nodes that register may serve them."""
    registered = config.discovery.registrations is not None
    for model in config.models:
        if model.name not in served:
            words = "no node of the file serves it" + ("; a registered one may" if registered else "")
            yield ProbeResult(f"model {model.name}", registered, words)
    if not config.models and served:
        for each in named_models_of(config):
            if each.model not in served:
                close = get_close_matches(each.model, served, n=1)
                words = f"no node of the file serves {each.model}" + ("; a registered one may" if registered else "")
                hint = f": did you mean {close[0]}?" if close else f"; served: {_shown(served)}"
                yield ProbeResult(f"tenant {each.tenant}", registered, words + hint)


def _in_several_groups(config: Config, answers: Iterable[_AskedNode]) -> Iterable[ProbeResult]:
    """Nodes whose models are not of one routing group."""
    groups = {model.name: model.routing_group for model in config.models}
    for answer in answers:
        named = {groups[model] for model in answer.models if model in groups}
        if len(named) > 1:
            words = f"serves models of {len(named)} routing groups: give {_shown(answer.models & groups.keys())}"
            yield ProbeResult(answer.finding.what, False, f"{words} the same models[].routing_group")


async def ask_redis(config: Config) -> list[ProbeResult]:
    """Whether Redis accepts writes; nothing where none is configured."""
    client = parts.redis_client(config)
    if client is None:
        return []
    try:
        await client.start()
        return [
            ProbeResult("redis", client.up, "answers and accepts writes" if client.up else client.reason or "is down")
        ]
    finally:
        await client.stop()


def _shown(models: frozenset[str]) -> str:
    names = sorted(models)
    more = f" and {len(names) - SHOWN_MODELS} more" if len(names) > SHOWN_MODELS else ""
    return ", ".join(names[:SHOWN_MODELS]) + more if names else "no model"
