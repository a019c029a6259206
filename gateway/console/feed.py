"""What consoles see: gathered once a second while one is open, and sent as what has changed since the last time.

    a console is open   what is done
    nowhere             requests that ended are added to the last hour; a look whether somebody watches
    in another process  that, and this process's view is laid down (`exchange`)
    in this one         that, and all views are put together, compared with what the viewers have, and sent

All that is long is read in slices, between which streams go on. Only then, in one piece, are the tables changed and the
events sent: so a viewer that comes has either the state before, or the one behind.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import structlog

from gateway.console import node_rows, open_requests, tenant_figures
from gateway.console.exchange import IDLE_SECONDS, WATCHED_SECONDS, ConsoleExchange, Told
from gateway.console.fleet_state import FleetState
from gateway.console.history_feed import HistoryFeed
from gateway.console.open_requests import OpenCounts, OpenRequests, sum_counts
from gateway.console.orders import Orders
from gateway.console.peers import ConsolePeers
from gateway.console.tenant_figures import TenantFigures
from gateway.console.viewers import Viewers
from gateway.core.console.error_groups import ErrorGroup, ErrorGroups, add_up_groups
from gateway.core.console.history import History
from gateway.core.console.live_table import LiveTable
from gateway.core.console.tenant_sums import TenantUses, add_up_uses
from gateway.core.json_text import dump
from gateway.core.telemetry.request_stats import RequestStats

log = structlog.get_logger("fleetgate.console")

DIGESTED = 300
"""Requests that are added up at once: about a millisecond."""

MAX_UNDIGESTED = 50_000
"""Requests that wait to be added up; those beyond are missing from the console's charts."""

MAX_PEER_ROWS = 1000
"""Requests that are shown of all processes together."""


