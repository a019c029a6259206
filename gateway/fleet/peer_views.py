"""What the other gateway processes see of the fleet: each lays down its own view, and who is asked adds them up.

Over Redis where there is one, else over the directory that the worker processes of one gateway share. Nobody but
operators reads it, so it may be some seconds old; the view of a process that died is gone with the next look.
"""

import asyncio
import os
import secrets
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path

import structlog

from gateway.core.fleet.peer_view import Sights, read, spell
from gateway.fleet.fleet import Fleet
from gateway.redis.client import RedisClient, RedisUnavailable, Script
from gateway.redis.replies import texts

log = structlog.get_logger("fleetgate.lookout")

SHOW_SECONDS = 2.0
KEPT = 10.0
"""How often a view is laid down anew, and for how long it counts."""

_SHOW = Script.read(Path(__file__).parent / "lua" / "show.lua", fits=texts)


class PeerViews:
    """This process's view and the others'. While the fleet has one gateway process only, nothing is done."""

    def __init__(self, fleet: Fleet, redis: RedisClient | None, folder: Path | None) -> None:
        """`folder`: the directory of this gateway's worker processes, None where there is one only."""
        self._fleet = fleet
        self._redis = redis
        self._folder = folder if redis is None else None
        self._name = secrets.token_hex(8)

    async def run(self, own: Callable[[], Sights]) -> None:
        """Lay this process's view down every now and then, for ever."""
        while True:
            try:
                await self._exchange(own(), wanted=False)
            except Exception:
                log.exception("showing_the_fleet_failed")
            await asyncio.sleep(SHOW_SECONDS)

    async def exchange(self, own: Sights) -> list[Sights]:
        """Lay down `own` view, and return the others'; none where Redis does not answer."""
        return await self._exchange(own, wanted=True)

    async def withdraw(self) -> None:
        """This process sees nothing any more."""
        await self._exchange(None, wanted=False)

    async def _exchange(self, own: Sights | None, wanted: bool) -> list[Sights]:
        if self._fleet.gateways == 1:
            return []
        if self._folder is not None:
            return self._over_files(self._folder, own, wanted)
        if self._redis is None:
            return []
        prefix = f"{self._redis.schema.live}:{{sights}}"
        told = "" if own is None else spell(own)
        try:
            found = await self._redis.run(
                _SHOW, [f"{prefix}:views", f"{prefix}:until"], [self._name, round(KEPT * 1000), told, int(wanted)]
            )
        except RedisUnavailable:
            return []
        return list(_readable(found))

    def _over_files(self, folder: Path, own: Sights | None, wanted: bool) -> list[Sights]:
        mine = folder / f"sights-{os.getpid()}.json"
        if own is None:
            mine.unlink(missing_ok=True)
            return []
        fresh = mine.with_suffix(".new")
        fresh.write_text(spell(own))
        fresh.replace(mine)
        others = [file for file in folder.glob("sights-*.json") if file != mine] if wanted else []
        return list(_readable(_fresh(others)))


def _fresh(files: Iterable[Path]) -> Iterator[str]:
    oldest = time.time() - KEPT
    for file in files:
        with suppress(FileNotFoundError):  # its process has left
            if file.stat().st_mtime > oldest:
                yield file.read_text()


def _readable(found: Iterable[str] | Iterable[bytes]) -> Iterator[Sights]:
    for spelled in found:
        try:
            yield read(spelled)
        except ValueError as error:
            log.warning("view_not_understood", error=str(error))
