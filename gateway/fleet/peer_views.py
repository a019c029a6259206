"""Peer views: each gateway process publishes its view of the fleet, and reads the others' for `fleetgate status`.

Views are published in Redis where there is one, otherwise in the directory that the worker processes of one gateway
share. A view is up to `PUBLISH_SECONDS` old; that of a process that died expires after `KEPT` seconds.

Those of large fleets are long, and only operators read them: they go over the connection of reports.
"""

import asyncio
import os
import secrets
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path

import structlog

from gateway.core.fleet.peer_view import ViewsByNode, read, spell
from gateway.fleet.fleet import Fleet
from gateway.redis.client import RedisClient, RedisUnavailable, Script
from gateway.redis.replies import texts
from gateway.redis.script import COUNT_UNTIL

log = structlog.get_logger("fleetgate.peer_views")

PUBLISH_SECONDS = 2.0
KEPT = 10.0
"""Seconds between two publications of a view, and until it expires."""

KEEP_VIEW = (COUNT_UNTIL, Path(__file__).parent / "lua" / "views.lua")
"""What scripts that keep views of processes begin with."""

_SHOW = Script.read(*KEEP_VIEW, Path(__file__).parent / "lua" / "show.lua", fits=texts)


class PeerViews:
    """Publishes and reads views. While there is one gateway process only, it does nothing."""

    def __init__(self, fleet: Fleet, redis: RedisClient | None, folder: Path | None) -> None:
        """`folder`: the directory of this gateway's worker processes, None where there is one only."""
        self._fleet = fleet
        self._redis = redis
        self._folder = folder if redis is None else None
        self._name = secrets.token_hex(8)

    async def run(self, own: Callable[[], ViewsByNode]) -> None:
        """Publish this process's view every `PUBLISH_SECONDS`, for ever."""
        while True:
            try:
                await self._exchange(own(), wanted=False)
            except Exception:
                log.exception("fleet_view_publish_failed")
            await asyncio.sleep(PUBLISH_SECONDS)

    async def exchange(self, own: ViewsByNode) -> list[ViewsByNode]:
        """Publish `own` view, and return the others'; none where Redis does not answer."""
        return await self._exchange(own, wanted=True)

    async def withdraw(self) -> None:
        """Remove this process's view."""
        await self._exchange(None, wanted=False)

    async def _exchange(self, own: ViewsByNode | None, wanted: bool) -> list[ViewsByNode]:
        if self._fleet.gateways == 1:
            return []
        if self._folder is not None:
            return self._over_files(self._folder, own, wanted)
        if self._redis is None or not self._redis.up:
            return []
        prefix = f"{self._redis.schema.live}:{{sights}}"
        view = "" if own is None else spell(own)
        try:
            found = await self._redis.reports.run(
                _SHOW, [f"{prefix}:views", f"{prefix}:until"], [self._name, round(KEPT * 1000), view, int(wanted)]
            )
        except RedisUnavailable:
            return []
        return list(_readable(found))

    def _over_files(self, folder: Path, own: ViewsByNode | None, wanted: bool) -> list[ViewsByNode]:
        mine = folder / f"view-{os.getpid()}.json"
        if own is None:
            mine.unlink(missing_ok=True)
            return []
        fresh = mine.with_suffix(".new")
        fresh.write_text(spell(own))
        fresh.replace(mine)
        others = [file for file in folder.glob("view-*.json") if file != mine] if wanted else []
        return list(_readable(_fresh(others)))


def _fresh(files: Iterable[Path]) -> Iterator[str]:
    oldest = time.time() - KEPT
    for file in files:
        with suppress(FileNotFoundError):  # its process has stopped
            if file.stat().st_mtime > oldest:
                yield file.read_text()


def _readable(found: Iterable[str] | Iterable[bytes]) -> Iterator[ViewsByNode]:
    for spelled in found:
        try:
            yield read(spelled)
        except ValueError as error:
            log.warning("fleet_view_invalid", error=str(error))
