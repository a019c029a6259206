"""Reads what is kept of responses: whole conversations, single turns, single responses."""

import asyncio
from collections.abc import Sequence
from typing import Any, NamedTuple

import structlog

from gateway.core.bodies import Body
from gateway.core.errors import BodyTooLarge, NotFound, ResponsesUnavailable
from gateway.core.http.json_size import COPIES, JsonSize
from gateway.core.reading.outline import REWRITABLE
from gateway.core.responses.kept_ids import Place
from gateway.core.responses.turn_record import SaidInTurn, read_response, read_said, said_part
from gateway.redis.client import RedisUnavailable
from gateway.responses.sealing import Sealer, head_of
from gateway.responses.turns import MOST_TURNS, TooMuch, Turns
from gateway.upstream.downstream import DownstreamRequest

log = structlog.get_logger("fleetgate.responses")

IN_A_THREAD = 64 * 1024
"""Bytes of a content that is packed or unpacked in a thread: 64 KB take some 0.5 ms."""

OPENED_AT_ONCE = 16
"""Records that are opened before others get a turn."""

LARGEST = 1 << 25
"""Bytes that are unpacked of one record: more than `responses.max_bytes` can be."""


class RecalledSize:
    """Counts what is recalled for a request against the bounds of a body of `most` bytes, and reserves its memory: that
    of records as they come from Redis, and that of what they say once they are opened."""

    __slots__ = ("_json", "_records", "_request", "_reserved", "most")

    def __init__(self, request: DownstreamRequest, most: int) -> None:
        self._request = request
        self._json = JsonSize()
        self._records = 0
        self._reserved = 0
        self.most = most

    @property
    def values(self) -> int:
        return self._json.values

    def hold(self, size: int) -> None:
        """Reserve memory for records of `size` bytes. Raises as `count`."""
        self._records += size
        self._reserve()

    def count(self, content: bytes, record: int = 0) -> None:
        """Count what a record of `record` bytes says, which is not held any longer. Raises `BodyTooLarge` and
        `MemoryFull`."""
        self._records -= record
        self._json.feed(content)
        if self._json.length > self.most:
            raise too_large(self.most)
        if self._json.values > REWRITABLE:
            raise too_large(self.most)
        self._reserve()

    def _reserve(self) -> None:
        more = self._json.size + self._records - self._reserved
        if more > 0:
            self._request.grow_body(more)
            self._reserved += more


class ReadTurn(NamedTuple):
    """One turn, and what it says."""

    place: Place
    said: SaidInTurn


class KeptConversation(NamedTuple):
    """All turns up to one, the first one first. `digest`: of all that they say."""

    turns: list[ReadTurn]
    digest: str


class TurnMissing(Exception):
    """The turn at `place` is not there."""

    def __init__(self, place: Place) -> None:
        super().__init__(place)
        self.place = place


class TurnReader:
    """Calls raise `BodyTooLarge`, `MemoryFull` and `ResponsesUnavailable`."""

    def __init__(self, turns: Turns, sealer: Sealer) -> None:
        self._turns = turns
        self._sealer = sealer

    async def conversation(self, place: Place, tenant: str, size: RecalledSize) -> KeptConversation | None:
        """None where the turn at `place` is not there."""
        try:
            walked = await self._turns.walk(tenant, place, size.most, size.hold)
        except TooMuch:
            raise too_large(size.most) from None
        except RedisUnavailable:
            raise unavailable() from None
        if not walked:
            return None
        digest = head_of(walked[-1].record).digest
        turns: list[ReadTurn] = []
        walked.reverse()
        while walked:
            turn, record = walked.pop()
            at = Place(place.conversation, turn)
            said = await self._read(tenant, at, record, size, len(turns))
            if said is None:
                return None
            turns.append(ReadTurn(at, said))
        return KeptConversation(turns, digest)

    async def turns(self, places: Sequence[Place], tenant: str, size: RecalledSize) -> dict[Place, SaidInTurn]:
        """Those turns. Raises `TurnMissing` at the first that is not there: made-up ones cost a call, not one each."""
        by_conversation: dict[str, dict[str, None]] = {}
        for place in places:
            by_conversation.setdefault(place.conversation, {})[place.turn] = None
        found: dict[Place, SaidInTurn] = {}
        for conversation, names in by_conversation.items():
            try:
                records = await self._turns.read(tenant, conversation, list(names), size.hold)
            except RedisUnavailable:
                raise unavailable() from None
            for number, turn in enumerate(names):
                record, records[number] = records[number], None
                at = Place(conversation, turn)
                said = None if record is None else await self._read(tenant, at, record, size, number)
                if said is None:
                    raise TurnMissing(at)
                found[at] = said
        return found

    async def response(self, place: Place, tenant: str, request: DownstreamRequest) -> Body | None:
        """A response as its client got it; None where it is not there."""
        try:
            record = (await self._turns.read(tenant, place.conversation, [place.turn], request.grow_body))[0]
        except RedisUnavailable:
            raise unavailable() from None
        content = None if record is None else await self._unseal(tenant, place, record)
        if content is None:
            return None
        request.grow_body(len(content) * COPIES)
        return read_response(content)

    async def _read(
        self, tenant: str, place: Place, record: bytes, size: RecalledSize, number: int
    ) -> SaidInTurn | None:
        """What the `number`-th of several records says; None where it does not open."""
        if number % OPENED_AT_ONCE == OPENED_AT_ONCE - 1:
            await asyncio.sleep(0)
        content = await self._unseal(tenant, place, record)
        if content is None:
            return None
        said = said_part(content)
        size.count(said, len(record))
        return read_said(said)

    async def _unseal(self, tenant: str, place: Place, record: bytes) -> bytes | None:
        if len(record) > IN_A_THREAD // 4:  # text becomes four times as long
            content = await asyncio.to_thread(self._sealer.unseal, tenant, place, record, LARGEST)
        else:
            content = self._sealer.unseal(tenant, place, record, LARGEST)
        if content is None:
            log.error("kept_response_unreadable", tenant=tenant, conversation=place.conversation)
        return content


def not_found(response_id: str, param: str) -> NotFound:
    return NotFound(
        f"Unknown response {response_id!r}: it has expired, was deleted or had to make room, or belongs to another "
        "tenant.",
        param=param,
        code="response_not_found",
    )


def too_large(most: int) -> BodyTooLarge:
    return BodyTooLarge(
        f"The conversation has grown beyond {most} bytes (requests.max_body), {REWRITABLE} values or {MOST_TURNS} "
        "turns: compact it from an earlier response of it, or begin a new one.",
        code="conversation_too_large",
    )


def unavailable() -> ResponsesUnavailable:
    return ResponsesUnavailable(
        "Stored responses cannot be read at the moment; retry in 1 s, or send the conversation as input items.",
        retry_after=1.0,
    )


def as_input(turns: Sequence[ReadTurn]) -> list[Any]:
    """What the turns say, as a later request sends it to a model."""
    return [item for turn in turns for item in turn.said.as_input()]
