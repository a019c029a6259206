"""Noticing that the configuration has changed, in every process of a gateway.

The file is polled, not watched by the kernel: polling also sees a Kubernetes ConfigMap being swapped by a symbolic
link, and a file on a network or a bind mount. A reload that was asked for over the admin listener reaches the
other processes through a stamp file in the directory that they share.
"""

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import structlog

from gateway.config.document import ConfigError, ConfigProblem
from gateway.config.source import load_config
from gateway.config.tree import Config

log = structlog.get_logger("fleetgate.config")

POLL_SECONDS = 1.0


_STAMP = "reload"


def request_reload(shared: Path) -> None:
    """Have every process that shares this directory read the configuration again."""
    (shared / _STAMP).touch()


class ConfigWatch:
    """Where the configuration came from, and whether it is still the same."""

    def __init__(self, path: Path, overrides: Mapping[str, Any], shared: Path | None = None) -> None:
        """`shared`: a directory that all processes of this gateway see; None where there is only one."""
        self._path = path
        self._overrides = overrides
        self._stamp = shared / _STAMP if shared is not None else None
        self._good = shared / "last-good.yaml" if shared is not None else None
        self._seen = self._signature()

    def read(self) -> tuple[Config | None, list[str]]:
        """The configuration as it stands now, or None and what is wrong with it."""
        self._seen = self._signature()
        try:
            config = load_config(self._path, self._overrides)
        except ConfigError as error:
            return None, [str(problem) for problem in error.problems]
        if self._good is not None:
            self._keep(self._good)
        return config, []

    def _keep(self, good: Path) -> None:
        """Take the place of the last good file in one step, and only by one that is good: this one may have changed
        since it was read, and other processes start with what is kept."""
        copy = good.with_name(f"{good.name}.{os.getpid()}")
        try:
            shutil.copyfile(self._path, copy)
            load_config(copy, self._overrides)
            copy.replace(good)
        except (OSError, ConfigError) as error:
            copy.unlink(missing_ok=True)
            log.warning("config_not_kept", reason=str(error))

    def read_or_last_good(self) -> Config:
        """For a process that starts while its siblings run: a file that was spoilt since must not keep it from it.

        Raises `ConfigError` where there is no good one either.
        """
        config, problems = self.read()
        if config is not None:
            return config
        if self._good is None or not self._good.exists():
            raise ConfigError([ConfigProblem("", "", problem) for problem in problems])
        log.error("config_refused", problems=problems, instead="the last good one")
        return load_config(self._good, self._overrides)

    def notify_siblings(self) -> None:
        """Have every other process read the configuration again."""
        if self._stamp is not None:
            self._stamp.touch()
            self._seen = self._signature()

    async def changes(self) -> AsyncIterator[None]:
        """Yields whenever the file is another one than it was at the last `read`."""
        while True:
            await asyncio.sleep(POLL_SECONDS)
            if self._signature() != self._seen:
                yield None

    def _signature(self) -> tuple[object, ...]:
        return _stat(self._path), _stat(self._stamp) if self._stamp is not None else None


def _stat(path: Path) -> tuple[int, int, int] | None:
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_size, stat.st_ino
