"""What gateway processes tell each other for the console: through Redis, or the directory that worker processes share.

    a console is open      what a process does
    nowhere                looks every `IDLE_SECONDS` whether one is: one short call, or one look at a file
    in another process     lays its view down every `WATCHED_SECONDS`
    in this one            reads the others' views, too

An order asks whichever process has a request to end it. It stands there for `KEPT` seconds, and is overwritten with
what became of it.
"""

import asyncio
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from gateway.core.json_text import dump, load_json
from gateway.fleet.fleet import Fleet
from gateway.fleet.peer_views import KEEP_VIEW
from gateway.redis.client import RedisClient, RedisUnavailable, Script
from gateway.redis.replies import texts

IDLE_SECONDS = 2.0
WATCHED_SECONDS = 1.0
KEPT = 10.0
MAX_ORDERS = 100
"""Orders that are read at a time."""

_CONSOLE = Script.read(*KEEP_VIEW, Path(__file__).parent / "lua" / "console.lua", fits=texts)


class Told(NamedTuple):
    """`watched`: whether a console is open anywhere. `views` of the other processes, `orders` by their ids."""

    watched: bool
    views: list[Any]
    orders: dict[str, Any]


ALONE = Told(False, [], {})


class ConsoleExchange:
    """Of one process, `name` to the others. While there is one only, it does nothing."""

    def __init__(self, fleet: Fleet, redis: RedisClient | None, folder: Path | None, name: str) -> None:
        """`folder`: the directory of this gateway's worker processes, None where there is one only."""
        self._fleet = fleet
        self._redis = redis
        self._folder = folder if redis is None else None
        self._name = name
        self._view = ""

    @property
    def alone(self) -> bool:
        """Whether nobody else can be told anything."""
        if self._fleet.gateways == 1:
            return True
        return self._folder is None and (self._redis is None or not self._redis.up)

    async def exchange(self, view: dict[str, Any] | None, watching: bool, order: tuple[str, Any] | None = None) -> Told:
        """Lay down `view` (None: none) and an `order` with its id; returns what the others told."""
        if self.alone:
            return ALONE
        self._view = "" if view is None else dump(view).decode()
        return await self._exchange(watching, order)

    async def look(self) -> Told:
        """What the others told, beside the view that was laid down last."""
        return await self._exchange(True, None)

    async def _exchange(self, watching: bool, order: tuple[str, Any] | None) -> Told:
        if self.alone:
            return ALONE
        spelled = self._view
        if self._folder is not None:
            try:
                return await asyncio.to_thread(self._over_files, self._folder, spelled, watching, order)
            except OSError:  # the disk is full, or the directory is gone: this process goes on showing its own
                return ALONE
        assert self._redis is not None
        keys = [f"{self._redis.schema.live}:{{console}}:{each}" for each in ("views", "until", "watched", "orders")]
        number, words = ("", "") if order is None else (order[0], dump(order[1]).decode())
        try:
            reply = await self._redis.reports.run(
                _CONSOLE, keys, [self._name, round(KEPT * 1000), spelled, int(watching), number, words]
            )
        except RedisUnavailable:
            return ALONE
        watched, count, *rest = reply
        views, orders = rest[: int(count)], rest[int(count) :]
        named = zip(orders[::2], orders[1::2], strict=True)
        return Told(
            watched == b"1",
            list(_readable(views)),
            {_text(number): found for number, order in list(named)[:MAX_ORDERS] for found in _readable([order])},
        )

    async def withdraw(self) -> None:
        """Remove this process's view."""
        with suppress(OSError):
            await self.exchange(None, watching=False)

    def _over_files(self, folder: Path, view: str, watching: bool, order: tuple[str, Any] | None) -> Told:
        mine, mark = folder / f"console-view-{os.getpid()}.json", folder / "console-watched"
        if view:
            _replace(mine, view)
        else:
            mine.unlink(missing_ok=True)
        if watching:
            mark.touch()
        if order is not None:
            _replace(folder / f"console-order-{order[0]}.json", dump(order[1]).decode())
        others = [file for file in folder.glob("console-view-*.json") if file != mine] if watching else []
        orders = sorted(folder.glob("console-order-*.json"))
        for file in orders:
            if not _is_fresh(file, 3 * KEPT):
                file.unlink(missing_ok=True)
        fresh = [file for file in orders if _is_fresh(file, 3 * KEPT)][:MAX_ORDERS]
        return Told(
            _is_fresh(mark, KEPT),
            list(_readable(_contents(others, KEPT))),
            {
                file.stem.removeprefix("console-order-"): found
                for file in fresh
                for found in _readable(_contents([file], 3 * KEPT))
            },
        )


def new_order() -> str:
    """The id of an order."""
    return secrets.token_hex(8)


def _replace(file: Path, text: str) -> None:
    fresh = file.with_suffix(f".{os.getpid()}")
    fresh.write_text(text)
    fresh.replace(file)


def _is_fresh(file: Path, seconds: float) -> bool:
    with suppress(FileNotFoundError):
        return file.stat().st_mtime > time.time() - seconds
    return False


def _contents(files: list[Path], seconds: float) -> Iterator[str]:
    for file in files:
        with suppress(FileNotFoundError):  # its process has stopped
            if _is_fresh(file, seconds):
                yield file.read_text()


def _text(value: bytes | str) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else value


def _readable(found: Any) -> Iterator[dict[str, Any]]:
    for spelled in found:
        read = load_json(spelled)
        if isinstance(read, dict):
            yield read
