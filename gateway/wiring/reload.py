"""Reloading the configuration: at a change of its file, at a signal, or asked for on the admin listener."""

from collections.abc import Callable

import structlog

from gateway.admin.reload import ReloadResult
from gateway.config.tree import Config
from gateway.config.watch import ConfigWatch, log_deprecated
from gateway.wiring.reloadable import needs_restart

log = structlog.get_logger("fleetgate")


class ConfigReload:
    """Reads the configuration of `watch` and applies it. `watch` is None where the gateway has no config file."""

    def __init__(
        self,
        watch: ConfigWatch | None,
        started_with: Config,
        apply: Callable[[Config], None],
        counted: Callable[[bool], None],
    ) -> None:
        """`apply` raises where it cannot, and has changed nothing then; `counted(ok)` counts reloads."""
        self._watch = watch
        self._started_with = started_with
        self._apply = apply
        self._counted = counted

    @property
    def has_file(self) -> bool:
        """Whether there is a config file, which can be read again."""
        return self._watch is not None

    async def reload(self) -> ReloadResult:
        """Reload here and, by way of the watch, in the other processes."""
        if self._watch is None:
            return ReloadResult(ok=False, problems=["this gateway was started without a config file"])
        result = self._reload(self._watch)
        if result.ok:
            self._watch.notify_siblings()
        return result

    def reload_logged(self) -> None:
        """Reload here; the log says how it went."""
        if self._watch is not None:
            self._reload(self._watch)

    async def run(self) -> None:
        """Reload whenever the file has changed, for ever."""
        if self._watch is None:
            return
        async for _ in self._watch.changes():
            try:
                self._reload(self._watch)
            except Exception:
                log.exception("reload_failed")

    def _reload(self, watch: ConfigWatch) -> ReloadResult:
        config, problems = watch.read()
        self._counted(config is not None)
        if config is None:
            log.error("config_refused", problems=problems)
            return ReloadResult(ok=False, problems=problems)
        needed = needs_restart(self._started_with, config)
        self._apply(config)
        log.info("config_reloaded", needs_restart=needed)
        log_deprecated(watch.deprecated)
        return ReloadResult(ok=True, needs_restart=needed)
