"""The responses that gateways keep for clients, where nodes are asked in chat, which stores nothing.

    a request                                   here
    with `previous_response_id` of a kept one   its conversation is put before the request's input
    with `item_reference` to a kept item        the item is put in its place
    that is to be stored                        its turn is kept, before the end of its answer is sent
    GET, DELETE, its input items                answered from what is kept

A node gets all of a conversation, as if the client had sent it, so any node may serve any turn.
"""

import asyncio
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import structlog

from gateway.core.bodies import Body, exact_body, is_long
from gateway.core.dialects import Ask, Dialect
from gateway.core.dialects.fields import at, expect, optional, required
from gateway.core.dialects.responses_input import asks_for_compaction
from gateway.core.errors import InvalidRequest, NotFound
from gateway.core.json_text import dump
from gateway.core.reading.outline import Outline, too_many_to_rewrite
from gateway.core.responses.items import Earlier, fold, is_reference, listed, repeats, text_length
from gateway.core.responses.kept_ids import (
    PLACE_BYTES,
    ItemPlace,
    Place,
    item_place,
    new_place,
    open_kept_id,
    seal_place,
)
from gateway.core.responses.kept_turn import Before, KeptTurn
from gateway.core.responses.turn_record import write_record
from gateway.core.telemetry.request_stats import RequestStats
from gateway.redis.client import RedisClient, RedisUnavailable
from gateway.responses.sealing import Sealer
from gateway.responses.turn_reader import (
    IN_A_THREAD,
    RecalledSize,
    TurnMissing,
    TurnReader,
    as_input,
    not_found,
    too_large,
    unavailable,
)
from gateway.responses.turns import Kept, Outcome, Turns
from gateway.upstream.downstream import DownstreamRequest

log = structlog.get_logger("fleetgate.responses")

FOLDED_AT_ONCE = 32
"""Items whose digest is taken before others get a turn."""


@dataclass(frozen=True, slots=True)
class ResponseRules:
    """`kept_for`: seconds from the last turn of a conversation. `max_bytes`: of one response with the input that its
    request brought, as JSON. `tenant_bytes`: of Redis' memory for one tenant. `max_conversation`: bytes of a body, to
    which a conversation may grow."""

    kept_for: float
    max_bytes: int
    tenant_bytes: int
    max_conversation: int


class Recalled(NamedTuple):
    """What a request says once its references are resolved. `before`: what its turn goes on from, in `conversation`
    (None: in one of its own). `items`: its own input, which `earlier` stands before."""

    ask: Ask
    before: Before
    conversation: str | None
    items: list[Any]
    earlier: Earlier