class ConsoleFeed:
    """Of one process, `name` to the others."""

    def __init__(
        self,
        name: str,
        state: FleetState,
        requests: OpenRequests,
        figures: TenantFigures,
        exchange: ConsoleExchange,
        flush: Callable[[], None],
        facts: Callable[[], dict[str, Any]],
    ) -> None:
        """`flush` has the metrics hand over the requests that have ended, to `note`."""
        self.viewers = Viewers()
        self.orders = Orders(exchange, requests, self._present)
        self._name = name
        self._state = state
        self._requests = requests
        self._figures = figures
        self._exchange = exchange
        self._flush = flush
        self._facts = facts
        self._ended: list[RequestStats] = []
        self._history = History()
        self._history_feed = HistoryFeed()
        self._errors = ErrorGroups()
        self._sums = TenantUses()
        self._watched = False
        self._tables = {
            "nodes": LiveTable(node_rows.COLUMNS),
            "models": LiveTable(FleetState.MODEL_COLUMNS),
            "tenants": LiveTable(tenant_figures.COLUMNS),
            "requests": LiveTable(open_requests.COLUMNS),
            "errors": LiveTable(ErrorGroup._fields),
        }
        self._shown_facts: dict[str, Any] = {}

    def note(self, ended: Sequence[RequestStats]) -> None:
        """Requests that have ended: some are added up at once, the rest later."""
        self._add_up(ended[:DIGESTED])
        room = max(0, MAX_UNDIGESTED - len(self._ended))
        self._ended += ended[DIGESTED : DIGESTED + room]

    async def run(self) -> None:
        """Gather and send, for ever."""
        while True:
            began = time.monotonic()
            try:
                await self._tick()
            except Exception:
                log.exception("console_feed_failed")
            watched = bool(len(self.viewers)) or self._watched
            pause = WATCHED_SECONDS if watched else IDLE_SECONDS
            self.viewers.woken.clear()
            if any(viewer.is_new for viewer in self.viewers):
                pause = 0.05  # it came meanwhile
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(0.05, pause - (time.monotonic() - began))):
                    await self.viewers.woken.wait()

    def close(self) -> None:
        """The process ends: no console is served any more."""
        self.viewers.close()

    async def stop(self) -> None:
        """Remove this process's view."""
        self.close()
        await self._exchange.withdraw()

    async def _tick(self) -> None:
        viewed = bool(len(self.viewers))
        if viewed:
            self._flush()
        await self._digest()
        if viewed:
            await self._serve()
        elif self._watched:
            await self._present()
        else:
            await self._hear(await self._exchange.exchange(None, watching=False))

    async def _digest(self) -> None:
        """Add up the requests that have ended."""
        now = time.time()
        for model, count in self._state.waiting().items():
            self._history.note_waiting(model, count, now)
        ended, self._ended = self._ended, []
        for start in range(0, len(ended), DIGESTED):
            self._add_up(ended[start : start + DIGESTED])
            await asyncio.sleep(0)
        self._history.forget(now)

    def _add_up(self, ended: Sequence[RequestStats]) -> None:
        now = time.time()
        self._history.note(ended, now)
        self._errors.note(ended)
        if not self._figures.stored:  # else the ledger has them
            self._sums.note(ended, now, datetime.fromtimestamp(now, UTC).month)

    async def _hear(self, told: Told) -> None:
        self._watched = told.watched
        await self.orders.carry_out(told.orders)

    async def _present(self, order: tuple[str, Any] | None = None) -> Told:
        """Lay this process's view down, for consoles in others; with an `order`, they are read at once."""
        rows, counts = await self._requests.rows()
        view = self._own_view(rows, counts)
        told = await self._exchange.exchange(view, watching=order is not None, order=order)
        if order is None:
            await self._hear(told)
        return told

    def _own_view(self, rows: list[list[Any]], counts: OpenCounts) -> dict[str, Any]:
        return {
            "process": self._name,
            "requests": rows,
            "running": counts.running,
            "waiting": counts.waiting,
            "errors": self._errors.groups,
            "history": self._history_feed.spell(self._history),
            "sums": {} if self._figures.stored else self._sums.tenants,
        }

    async def _serve(self) -> None:
        """Put everything together, and send what has changed."""
        wall = time.time()
        nodes = await self._state.node_rows()
        rows, counts = await self._requests.rows()
        view = None if self._exchange.alone else self._own_view(rows, counts)
        told = await self._exchange.exchange(view, watching=True)
        await self._hear(told)
        peers = ConsolePeers(told.views)
        running, waiting = sum_counts([counts.running, *peers.running]), sum_counts([counts.waiting, *peers.waiting])
        await self._figures.refresh(running, waiting)
        self._history_feed.merge([self._history.models, *peers.histories(wall)])
        await asyncio.sleep(0)
        uses = add_up_uses([self._sums.tenants, *peers.sums])
        errors = add_up_groups([*self._errors.groups, *peers.errors])
        fresh: dict[str, Sequence[Any]] = {
            "nodes": nodes,
            "models": self._state.model_rows(),
            "tenants": self._figures.rows(running, waiting, uses),
            "requests": [*rows, *peers.requests][:MAX_PEER_ROWS],
            "errors": [[*group] for group in errors],
        }
        await asyncio.sleep(0)
        totals = {"running": sum(running.values()), "waiting": sum(waiting.values())}
        self._send(wall, fresh, {**self._facts(), **self._state.facts(), **totals})

    def _send(self, wall: float, fresh: Mapping[str, Sequence[Any]], facts: dict[str, Any]) -> None:
        """Change the tables and send the events, in one piece."""
        delta: dict[str, Any] = {"now": round(wall, 3)}
        for name, table in self._tables.items():
            changed = table.update(fresh[name])
            if changed is not None:
                delta[name] = changed
        if facts != self._shown_facts:
            delta["facts"] = self._shown_facts = facts
        if steps := self._history_feed.changed():
            delta["history"] = steps
        event = whole = b""
        for viewer in self.viewers:
            if viewer.is_new:
                viewer.is_new = False
                whole = whole or _event(b"snapshot", self._snapshot(wall))
                viewer.send(whole)
            else:
                event = event or _event(b"delta", delta)
                viewer.send(event)

    def _snapshot(self, wall: float) -> dict[str, Any]:
        tables = {name: table.whole() for name, table in self._tables.items()}
        history = self._history_feed.whole()
        return {"now": round(wall, 3), "facts": self._shown_facts, "history": history, **tables}


def _event(name: bytes, value: Any) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (name, dump(value))
