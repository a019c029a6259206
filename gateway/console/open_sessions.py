"""The sessions of the console that are known, and those that were ended before their time.

A session is a signed cookie, so every process reads one that it has never seen. Whoever serves one notes it here; one
that was ended is refused from then on. Both are shared by gateways through Redis, and by worker processes without Redis
through their directory, every `SHARE_SECONDS`.

    Redis              an ended session
    answers            is refused by every gateway within `SHARE_SECONDS`
    does not answer    is refused by this process; the others are told once it answers
    lost its data      is written again by every process that knows of it
    there is none      is refused by the processes of this gateway, until they end

    fg1:{console}:sessions   hash: id -> person, token, began, ends, address, used, mark of the token
    fg1:{console}:ended      hash: id -> when it would have ended, seconds since 1970
"""

import asyncio
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import structlog

from gateway.core.console.session_token import SESSION_SECONDS, Session
from gateway.core.json_text import dump, load_json
from gateway.redis.client import RedisClient, RedisUnavailable, Script, ScriptFailed
from gateway.redis.replies import integer, pairs_of

log = structlog.get_logger("fleetgate.console")

SHARE_SECONDS = 2.0
NEWS_SECONDS = 30.0
"""How much later a session has to be used again for that to be shared."""

CLOCKS_APART = 300.0
"""Seconds after its end for which Redis keeps a session: the clocks of other gateways may be behind."""

SWEEP_SECONDS = 600.0
"""Between two times at which a process takes from Redis what is over; nobody may ever ask for the list."""

MOST = 500
"""Sessions that a process knows of; of more it forgets those that were not used for the longest time."""

LISTED = 1000
"""Sessions of all processes that are listed: those that signed in last."""

AT_A_TIME = 200
"""Sessions that are read, or removed, between two turns of the event loop."""

_KEEP = Script.read(Path(__file__).parent / "lua" / "keep_sessions.lua", fits=integer)


class OpenSession(NamedTuple):
    """`address`: where it was last used from. Times are seconds since 1970. `mark`: of the admin token that `token`
    named when it was used; empty where an older version noted it."""

    id: str
    person: str
    token: str
    began: float
    ends: float
    address: str
    used: float
    mark: str = ""


