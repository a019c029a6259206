"""Logs when no node can serve a model: once, again every minute, and when one can again.

The last node of a model is given requests even while it fails them (see `core.fleet.breaker`), so the state of one node
does not say that a model is not served.
"""

import asyncio
from collections.abc import Collection, Iterable
from typing import NamedTuple

import structlog

from gateway.fleet.dialect_watch import DialectWatch
from gateway.fleet.fleet import Fleet
from gateway.fleet.named_models import NamedModel, NamedModels

log = structlog.get_logger("fleetgate.fleet")

CHECK_SECONDS = 1.0
REPEAT_SECONDS = 60.0
"""Seconds between two lines about a model that is not served."""


class ModelState(NamedTuple):
    """`ready`: a node can serve it. `nodes`: how many list it. `error`: the last error of one of them, if none can."""

    name: str
    ready: bool
    nodes: int
    error: str | None


class ModelWatch:
    """The models that the configuration lists, and else all that nodes have said they serve."""

    def __init__(self, fleet: Fleet, listed: Collection[str]) -> None:
        self._fleet = fleet
        self._gone: dict[str, tuple[float, float]] = {}  # since when, and when it is logged next
        self.dialects = DialectWatch()
        self.named = NamedModels(fleet)
        self.configure(listed)

    def configure(self, listed: Collection[str], named: Iterable[NamedModel] = ()) -> None:
        """Watch these models from now on; where there are none, those that nodes have said they serve. `named`: what
        tenants name, where nothing is listed."""
        self._listed = listed
        self.named.configure(named)

    def states(self) -> list[ModelState]:
        """All of them now, by name."""
        names = self._listed or self._fleet.served
        return [self._state(name) for name in sorted(names)]

    def _state(self, name: str) -> ModelState:
        nodes = self._fleet.nodes_of(name)
        if self._fleet.serves(name):
            return ModelState(name, True, len(nodes), None)
        errors = [node.failing or node.last_error or ("drained" if node.drain else "out") for node in nodes]
        return ModelState(name, False, len(nodes), errors[0] if errors else "no node serves it")

    async def run(self) -> None:
        """Check and log, for ever. Before the first check nodes have time to be probed."""
        while True:
            await asyncio.sleep(CHECK_SECONDS)
            try:
                now = asyncio.get_running_loop().time()
                self.refresh(now)
                self.dialects.refresh()
                self.named.refresh(now)
            except Exception:
                log.exception("background_task_failed", task="models")

    def refresh(self, now: float) -> None:
        """Log what has changed by `now`, in loop time."""
        states = self.states()
        for state in states:
            since, due = self._gone.get(state.name, (now, now))
            if state.ready:
                if self._gone.pop(state.name, None) is not None:
                    log.warning("model_available", model=state.name, nodes=state.nodes, after_s=round(now - since, 1))
            elif now >= due:
                self._gone[state.name] = (since, now + REPEAT_SECONDS)
                log.error(
                    "model_unavailable",
                    model=state.name,
                    nodes=state.nodes,
                    error=state.error,
                    for_s=round(now - since, 1),
                )
        for name in self._gone.keys() - {state.name for state in states}:
            del self._gone[name]
