"""Reloading the configuration: at a change of its file, at a signal, or asked for on the admin listener."""

import asyncio
import socket
from collections.abc import Callable, Coroutine
from typing import Any

import structlog

from gateway.access.audit import AuditEvent
from gateway.admin.reload import ReloadResult
from gateway.config.changes import changes_between
from gateway.config.tree import Config
from gateway.config.watch import SIGNAL, ConfigWatch, log_deprecated, log_doubts
from gateway.wiring.read_at_start import needs_restart

log = structlog.get_logger("fleetgate")


class ConfigReload:
    """Reads the configuration of `watch` and applies it. `watch` is None where the gateway has no config file.

    Each process logs what a reload changed, and who asked for it. One process of a gateway audits it: the one that was
    asked, else the first that claims it.
    """

    def __init__(
        self,
        watch: ConfigWatch | None,
        started_with: Config,
        apply: Callable[[Config], None],
        counted: Callable[[bool], None],
        note: Callable[[AuditEvent], Coroutine[Any, Any, None]],
    ) -> None:
        """`apply` raises where it cannot, and has changed nothing then; `counted(ok)` counts reloads; `note` audits."""
        self._watch = watch
        self._started_with = self._in_force = started_with
        self._apply = apply
        self._counted = counted
        self._note = note
        self._notes: set[asyncio.Task[None]] = set()

    @property
    def has_file(self) -> bool:
        """Whether there is a config file, which can be read again."""
        return self._watch is not None

    async def reload(self, who: str) -> ReloadResult:
        """Reload here and, by way of the watch, in the other processes. `who` asked for it."""
        if self._watch is None:
            result = ReloadResult(ok=False, problems=["this gateway was started without a config file"])
        else:
            result = self._reload(self._watch, who)
            if result.ok:
                self._watch.notify_siblings(who)
        await self._note(_event(who, result))
        return result

    def reload_logged(self) -> None:
        """Reload here, at a signal; log and audit say how it went."""
        if self._watch is not None:
            result = self._reload(self._watch, SIGNAL)
            task = asyncio.get_running_loop().create_task(self._note(_event(SIGNAL, result)))
            self._notes.add(task)
            task.add_done_callback(self._notes.discard)

    async def run(self) -> None:
        """Reload whenever the file has changed, for ever."""
        if self._watch is None:
            return
        async for who in self._watch.changes():
            try:
                result = self._reload(self._watch, who)
                if (result.changed or who == SIGNAL) and self._watch.claim():
                    await self._note(_event(who, result))
            except Exception:
                log.exception("reload_failed", who=who)

    def _reload(self, watch: ConfigWatch, who: str) -> ReloadResult:
        config, problems = watch.read()
        if config is None:
            self._counted(False)
            log.error("config_refused", problems=problems, who=who)
            return ReloadResult(ok=False, problems=problems)
        needed, changed = needs_restart(self._started_with, config), changes_between(self._in_force, config)
        self._apply(config)
        self._in_force = config
        self._counted(True)
        log.info("config_reloaded", changed=changed, needs_restart=needed, who=who)
        log_deprecated(watch.deprecated)
        log_doubts(watch.doubts(config))
        return ReloadResult(ok=True, needs_restart=needed, changed=changed)


def _event(who: str, result: ReloadResult) -> AuditEvent:
    """`host` tells the gateways apart that share an audit."""
    detail: dict[str, Any] = {"ok": result.ok, "host": socket.gethostname()}
    facts = {"changed": result.changed, "needs_restart": result.needs_restart, "problems": result.problems}
    return AuditEvent(who, "config reloaded", "config", detail | {name: fact for name, fact in facts.items() if fact})