class KeptResponses:
    """`key`: the response key."""

    def __init__(self, redis: RedisClient, key: bytes, rules: ResponseRules) -> None:
        self._turns = Turns(redis)
        self._key = key
        self._sealer = Sealer(key)
        self._reader = TurnReader(self._turns, self._sealer)
        self.rules = rules

    # What a request goes on from

    def refers(self, ask: Ask, tenant: str) -> bool:
        """Whether a request refers to what is kept. Raises `InvalidRequest`."""
        given: Any = ask.body.get("input")
        if type(given) is list and any(map(is_reference, given)):
            return True
        previous = optional(ask.body, "previous_response_id", str)
        return previous is not None and open_kept_id(self._key, previous, tenant) is not None

    async def recall(self, ask: Ask, dialect: Dialect, tenant: str, request: DownstreamRequest) -> Recalled:
        """A request that `refers`, with what it refers to in its place. Its memory is reserved as that of a body.
        Raises `InvalidRequest`, `NotFound`, `MemoryFull` and `ResponsesUnavailable`."""
        body = ask.body
        if type(body) is Outline:
            raise too_many_to_rewrite()
        given: Any = body.get("input")
        if given is not None and type(given) is not str:
            expect(given, list, "input")
        size = RecalledSize(request, self.rules.max_conversation)
        previous = optional(body, "previous_response_id", str)
        place = None if previous is None else open_kept_id(self._key, previous, tenant)
        before, earlier, conversation = Before(), list[Any](), None
        if place is not None and previous is not None:
            conversation = place.conversation
            found = await self._reader.conversation(place, tenant, size)
            if found is None:
                raise not_found(previous, "previous_response_id")
            before, earlier = Before(place.turn, found.digest), as_input(found.turns)
            await asyncio.sleep(0)
        exact = exact_body(ask.raw, body)
        items = await self._resolve(listed(exact.get("input")), tenant, size)
        whole = {name: value for name, value in exact.items() if place is None or name != "previous_response_id"}
        whole["input"] = [*earlier, *items]
        await asyncio.sleep(0)
        raw = dump(whole)
        if len(raw) > self.rules.max_conversation:
            raise too_large(self.rules.max_conversation)
        await asyncio.sleep(0)
        known = Earlier(len(earlier), type(given) is str)
        try:
            made = dialect.read(raw, whole)
        except InvalidRequest as error:
            raise known.own_words(error) from None
        made.long = ask.long or is_long(raw, size.values)
        if place is None:
            made.continues = ask.continues
        else:
            made.continued = previous
        return Recalled(made, before, conversation, items, known)

    async def _resolve(self, items: list[Any], tenant: str, size: RecalledSize) -> list[Any]:
        """`items` with kept ones in place of references."""
        named = {at: _place_of(item, f"input.{at}") for at, item in enumerate(items) if is_reference(item)}
        if not named:
            return items
        try:
            turns = await self._reader.turns([each.place for each in named.values()], tenant, size)
        except TurnMissing as missing:
            number = next(number for number, each in named.items() if each.place == missing.place)
            raise _unknown_item(items[number], f"input.{number}") from None
        resolved = list(items)
        seen: set[ItemPlace] = set()
        for number, each in named.items():
            item = turns[each.place].item(each.number)
            if item is None:
                raise _unknown_item(items[number], f"input.{number}")
            if each in seen:  # the first time, it is counted with its record
                size.count(dump(item))
            seen.add(each)
            resolved[number] = item
        return resolved

    # What is kept of a request

    def begin(self, ask: Ask, tenant: str, recalled: Recalled | None) -> KeptTurn | None:
        """The turn that the request's answer completes; None where it is not to be stored, or cannot be."""
        body = ask.body
        if body.get("store") is False or ask.background or ask.continues is not None or type(body) is Outline:
            return None
        if asks_for_compaction(body):
            return None
        items = listed(body.get("input")) if recalled is None else recalled.items
        before, conversation = (Before(), None) if recalled is None else (recalled.before, recalled.conversation)
        if before.turn is None and (again := repeats(items)) is not None:
            before = Before(again.place.turn, repeated=again.length)
            conversation = again.place.conversation
        place = new_place(os.urandom(PLACE_BYTES), conversation)
        return KeptTurn(seal_place(self._key, place, tenant), place, before, items)

    async def conclude(self, turn: KeptTurn, tenant: str, request: DownstreamRequest, stats: RequestStats) -> None:
        """Store a turn whose answer is complete, and send the end of the answer, which says whether it was stored. The
        client waits for that alone: with it, the next request may come to another gateway at once. An answer that its
        node gave in the client's own dialect has been sent, and is not kept here."""
        if turn.response is None:
            return
        stored = False
        try:
            kept = await self._try(turn, tenant)
            stats.stored, stats.evicted = kept.outcome.value, kept.evicted
            stored = kept.outcome is Outcome.STORED
        finally:  # the process may be at the end of its shutdown
            self._end(turn, request, stored)

    @staticmethod
    def _end(turn: KeptTurn, request: DownstreamRequest, stored: bool) -> None:
        end = turn.end(stored)
        if turn.head is None:
            request.finish(end)
        else:
            request.answer(*turn.head, end)

    async def _try(self, turn: KeptTurn, tenant: str) -> Kept:
        """Whatever happens, the answer is not lost: this raises nothing."""
        try:
            return await self._store(turn, tenant)
        except RedisUnavailable:
            return Kept(Outcome.UNAVAILABLE, 0)
        except Exception:
            log.exception("storing_failed", tenant=tenant)
            return Kept(Outcome.FAILED, 0)

    async def _store(self, turn: KeptTurn, tenant: str) -> Kept:
        before, items, most = turn.before, turn.items, self.rules.max_bytes
        assert turn.response is not None
        output = turn.response["output"]
        await asyncio.sleep(0)
        if before.repeated:
            own = items[before.repeated :]
            if text_length(own, most) > most:
                return Kept(Outcome.TOO_LARGE, 0)
            known = await self._fold(before.digest, items[: before.repeated])
            digest = await self._fold(known, [*own, *output])
            kept = await self._write(turn, tenant, before.turn, known, digest, own)
            if kept.outcome is not Outcome.GONE:
                return kept
            before = Before()  # it only looked like what was said before
        if text_length(items, most) > most:
            return Kept(Outcome.TOO_LARGE, 0)
        digest = await self._fold(before.digest, [*items, *output])
        return await self._write(turn, tenant, before.turn, "", digest, items)

    async def _fold(self, digest: str, items: Sequence[Any]) -> str:
        """`fold`, between the steps of which others get a turn: a client may send its whole history each time."""
        key = self._sealer.digest_key
        for start in range(0, len(items), FOLDED_AT_ONCE):
            if start:
                await asyncio.sleep(0)
            digest = fold(key, digest, items[start : start + FOLDED_AT_ONCE])
        return digest

    async def _write(
        self, turn: KeptTurn, tenant: str, before: str | None, known: str, digest: str, items: Sequence[Any]
    ) -> Kept:
        """Keep a turn as what follows the turn `before`, which has to have the digest `known`."""
        assert turn.response is not None
        rules = self.rules
        content = write_record(items, turn.response)
        if len(content) > rules.max_bytes:
            return Kept(Outcome.TOO_LARGE, 0)
        sealing = (tenant, turn.place, before, digest, content)
        if len(content) > IN_A_THREAD:
            record = await asyncio.to_thread(self._sealer.seal, *sealing)
        else:
            record = self._sealer.seal(*sealing)
        return await self._turns.keep(tenant, turn.place, before, known, record, rules.kept_for, rules.tenant_bytes)

    # What clients ask for

    def place_of(self, response_id: str, tenant: str) -> Place | None:
        """Where a response is kept; None where the id is not that of a kept one of `tenant`."""
        return open_kept_id(self._key, response_id, tenant)

    async def response(self, place: Place, tenant: str, response_id: str, request: DownstreamRequest) -> Body:
        """A response as its client got it. Raises `NotFound`, `MemoryFull` and `ResponsesUnavailable`."""
        response = await self._reader.response(place, tenant, request)
        if response is None:
            raise not_found(response_id, "response_id")
        return response

    async def delete(self, place: Place, tenant: str, response_id: str) -> Body:
        """Delete a response; what was said stays a part of those that go on from it. Raises as `response`."""
        try:
            there = await self._turns.delete(tenant, place)
        except RedisUnavailable:
            raise unavailable() from None
        if not there:
            raise not_found(response_id, "response_id")
        return {"id": response_id, "object": "response", "deleted": True}

    async def input_items(self, place: Place, tenant: str, response_id: str, request: DownstreamRequest) -> list[Body]:
        """All items that its model was given, the first one first, for `shown_items`. Raises as `response`, and
        `BodyTooLarge`."""
        size = RecalledSize(request, self.rules.max_conversation)
        found = await self._reader.conversation(place, tenant, size)
        if found is None:
            raise not_found(response_id, "response_id")
        items: list[Body] = []
        for turn, said in found.turns:
            items += said.listed_items(turn)
            if turn != place:
                items += said.output
        return items


def _place_of(item: Body, where: str) -> ItemPlace:
    found = item_place(required(item, "id", str, where))
    if found is None:
        raise _unknown_item(item, where)
    return found


def _unknown_item(item: Body, where: str) -> NotFound:
    path = at(where, "id")
    return NotFound(
        f"Unknown item {item.get('id')!r} in {path!r}: items are known as long as the response that they are of, where "
        "that was stored. Send the item itself.",
        param=path,
        code="item_not_found",
    )
