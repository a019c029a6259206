"""Asking every node, again and again, whether it lives, what it serves and how busy it is.

Probes alone readmit nobody: an API server answers them while its engine is dead. A node whose breaker is open for
more than lateness is asked a tiny completion first (see `core.breaker`), so that no user's request is the trial. So is
one that failed a user's request, at once: users are no witnesses. One that overran a budget has its canary run again.
"""

import asyncio
import contextlib
import random
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import httpx
import structlog

from gateway.core.fleet.capabilities import BELIEVED, UNKNOWN, Capabilities
from gateway.core.fleet.model_cards import read_cards
from gateway.core.fleet.node_metrics import read_node_metrics
from gateway.fleet.canary import Canary
from gateway.fleet.fleet import Fleet
from gateway.fleet.node import Node
from gateway.fleet.node_client import client_of, get
from gateway.fleet.probe import ask_one_token
from gateway.telemetry.shortages import ResourceShortages, shortage_behind

log = structlog.get_logger("fleetgate.prober")

Access = tuple[str, str | None, str | None]


@dataclass(frozen=True, slots=True)
class ProbeSettings:
    """Seconds between probes (with a tenth of jitter), seconds for one, and how many may fail in a row.

    `canary`: each node is asked to show what it can do; otherwise it is trusted to hold budgets. `native`: a node
    that has shown that it holds budgets is relied on.
    """

    interval: float
    timeout: float
    tolerated: int
    canary: bool = True
    native: bool = True


FOUND_WITHIN = 0.5
"""Seconds between two probes of a node that is not ready: one that came back is found soon."""


