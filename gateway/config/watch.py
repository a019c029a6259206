"""The config watch: notices in every process of a gateway that the configuration has changed.

The file is polled, since events of the kernel miss a Kubernetes ConfigMap that is swapped by a symbolic link, and files
on networks and bind mounts. A reload that is asked for on the admin listener reaches the other processes by a stamp
file in the directory that they share.
"""

import asyncio
import os
import shutil
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

import structlog

from gateway.config.deprecated import Deprecation
from gateway.config.document import ConfigError, ConfigProblem
from gateway.config.source import doubts_about, load_config, load_with_deprecations
from gateway.config.tree import Config

log = structlog.get_logger("fleetgate.config")

POLL_SECONDS = 1.0

CLAIM_SECONDS = 60.0
"""How long claims are kept: longer than a process takes to see a change."""

_STAMP = "reload"

FILE = "config file"
SIGNAL = "SIGHUP"
"""Who asked for a reload, where it was no administrator."""


def log_deprecated(deprecated: Iterable[Deprecation]) -> None:
    """Warn of every setting that stands under an old name."""
    for each in deprecated:
        log.warning("setting_deprecated", setting=each.setting, where=each.where, use=each.use)


def log_doubts(doubts: Iterable[ConfigProblem]) -> None:
    """Warn of every setting that is valid and hardly meant."""
    for each in doubts:
        log.warning("config_warning", setting=each.path, where=each.where, problem=each.expected)


def request_reload(shared: Path, who: str = SIGNAL) -> None:
    """Ask every process that shares this directory to read the configuration again. `who` asks for it."""
    stamp = shared / _STAMP
    copy = stamp.with_name(f"{_STAMP}.{os.getpid()}")
    copy.write_text(who)
    copy.replace(stamp)  # at once: who reads it must see a whole name


class ConfigWatch:
    """Reads the configuration, and tells when it has changed since."""

    def __init__(self, path: Path, overrides: Mapping[str, Any], shared: Path | None = None) -> None:
        """`shared`: a directory that all processes of this gateway see; None where there is only one."""
        self._path = path
        self._overrides = overrides
        self._shared = shared
        self._stamp = shared / _STAMP if shared is not None else None
        self._good = shared / "last-good.yaml" if shared is not None else None
        self._seen = self._signature()
        self.deprecated: list[Deprecation] = []
        """The settings under old names in what was read last."""

    def read(self) -> tuple[Config | None, list[str]]:
        """The configuration as it is now, or None and its problems."""
        self._seen = self._signature()
        try:
            config, self.deprecated = load_with_deprecations(self._path, self._overrides)
        except ConfigError as error:
            return None, [str(problem) for problem in error.problems]
        if self._good is not None:
            self._save_last_good(self._good)
        return config, []

    def doubts(self, config: Config) -> list[ConfigProblem]:
        """What is valid in `config`, as it was read, and hardly meant."""
        try:
            return doubts_about(config, self._path, time.time(), self._overrides)
        except ConfigError:  # the file was replaced since
            return []

    def _save_last_good(self, good: Path) -> None:
        """Replace the last good file atomically, by a copy that was checked: the file may have changed since it was
        read, and other processes start with the copy."""
        copy = good.with_name(f"{good.name}.{os.getpid()}")
        try:
            shutil.copyfile(self._path, copy)
            load_config(copy, self._overrides)
            copy.replace(good)
        except (OSError, ConfigError) as error:
            copy.unlink(missing_ok=True)
            log.warning("config_copy_failed", reason=str(error))

    def read_or_last_good(self) -> Config:
        """The configuration, or the last good one: a process must be able to start while its siblings run, also where
        the file has become invalid. Raises `ConfigError` where there is no good one.
        """
        config, problems = self.read()
        if config is not None:
            return config
        if self._good is None or not self._good.exists():
            raise ConfigError([ConfigProblem("", "", problem) for problem in problems])
        log.error("config_refused", problems=problems, in_force="the last valid configuration")
        config, self.deprecated = load_with_deprecations(self._good, self._overrides)
        return config

    def notify_siblings(self, who: str) -> None:
        """Ask every other process to read the configuration again. `who` asked for it, here."""
        if self._shared is not None:
            request_reload(self._shared, who)
            self._seen = self._signature()
            self.claim()

    async def changes(self) -> AsyncIterator[str]:
        """Yields whenever the file has changed since the last `read`, or a reload was asked for: who asked."""
        while True:
            await asyncio.sleep(POLL_SECONDS)
            now = self._signature()
            if now != self._seen:
                yield FILE if now[1] == self._seen[1] else self._asked_by()

    def claim(self) -> bool:
        """Whether this process is the first of its gateway that claims what was read last."""
        if self._shared is None:
            return True
        name = f"claim.{sha256(repr(self._seen).encode()).hexdigest()[:16]}"
        try:
            (self._shared / name).touch(exist_ok=False)
        except OSError:
            return False
        for claim in self._shared.glob("claim.*"):
            if _age(claim) > CLAIM_SECONDS:
                claim.unlink(missing_ok=True)
        return True

    def _asked_by(self) -> str:
        try:
            return self._stamp.read_text() if self._stamp is not None else FILE
        except OSError:
            return SIGNAL

    def _signature(self) -> tuple[object, ...]:
        return _stat(self._path), _stat(self._stamp) if self._stamp is not None else None


def _stat(path: Path) -> tuple[int, int, int] | None:
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_size, stat.st_ino


def _age(path: Path) -> float:
    """Seconds since `path` was made; 0 where it is gone."""
    try:
        return time.time() - path.stat().st_mtime
    except OSError:
        return 0.0
