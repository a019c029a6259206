"""One node's probes, round after round: whether it lives, which models it serves, how busy it is.

Probes alone readmit no node: an API server answers them while its engine is dead. A node whose breaker is open for more
than lateness has to pass a trial first, a completion of one token (see `core.fleet.breaker`), so that no client's
request is the trial. A node that failed a client's request has to pass one at once, since the request may be at fault.
A node that overran a budget has its canary run again.
"""

import asyncio
import contextlib
import random
from collections.abc import Callable, Mapping
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
from gateway.fleet.node_client import get
from gateway.fleet.probe import ask_one_token
from gateway.telemetry.shortages import ResourceShortages, shortage_behind

log = structlog.get_logger("fleetgate.prober")

UNREADY_INTERVAL = 0.5
"""Seconds between two probes of a node that is not ready, and between two checks for doubts about one that is."""


@dataclass(frozen=True, slots=True)
class ProbeSettings:
    """Seconds between probes (with a tenth of jitter), seconds for one, and how many may fail in a row.

    `canary`: each node is asked to show what it can do; otherwise it is trusted to hold budgets. `native`: a node
    that has shown that it holds budgets is relied on. `find_knee`: how many requests at once a node works best with is
    found from its metrics, where it is not configured.
    """

    interval: float
    timeout: float
    failure_threshold: int
    canary: bool = True
    native: bool = True
    find_knee: bool = True


