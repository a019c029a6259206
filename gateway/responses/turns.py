"""Turns of conversations in Redis, sealed.

    fg1:{TENANT}:responses:CONVERSATION   hash: turn -> record (see `sealing`); n + turn -> how many go on from it;
                                      - + turn -> the record of one that was deleted, while others go on from it
    fg1:{TENANT}:conversations        sorted set: conversation -> when it expires (ms)
    fg1:{TENANT}:sizes                hash: conversation -> its bytes; `total`: those of all

All turns of a conversation lie in one hash, which expires some time after the last one: a chain of turns is read in one
call, and grows by what each turn brings. A tenant that has no room loses the conversations that it used least recently.
"""

from collections.abc import Callable, Sequence
from enum import Enum
from pathlib import Path
from typing import Any, NamedTuple

from gateway.core.responses.kept_ids import Place
from gateway.redis.client import RedisClient, Script
from gateway.redis.replies import integer, integers
from gateway.responses.sealing import NO_TURN, head_of

_LUA = Path(__file__).parent / "lua"

PER_TURN = 160
FIRST_TURN = 700
"""Bytes of Redis' memory that a turn takes beside its record, and one that goes on from none: it has a key of its own,
and places in the tenant's books (docs/responses.md has the measurement)."""


_OVERHEADS = (PER_TURN, FIRST_TURN)

PAGE = 256 * 1024
"""Bytes of records after which a call ends, and another goes on: an answer that takes long would count as lost, and
hold up others."""

MOST_TURNS = 20_000
"""Turns of a conversation that may be read."""

READ_AT_ONCE = 1000
"""Turns that one call reads: Lua passes a bounded number of arguments."""


class Outcome(Enum):
    """What became of a response that was to be kept: the word of log and metric."""

    STORED = "stored"
    TOO_LARGE = "too_large"
    """Larger than `responses.max_bytes`."""
    NO_ROOM = "no_room"
    """Its conversation alone has all that its tenant may have."""
    GONE = "gone"
    """What it goes on from was deleted, or has expired, meanwhile."""
    UNAVAILABLE = "redis_unavailable"
    FAILED = "failed"


_OUTCOMES = (Outcome.NO_ROOM, Outcome.STORED, Outcome.GONE)


class Kept(NamedTuple):
    """What `keep` did. `evicted`: conversations that had to make room."""

    outcome: Outcome
    evicted: int


class WalkedTurn(NamedTuple):
    """One turn of a conversation."""

    turn: str
    record: bytes


Hold = Callable[[int], object]
"""Reserves memory for so many bytes that were read, before more are. Raises what the call then raises."""


class TooMuch(Exception):
    """A conversation has more bytes than may be read at once."""


class Turns:
    """Calls raise `RedisUnavailable`."""

    def __init__(self, redis: RedisClient) -> None:
        self._redis = redis
        self._keep = Script.read(_LUA / "keep.lua", fits=integers(3))
        self._walk = Script.read(_LUA / "walk.lua", fits=_walked)
        self._read = Script.read(_LUA / "read.lua", fits=_records)
        self._delete = Script.read(_LUA / "delete.lua", fits=integer)

    async def keep(
        self, tenant: str, place: Place, before: str | None, digest: str, record: bytes, ttl: float, most: int
    ) -> Kept:
        """Keep a turn for `ttl` seconds; the tenant may have `most` bytes. `digest`: what the turn before it has to
        have said, '' where it may be anything."""
        given = (place.conversation, place.turn, before or "", digest, record, round(ttl * 1000), most)
        outcome, evicted, _ = await self._redis.run(self._keep, self._keys(tenant, place), (*given, *_OVERHEADS))
        return Kept(_OUTCOMES[outcome], evicted)

    async def walk(self, tenant: str, place: Place, most: int, hold: Hold) -> list[WalkedTurn]:
        """The turn at `place` and those before it, the first one first; nothing where it is not there. Raises `TooMuch`
        where they have more than `most` bytes."""
        keys, turns = self._keys(tenant, place)[:1], list[WalkedTurn]()
        turn, bytes_read = place.turn, 0
        while turn != NO_TURN:
            reply = await self._redis.run(self._walk, keys, (turn, PAGE, int(bool(turns))))
            if not reply:
                return []
            page = sum(map(len, reply[1::2]))
            hold(page)
            bytes_read += page
            for name, record in zip(reply[::2], reply[1::2], strict=True):
                turns.append(WalkedTurn(name.decode(), record))
            if bytes_read > most or len(turns) > MOST_TURNS:
                raise TooMuch
            turn = head_of(turns[-1].record).before
        return turns[::-1]

    async def read(self, tenant: str, conversation: str, turns: Sequence[str], hold: Hold) -> list[bytes | None]:
        """The records of turns of one conversation."""
        keys = self._keys(tenant, Place(conversation, ""))[:1]
        found: list[bytes | None] = []
        while len(found) < len(turns):
            page = await self._redis.run(self._read, keys, (PAGE, *turns[len(found) : len(found) + READ_AT_ONCE]))
            hold(sum(len(record) for record in page if record is not None))
            found += page
        return found

    async def delete(self, tenant: str, place: Place) -> bool:
        """Whether the turn was there."""
        given = (place.conversation, place.turn, *_OVERHEADS)
        return bool(await self._redis.run(self._delete, self._keys(tenant, place), given))

    def _keys(self, tenant: str, place: Place) -> list[str]:
        base = f"{self._redis.schema.records}:{{{tenant}}}"
        return [f"{base}:responses:{place.conversation}", f"{base}:conversations", f"{base}:sizes"]


def _walked(reply: Any, command: Sequence[Any]) -> bool:
    return type(reply) is list and len(reply) % 2 == 0 and set(map(type, reply)) <= {bytes}


def _records(reply: Any, command: Sequence[Any]) -> bool:
    """A record or nothing for some of the turns: the words behind script, number of keys, key and page."""
    return type(reply) is list and 0 < len(reply) <= len(command) - 5 and set(map(type, reply)) <= {bytes, type(None)}