class OpenSessions:
    """`on_end(id)` is called once for each that was ended, here or elsewhere."""

    def __init__(self, redis: RedisClient | None, folder: Path | None, marks: Mapping[str, str]) -> None:
        """`folder`: the directory of this gateway's worker processes, None where there is one only. `marks`: of the
        admin tokens that there are, by name."""
        self.on_end: Callable[[str], object] = str
        self._marks = marks
        self._redis = redis
        self._folder = folder if redis is None else None
        prefix = "" if redis is None else f"{redis.schema.records}:{{console}}"
        self._known_key, self._ended_key = f"{prefix}:sessions", f"{prefix}:ended"
        self._known: dict[str, OpenSession] = {}
        self._ended: dict[str, float] = {}
        self._news: set[str] = set()
        """Known ones that the others have not been told of."""
        self._untold: dict[str, float] = {}
        """Ended ones, likewise."""
        self._sweep_at = 0.0
        """In monotonic seconds."""
        self._written = b""
        """What the file of this process has."""

    def is_ended(self, id: str) -> bool:
        return id in self._ended

    def note(self, session: Session, address: str) -> None:
        """It was used from `address`."""
        now, before = time.time(), self._known.pop(session.id, None)
        self._known[session.id] = OpenSession(
            session.id,
            session.person,
            session.token,
            session.began,
            session.ends,
            address,
            now,
            self._marks.get(session.token, ""),
        )
        if before is None or before.address != address or now - before.used >= NEWS_SECONDS:
            self._news.add(session.id)
        else:
            self._known[session.id] = self._known[session.id]._replace(used=before.used)
        while len(self._known) > MOST:
            self._forget(next(iter(self._known)))

    async def all(self) -> list[OpenSession]:
        """Those that have not ended, nor with a change of their admin token, the latest sign-in first, `LISTED` at
        most. Of all processes while Redis answers, of this one while it does not."""
        try:
            others = await self._of_others()
        except RedisUnavailable:
            others = []
        found = [each for each in self._open_with(others).values() if self._opens(each)]
        return sorted(found, key=lambda each: -each.began)[:LISTED]

    def _opens(self, session: OpenSession) -> bool:
        """Whether its admin token is one that there is."""
        mark = self._marks.get(session.token)
        return mark is not None and session.mark in ("", mark)

    async def end(self, id: str) -> tuple[OpenSession, bool] | None:
        """End a session; returns it, and whether all others were told. None where none with this id is open. Raises
        `RedisUnavailable` where it is none of this process, and those of others cannot be read."""
        try:
            found = self._open_with(await self._of_others()).get(id)
        except RedisUnavailable:
            found = self._open_with([]).get(id)
            if found is None:
                raise
        if found is None:
            return None
        self._untold[id] = found.ends
        self._take_ended({id: found.ends})
        return found, await self.share()

    def _open_with(self, others: Iterable[OpenSession]) -> dict[str, OpenSession]:
        """By id, as each was used last."""
        now, found = time.time(), dict(self._known)
        for each in others:
            if each.id not in found or each.used > found[each.id].used:
                found[each.id] = each
        return {id: each for id, each in found.items() if each.ends > now and id not in self._ended}

    async def run(self) -> None:
        """Exchange with the others, for ever."""
        while True:
            try:
                await self.share()
            except Exception:
                log.exception("session_share_failed")
            await asyncio.sleep(SHARE_SECONDS)

    def _take_ended(self, ended: dict[str, float]) -> None:
        now = time.time()
        for id, ends in ended.items():
            if ends > now and id not in self._ended:
                self._ended[id] = ends
                self._forget(id)
                self.on_end(id)
        for id in [id for id, ends in self._ended.items() if ends <= now]:
            del self._ended[id]
        for id in [id for id, each in self._known.items() if each.ends <= now]:
            self._forget(id)

    def _forget(self, id: str) -> None:
        self._known.pop(id, None)
        self._news.discard(id)

    async def share(self) -> bool:
        """Tell the others what is new, and read which were ended. False where they cannot be told."""
        news, untold = [self._known[id] for id in self._news], dict(self._untold)
        try:
            if self._redis is not None:
                ended = await self._over_redis(self._redis, news, untold)
            elif self._folder is not None:
                ended = await asyncio.to_thread(self._over_files, self._folder, list(self._known.values()), untold)
            else:
                ended = {}
        except (RedisUnavailable, ScriptFailed, OSError):  # or Redis refuses, or the disk is full
            self._take_ended({})
            return False
        self._news -= {each.id for each in news if self._known.get(each.id) == each}
        for id in untold:
            self._untold.pop(id, None)
        self._take_ended(ended)
        return True

    async def _over_redis(
        self, redis: RedisClient, news: list[OpenSession], untold: dict[str, float]
    ) -> dict[str, float]:
        await _keep(redis, self._ended_key, {id: repr(ends) for id, ends in untold.items()})
        found = pairs_of(await redis.reports.command("HGETALL", self._ended_key))
        ended = {id.decode(errors="replace"): ends for id, ends in _times(found.items())}
        await _keep(redis, self._ended_key, {id: repr(ends) for id, ends in self._ended.items() if id not in ended})
        self._take_ended(ended)  # whatever Redis says to the rest
        long_ago = time.time() - CLOCKS_APART
        await _remove(redis, self._ended_key, [id for id, ends in ended.items() if ends <= long_ago])
        await _remove(redis, self._known_key, list(untold))
        await _keep(
            redis, self._known_key, {each.id: dump(list(each[1:])) for each in news if each.id not in self._ended}
        )
        if time.monotonic() >= self._sweep_at:
            self._sweep_at = time.monotonic() + SWEEP_SECONDS
            await self._of_redis(redis)
        return ended

    def _over_files(self, folder: Path, known: list[OpenSession], untold: dict[str, float]) -> dict[str, float]:
        told = dump([list(each) for each in known])
        if told != self._written:
            mine = folder / f"sessions-{os.getpid()}.json"
            fresh = mine.with_suffix(".new")
            fresh.write_bytes(told)
            fresh.replace(mine)
            self._written = told
        for id, ends in untold.items():
            (folder / f"session-ended-{id}").write_text(repr(ends))
        ended = {}
        for file in folder.glob("session-ended-*"):
            with suppress(ValueError, FileNotFoundError):  # another process is writing it, or removed it
                ended[file.name.removeprefix("session-ended-")] = float(file.read_text())
        for id, ends in ended.items():
            if ends <= time.time():
                (folder / f"session-ended-{id}").unlink(missing_ok=True)
        return ended

    async def _of_others(self) -> list[OpenSession]:
        """Also those of this process, as it shared them last. Raises `RedisUnavailable`."""
        if self._redis is not None:
            return await self._of_redis(self._redis)
        if self._folder is not None:
            return await asyncio.to_thread(_of_files, self._folder)
        return []

    async def _of_redis(self, redis: RedisClient) -> list[OpenSession]:
        """Takes those away that are over."""
        found = pairs_of(await redis.reports.command("HGETALL", self._known_key))
        pairs, rows = iter(found.items()), list[OpenSession]()
        while piece := list(islice(pairs, AT_A_TIME)):
            rows += _readable((id.decode(errors="replace"), load_json(facts)) for id, facts in piece)
            await asyncio.sleep(0)
        long_ago = time.time() - CLOCKS_APART
        with suppress(RedisUnavailable):
            await _remove(redis, self._known_key, [each.id for each in rows if each.ends <= long_ago])
        return rows


async def _keep(redis: RedisClient, key: str, values: Mapping[str, str | bytes]) -> None:
    if values:
        words = [word for pair in values.items() for word in pair]
        await redis.reports.run(_KEEP, [key], [int(SESSION_SECONDS + CLOCKS_APART), *words])


async def _remove(redis: RedisClient, key: str, ids: Sequence[str]) -> None:
    for at in range(0, len(ids), AT_A_TIME):
        await redis.reports.command("HDEL", key, *ids[at : at + AT_A_TIME])


def _of_files(folder: Path) -> list[OpenSession]:
    found: list[OpenSession] = []
    for file in folder.glob("sessions-*.json"):
        with suppress(FileNotFoundError):
            told = load_json(file.read_bytes())
            rows = told if isinstance(told, list) else []
            found += _readable((row[0], row[1:]) for row in rows if isinstance(row, list) and row)
    return found


def _times(found: Iterable[tuple[bytes, bytes]]) -> Iterator[tuple[bytes, float]]:
    """One that another version wrote in another form is left out."""
    for id, ends in found:
        with suppress(ValueError):
            yield id, float(ends)


def _readable(found: Iterable[tuple[str, Any]]) -> list[OpenSession]:
    """Likewise."""
    rows = []
    for id, facts in found:
        with suppress(TypeError, ValueError):
            person, token, began, ends, address, used, *more = facts
            mark = str(more[0]) if more else ""
            times = float(began), float(ends)
            rows.append(OpenSession(id, str(person), str(token), *times, str(address), float(used), mark))
    return rows