class NodeProbes:
    """A round is `probe`, `conclude`, `pause`.

    A probe is `/health`, then `/v1/models`; both have to answer 200. The load is read from `/metrics`, if there is one.
    """

    def __init__(
        self,
        node: Node,
        client: httpx.AsyncClient,
        canary: Canary,
        group: asyncio.TaskGroup,
        fleet: Fleet,
        shortages: ResourceShortages,
        settings: Callable[[], ProbeSettings],
    ) -> None:
        """`group` runs what takes longer than a round: canaries and checks."""
        self._node = node
        self._client = client
        self._canary = canary
        self._group = group
        self._fleet = fleet
        self._shortages = shortages
        self._settings = settings
        self._was_ready = node.ready

    async def probe(self) -> None:
        """One round: probe the node, read its load, and run the trial that readmits it, where one is due."""
        self._was_ready = self._node.ready
        if await self._probe():
            await self._read_load()
            if self._node.breaker.trial_due(_now()):
                await self._readmit()
        if self._node.failing is not None:
            self._node.breaker.doubt()  # it may get no requests: only a trial finds out whether it is back
        self._node.refresh(_now())

    def conclude(self, is_first: bool) -> None:
        """Begin what the round has shown to be due, and log where the node's readiness has changed."""
        if self._node.ready and self._settings().canary and self._canary.due:
            self._group.create_task(self._prove())
        self._begin_checks()
        if self._node.ready != self._was_ready or is_first:  # also where it never was: its URL may be mistyped
            emit, event = (log.info, "node_ready") if self._node.ready else (log.warning, "node_not_ready")
            emit(event, node=self._node.name, error=self._node.last_error)

    async def pause(self) -> None:
        """Wait for the next round: shortly where the node is not ready, or a request finds that it is not."""
        end = _now() + self._settings().interval * random.uniform(0.9, 1.1)
        while (left := end - _now()) > 0:
            step = UNREADY_INTERVAL * random.uniform(0.9, 1.1)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(left, step)):
                    await self._node.attention.wait()
            self._node.attention.clear()
            if not self._node.ready:
                return
            self._begin_checks()

    def _begin_checks(self) -> None:
        """Begin the checks that failed requests have made due, one of each kind at a time and not too often."""
        if self._node.ready and self._node.breaker.begin_check(_now()):
            self._group.create_task(self._check())
        if (
            self._node.ready
            and self._settings().native
            and self._canary.begin_recheck(_now(), self._node.budget_suspected)
        ):
            self._group.create_task(self._recheck())

    async def _probe(self) -> bool:
        """Whether the node answered."""
        failure_threshold, since = self._settings().failure_threshold, _now() - self._settings().interval
        try:
            async with asyncio.timeout(self._settings().timeout):
                cards = await _read_cards(self._client)
                await self._read_capabilities(cards)
        except TimeoutError:
            self._node.probe_failed(
                f"no answer to its probe within {self._settings().timeout:g} s", failure_threshold, _now(), since
            )
        except httpx.ConnectError as error:
            if self._is_own_shortage(error):
                return False
            self._canary.restarted()
            if self._node.heard_at <= since:
                self._node.refused(f"connection failed: {error}", _now())
        except (httpx.HTTPError, ValueError) as error:
            self._node.probe_failed(str(error) or type(error).__name__, failure_threshold, _now(), since)
        else:
            self._node.probe_succeeded(cards, _now())
            return True
        return False

    async def _read_capabilities(self, cards: Mapping[str, Mapping[str, Any]]) -> None:
        """Read, before the node is ready, what the gateway needs to hold budgets for it."""
        if not self._settings().canary:
            if self._node.capabilities is UNKNOWN:
                self._node.capabilities = BELIEVED
            elif self._node.capabilities.native_budget is False and not self._canary.has_read:  # it overran a budget
                self._node.capabilities = replace(
                    await self._canary.read_capabilities(self._client, cards), native_budget=False
                )
        elif not self._canary.has_read or self._node.capabilities is UNKNOWN or self._node.capabilities is BELIEVED:
            with contextlib.suppress(httpx.HTTPError):  # it serves all the same: the gateway holds its budgets
                self._node.capabilities = await self._canary.read_capabilities(self._client, cards)

    async def _read_load(self) -> None:
        """Best effort: the last load stays where none can be read."""
        with contextlib.suppress(TimeoutError, httpx.HTTPError, ValueError):
            async with asyncio.timeout(self._settings().timeout):
                sent = self._node.in_flight
                page = await get(self._client, "/metrics")
            if page.status == 200:
                before = self._node.load
                load = read_node_metrics(page.body.decode(errors="replace"), _now())
                self._fleet.load_told(self._node, load, self._settings().find_knee, sent)
                if before is not None and (load.generated or 0) < (before.generated or 0):
                    self._canary.restarted()  # faster than a probe could fail

    async def _readmit(self) -> None:
        """Run the trial of a node whose breaker is open; a node that passes is on probation."""
        problem = await ask_one_token(self._client, next(iter(self._node.cards), ""))
        if problem is None:
            self._node.answered(_now())
            self._node.last_error = None
        elif not self._is_own_shortage(problem.error):
            self._node.breaker.trial_failed(_now())
            self._node.last_error = problem.message

    async def _check(self) -> None:
        """Run the trial of a ready node that failed a client's request. A late answer does not count: clients can fill
        the queue of a node, and hang detection finds one that hangs."""
        breaker = self._node.breaker
        try:
            problem = await ask_one_token(self._client, next(iter(self._node.cards), ""))
        finally:
            breaker.end_check(_now())
        if problem is None and self._node.breaker is breaker:
            self._node.check_passed()
        if problem is None or not problem.certain or self._is_own_shortage(problem.error):
            return
        if self._node.breaker is breaker:
            self._fleet.check_failed(self._node, problem.message, _now())

    async def _prove(self) -> None:
        """Run the canary. The node serves meanwhile, and also where the canary fails."""
        self._node.budget_suspected = False
        try:
            await self._canary.prove(self._client, next(iter(self._node.cards), ""), _now())
            problem = None
        except Exception as error:  # the node serves on, whatever it answered: the gateway holds its budgets
            if self._is_own_shortage(error):
                self._canary.restarted()  # run it again
                return
            log.warning("canary_failed", node=self._node.name, exc_info=not isinstance(error, httpx.HTTPError))
            problem = str(error) or type(error).__name__
            self._canary.died()
        self._node.capabilities = self._relied_on(self._canary.capabilities)
        _log_capabilities(self._node, problem)

    async def _recheck(self) -> None:
        """Find out again whether the node holds budgets. Without a clear answer nothing changes."""
        starts = self._canary.starts
        holds: bool | None = None
        problem = None
        try:
            holds = await self._canary.recheck(self._client, self._node.cards)
        except Exception as error:
            log.warning("canary_failed", node=self._node.name, exc_info=not isinstance(error, httpx.HTTPError))
            problem = str(error) or type(error).__name__
        finally:
            self._canary.end_recheck(_now(), holds)
        if self._canary.starts != starts or holds is None:
            return  # the node has restarted meanwhile, or did not answer
        self._node.budget_suspected = False
        if holds is not self._node.capabilities.native_budget:
            known = (
                self._node.capabilities
                if self._node.capabilities.think_end
                else replace(self._canary.capabilities, pace=self._node.capabilities.pace)
            )
            self._node.capabilities = replace(known, native_budget=holds)
            _log_capabilities(self._node, problem)

    def _relied_on(self, found: Capabilities) -> Capabilities:
        return found if self._settings().native else replace(found, native_budget=False)

    def _is_own_shortage(self, error: BaseException | None) -> bool:
        return is_own_shortage(error, self._node, self._shortages)


def is_own_shortage(error: BaseException | None, node: Node, shortages: ResourceShortages) -> bool:
    """Whether `error` says nothing about `node`: this machine had no connection to give."""
    cause = None if error is None else shortage_behind(error)
    if cause is None:
        return False
    shortages.note(cause, "probing a node")
    if not node.ready:
        node.last_error = f"not probed: the gateway's machine is out of resources ({cause})"
    return True


def _log_capabilities(node: Node, problem: str | None) -> None:
    found = node.capabilities
    emit = log.info if found.native_budget and found.native_off else log.warning
    emit(
        "node_canary_finished",
        node=node.name,
        holds_budgets=found.native_budget,
        follows_thinking_off=found.native_off,
        splits_reasoning=found.splits_reasoning,
        version=".".join(map(str, found.version or ())) or None,
        error=problem,
    )


def _now() -> float:
    return asyncio.get_running_loop().time()


async def _read_cards(client: httpx.AsyncClient) -> Mapping[str, Mapping[str, Any]]:
    """The node's model cards by id; an httpx error or ValueError says why it is not ready."""
    health = await get(client, "/health")
    if health.status != 200:
        raise ValueError(f"/health answered {health.status}")
    listing = await get(client, "/v1/models")
    if listing.status != 200:
        raise ValueError(f"/v1/models answered {listing.status}")
    return read_cards(listing.body)