class Prober:
    """One background task per node. A probe is `/health`, then `/v1/models`; both have to answer 200. The load on
    `/metrics` is read with it where it is given; without it a node serves as well."""

    def __init__(self, fleet: Fleet, settings: ProbeSettings, shortages: ResourceShortages) -> None:
        self._fleet = fleet
        self._shortages = shortages
        self._tasks: dict[tuple[Node, Access], asyncio.Task[None]] = {}
        self._asked: set[Node] = set()
        self._news = asyncio.Event()
        self.configure(settings)

    def configure(self, settings: ProbeSettings) -> None:
        """Go by `settings` from each node's next round on."""
        self._settings = settings

    def sync_tasks(self) -> None:
        """Probe the nodes that the fleet has now, as they are reached now, and no others. Called at start and after
        every update."""
        wanted = {(node, node.access) for node in self._fleet.nodes}
        for gone in self._tasks.keys() - wanted:
            self._tasks.pop(gone).cancel()
        for node, access in wanted - self._tasks.keys():
            self._tasks[node, access] = asyncio.create_task(self._watch(node), name=f"probe {node.name}")
        self._asked.intersection_update(self._fleet.nodes)

    async def first_round(self, seconds: float) -> None:
        """Wait until every node was asked once, or for `seconds`."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while not self._all_asked():
                    await self._news.wait()
                    self._news.clear()

    def _all_asked(self) -> bool:
        return all(node in self._asked for node in self._fleet.nodes)

    async def stop(self) -> None:
        tasks = list(self._tasks.values())
        self._tasks.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _watch(self, node: Node) -> None:
        while True:
            try:
                async with client_of(node) as client, asyncio.TaskGroup() as beside:
                    await self._probe_for_ever(client, node, Canary(), beside)
            except Exception as error:
                if not self._own_shortage(error, node):
                    node.refused(f"cannot be probed: {error}", _now())
                    log.exception("probing_failed_unexpectedly", node=node.name)
                await asyncio.sleep(self._settings.interval)

    async def _probe_for_ever(
        self, client: httpx.AsyncClient, node: Node, canary: Canary, beside: asyncio.TaskGroup
    ) -> None:
        while True:
            before = node.ready
            if await self._probe(client, node, canary):
                await self._read_load(client, node, canary)
                if node.breaker.trial_due(_now()):
                    await self._try_out(client, node)
            if node.failing is not None:
                node.breaker.doubt()  # nobody may be asking it: whether it is back has to be found out
            node.refresh(_now())
            is_first = node not in self._asked
            self._asked.add(node)
            self._news.set()
            if node.ready and self._settings.canary and canary.due:
                beside.create_task(self._prove(client, node, canary))
            self._look_closer(client, node, canary, beside)
            if node.ready != before or is_first:  # also where it never was: its URL may be mistyped
                say, what = (log.info, "node_ready") if node.ready else (log.warning, "node_not_ready")
                say(what, node=node.name, error=node.last_error)
            await self._pause(client, node, canary, beside)

    async def _pause(self, client: httpx.AsyncClient, node: Node, canary: Canary, beside: asyncio.TaskGroup) -> None:
        """Until the next probe: soon where the node is not ready, also where a request finds that out meanwhile."""
        end = _now() + self._settings.interval * random.uniform(0.9, 1.1)
        while (left := end - _now()) > 0:
            step = FOUND_WITHIN * random.uniform(0.9, 1.1)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(left, step)):
                    await node.attention.wait()
            node.attention.clear()
            if not node.ready:
                return
            self._look_closer(client, node, canary, beside)

    def _look_closer(self, client: httpx.AsyncClient, node: Node, canary: Canary, beside: asyncio.TaskGroup) -> None:
        """Begin what requests have given reason to ask, one at a time and not too often."""
        if node.ready and node.breaker.begin_check(_now()):
            beside.create_task(self._check(client, node))
        if node.ready and self._settings.native and canary.begin_recheck(_now(), node.budget_suspected):
            beside.create_task(self._recheck(client, node, canary))

    async def _probe(self, client: httpx.AsyncClient, node: Node, canary: Canary) -> bool:
        """Whether it answered."""
        tolerated, since = self._settings.tolerated, _now() - self._settings.interval
        try:
            async with asyncio.timeout(self._settings.timeout):
                cards = await _ask(client)
                await self._learn(client, node, canary, cards)
        except TimeoutError:
            node.probe_failed(f"no answer to its probe within {self._settings.timeout:g} s", tolerated, _now(), since)
        except httpx.ConnectError as error:
            if self._own_shortage(error, node):
                return False
            canary.restarted()
            if node.heard_at <= since:
                node.refused(f"takes no connection: {error}", _now())
        except (httpx.HTTPError, ValueError) as error:
            node.probe_failed(str(error) or type(error).__name__, tolerated, _now(), since)
        else:
            node.probe_succeeded(cards, _now())
            return True
        return False

    async def _learn(
        self, client: httpx.AsyncClient, node: Node, canary: Canary, cards: Mapping[str, Mapping[str, Any]]
    ) -> None:
        """Before it is ready, what it takes to hold a budget in its place."""
        if not self._settings.canary:
            if node.capabilities is UNKNOWN:
                node.capabilities = BELIEVED
            elif (
                node.capabilities.native_budget is False and not canary.learnt
            ):  # it was believed and has shown otherwise
                node.capabilities = replace(await canary.read_capabilities(client, cards), native_budget=False)
        elif not canary.learnt or node.capabilities is UNKNOWN or node.capabilities is BELIEVED:
            with contextlib.suppress(httpx.HTTPError):  # it serves as well, with the gateway in its place
                node.capabilities = await canary.read_capabilities(client, cards)

    async def _read_load(self, client: httpx.AsyncClient, node: Node, canary: Canary) -> None:
        """Best effort: what was read last stays where nothing comes."""
        with contextlib.suppress(TimeoutError, httpx.HTTPError, ValueError):
            async with asyncio.timeout(self._settings.timeout):
                page = await get(client, "/metrics")
            if page.status == 200:
                before = node.load
                node.load_told(load := read_node_metrics(page.body.decode(errors="replace"), _now()))
                if before is not None and (load.generated or 0) < (before.generated or 0):
                    canary.restarted()  # so soon that no probe has missed it

    async def _try_out(self, client: httpx.AsyncClient, node: Node) -> None:
        """The trial of a node that is out. What it is worth then shows in its probation."""
        problem = await ask_one_token(client, next(iter(node.cards), ""))
        if problem is None:
            node.answered(_now())
            node.last_error = None
        elif not self._own_shortage(problem.error, node):
            node.breaker.trial_failed(_now())
            node.last_error = problem.told

    async def _check(self, client: httpx.AsyncClient, node: Node) -> None:
        """The same of a node that is in, and failed a client's request. One that is late may have a full queue, which
        clients can fill: whether it stands still is judged by the silence of all its answers."""
        breaker = node.breaker
        try:
            problem = await ask_one_token(client, next(iter(node.cards), ""))
        finally:
            breaker.end_check(_now())
        if problem is None and node.breaker is breaker:
            node.check_passed()
        if problem is None or not problem.certain or self._own_shortage(problem.error, node):
            return
        if node.breaker is breaker:
            self._fleet.check_failed(node, problem.told, _now())

    async def _prove(self, client: httpx.AsyncClient, node: Node, canary: Canary) -> None:
        """Ask the node what it can do. It serves meanwhile, and also where nothing comes of it."""
        node.budget_suspected = False
        try:
            await canary.prove(client, next(iter(node.cards), ""), _now())
            problem = None
        except Exception as error:  # whatever it answered: it goes on serving, with the gateway in its place
            if self._own_shortage(error, node):
                canary.restarted()  # to be asked again
                return
            log.warning("canary_failed", node=node.name, exc_info=not isinstance(error, httpx.HTTPError))
            problem = str(error) or type(error).__name__
            canary.died()
        node.capabilities = self._relied_on(canary.capabilities)
        _tell_abilities(node, problem)

    async def _recheck(self, client: httpx.AsyncClient, node: Node, canary: Canary) -> None:
        """Ask whether it holds budgets after all. Without a clear answer all stays as it is."""
        starts = canary.starts
        holds: bool | None = None
        problem = None
        try:
            holds = await canary.recheck(client, node.cards)
        except Exception as error:
            log.warning("canary_failed", node=node.name, exc_info=not isinstance(error, httpx.HTTPError))
            problem = str(error) or type(error).__name__
        finally:
            canary.end_recheck(_now(), holds)
        if canary.starts != starts or holds is None:
            return  # it was another process that answered, or nobody
        node.budget_suspected = False
        if holds is not node.capabilities.native_budget:
            known = (
                node.capabilities
                if node.capabilities.think_end
                else replace(canary.capabilities, pace=node.capabilities.pace)
            )
            node.capabilities = replace(known, native_budget=holds)
            _tell_abilities(node, problem)

    def _own_shortage(self, error: BaseException | None, node: Node) -> bool:
        """Whether it says nothing about the node: this machine had no connection to give."""
        cause = None if error is None else shortage_behind(error)
        if cause is None:
            return False
        self._shortages.note(cause, "probing a node")
        if not node.ready:
            node.last_error = f"cannot be probed: the gateway's machine is short of something ({cause})"
        return True

    def _relied_on(self, found: Capabilities) -> Capabilities:
        return found if self._settings.native else replace(found, native_budget=False)


def _tell_abilities(node: Node, problem: str | None) -> None:
    found = node.capabilities
    say = log.info if found.native_budget and found.native_off else log.warning
    say(
        "node_asked",
        node=node.name,
        holds_budgets=found.native_budget,
        heeds_thinking_off=found.native_off,
        splits_reasoning=found.splits_reasoning,
        version=".".join(map(str, found.version or ())) or None,
        error=problem,
    )


def _now() -> float:
    return asyncio.get_running_loop().time()


async def _ask(client: httpx.AsyncClient) -> Mapping[str, Mapping[str, Any]]:
    """The node's model cards by id; an httpx error or ValueError says why it is not ready."""
    health = await get(client, "/health")
    if health.status != 200:
        raise ValueError(f"/health answered {health.status}")
    listing = await get(client, "/v1/models")
    if listing.status != 200:
        raise ValueError(f"/v1/models answered {listing.status}")
    return read_cards(listing.body)
