"""Turns in a real Redis: what is kept, walked, deleted and evicted, and what the books say of it."""

import asyncio
import os
import random
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest
import pytest_asyncio

from gateway.core.responses.items import NO_ITEMS
from gateway.core.responses.kept_ids import PLACE_BYTES, Place, new_place
from gateway.redis.client import RedisClient
from gateway.responses.sealing import NO_TURN
from gateway.responses.turns import FIRST_TURN, PAGE, PER_TURN, Outcome, TooMuch, Turns
from tests.support.redis import RedisServer, linked, redis_cluster, redis_server

pytestmark = pytest.mark.asyncio(loop_scope="module")

TTL, ROOM, MOST = 1000.0, 1 << 20, 1 << 20
HELD = int
"""Reserves no memory."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server() -> AsyncIterator[RedisServer]:
    async with redis_server() as redis:
        yield redis


@pytest_asyncio.fixture(loop_scope="module")
async def link(server: RedisServer) -> AsyncIterator[RedisClient]:
    server.flush()
    async with linked(server) as made:
        yield made


def record(before: str | None = None, size: int = 100, digest: str = NO_ITEMS) -> bytes:
    return (before or NO_TURN).encode() + digest.encode() + b"x" * (size - 32)


def place(conversation: str | None = None) -> Place:
    return new_place(os.urandom(PLACE_BYTES), conversation)


async def keep(
    turns: Turns, at: Place, before: str | None = None, tenant: str = "acme", size: int = 100, room: int = ROOM
) -> Outcome:
    return (await turns.keep(tenant, at, before, "", record(before, size), TTL, room)).outcome


def total(server: RedisServer, tenant: str = "acme") -> int:
    return int(server.do("HGET", f"fg1:{{{tenant}}}:sizes", "total") or 0)


async def test_a_chain_is_walked_from_its_beginning(link: RedisClient) -> None:
    turns, chain = Turns(link), [place()]
    assert await keep(turns, chain[0]) is Outcome.STORED
    for _ in range(5):
        chain.append(place(chain[0].conversation))
        assert await keep(turns, chain[-1], chain[-2].turn) is Outcome.STORED
    branch = place(chain[0].conversation)
    await keep(turns, branch, chain[1].turn)
    assert [each.turn for each in await turns.walk("acme", chain[-1], MOST, HELD)] == [each.turn for each in chain]
    assert [each.turn for each in await turns.walk("acme", branch, MOST, HELD)] == [
        chain[0].turn,
        chain[1].turn,
        branch.turn,
    ]
    assert await turns.walk("other", chain[-1], MOST, HELD) == []
    assert await turns.walk("acme", Place(chain[0].conversation, "f" * 16), MOST, HELD) == []
    with pytest.raises(TooMuch):
        await turns.walk("acme", chain[-1], 599, HELD)
    assert await turns.read("acme", chain[0].conversation, ["f" * 16, chain[0].turn], HELD) == [None, record()]


async def test_much_is_read_in_pages(link: RedisClient) -> None:
    """No answer of Redis is so long that it would count as lost, however large what is asked for."""
    turns, chain = Turns(link), [place()]
    await keep(turns, chain[0], size=PAGE, room=1 << 30)
    for size in (100, PAGE - 50, 100, PAGE // 2, PAGE // 2, 100):
        chain.append(place(chain[0].conversation))
        await keep(turns, chain[-1], chain[-2].turn, size=size, room=1 << 30)
    for at in (0, 2):
        await turns.delete("acme", chain[at])
    assert [each.turn for each in await turns.walk("acme", chain[-1], 10 * PAGE, HELD)] == [each.turn for each in chain]
    names = [each.turn for each in chain]
    found = await turns.read("acme", chain[0].conversation, [*names, *names], HELD)
    assert [None if each is None else len(each) for each in found[:7]] == [
        None,
        100,
        None,
        100,
        PAGE // 2,
        PAGE // 2,
        100,
    ]
    assert found[7:] == found[:7]
    with pytest.raises(TooMuch):
        await turns.walk("acme", chain[-1], 2 * PAGE, HELD)


async def test_a_turn_is_kept_once(link: RedisClient, server: RedisServer) -> None:
    """A call may be carried out twice."""
    turns, at = Turns(link), place()
    for _ in range(2):
        assert await keep(turns, at) is Outcome.STORED
    assert total(server) == 100 + FIRST_TURN
    assert await turns.delete("acme", at) and not await turns.delete("acme", at)
    assert server.do("KEYS", "fg1:{acme}:responses*") == [] and total(server) == 0
    assert server.do("ZCARD", "fg1:{acme}:conversations") == 0


async def test_a_turn_goes_on_from_what_is_there(link: RedisClient) -> None:
    turns, first = Turns(link), place()
    assert await keep(turns, place(first.conversation), first.turn) is Outcome.GONE
    await turns.keep("acme", first, None, "", record(digest="e" * 16), TTL, ROOM)
    following = place(first.conversation)
    wrong = await turns.keep("acme", following, first.turn, "f" * 16, record(first.turn), TTL, ROOM)
    assert wrong.outcome is Outcome.GONE
    right = await turns.keep("acme", following, first.turn, "e" * 16, record(first.turn), TTL, ROOM)
    assert right.outcome is Outcome.STORED


async def test_a_deleted_turn_stays_a_part_of_those_that_go_on_from_it(link: RedisClient, server: RedisServer) -> None:
    turns, first = Turns(link), place()
    second, third, branch = (place(first.conversation) for _ in range(3))
    for at, before in ((first, None), (second, first.turn), (third, second.turn), (branch, first.turn)):
        await keep(turns, at, before)
    for at in (first, second):
        assert await turns.delete("acme", at) and not await turns.delete("acme", at)
        assert await turns.walk("acme", at, MOST, HELD) == [] and await turns.read(
            "acme", at.conversation, [at.turn], HELD
        ) == [None]
    assert (
        len(await turns.walk("acme", third, MOST, HELD)) == 3 and len(await turns.walk("acme", branch, MOST, HELD)) == 2
    )
    assert total(server) == 4 * 100 + FIRST_TURN + 3 * PER_TURN
    await turns.delete("acme", third)
    assert total(server) == 2 * 100 + FIRST_TURN + PER_TURN, "the second went with it"
    assert await keep(turns, place(first.conversation), third.turn) is Outcome.GONE
    await turns.delete("acme", branch)
    assert total(server) == 0 and server.do("KEYS", "fg1:{acme}:responses*") == []


async def test_everything_expires(link: RedisClient, server: RedisServer) -> None:
    turns, at = Turns(link), place()
    await keep(turns, at)
    keys = server.do("KEYS", "fg1:{acme}:*")
    assert len(keys) == 3
    assert all(900_000 < server.do("PTTL", key) <= 1_000_000 for key in keys)


async def test_what_redis_expired_is_taken_off_the_books(link: RedisClient, server: RedisServer) -> None:
    turns, gone, stays = Turns(link), [place() for _ in range(30)], place()
    for each in gone:
        await keep(turns, each)
        server.do("DEL", f"fg1:{{acme}}:responses:{each.conversation}")  # as its time to live does
        server.do("ZADD", "fg1:{acme}:conversations", 1, each.conversation)
    await keep(turns, stays)
    await keep(turns, place(stays.conversation), stays.turn)
    assert total(server) == 2 * 100 + FIRST_TURN + PER_TURN
    assert server.do("ZRANGE", "fg1:{acme}:conversations", 0, -1) == [stays.conversation.encode()]


async def test_the_conversations_used_least_recently_make_room(link: RedisClient, server: RedisServer) -> None:
    turns, old, young, new = Turns(link), place(), place(), place()
    cost = 1000 + FIRST_TURN
    await keep(turns, old, size=1000)
    await keep(turns, young, size=1000)
    for number, each in enumerate((young, old)):  # used in this order
        server.do("ZADD", "fg1:{acme}:conversations", 10**13 + number, each.conversation)
    made = await turns.keep("acme", new, None, "", record(size=1000), TTL, 2 * cost)
    assert (made.outcome, made.evicted) == (Outcome.STORED, 1)
    assert await turns.walk("acme", young, MOST, HELD) == []
    assert await turns.walk("acme", old, MOST, HELD) and await turns.walk("acme", new, MOST, HELD)
    assert total(server) == 2 * cost


async def test_nothing_is_evicted_for_what_has_no_room_at_all(link: RedisClient, server: RedisServer) -> None:
    turns, other, mine = Turns(link), place(), place()
    cost = 1000 + FIRST_TURN
    await keep(turns, other, size=1000)
    await keep(turns, mine, size=1000)
    grown = await turns.keep(
        "acme", place(mine.conversation), mine.turn, "", record(mine.turn, 2000), TTL, cost + 2000 + PER_TURN - 1
    )
    assert (grown.outcome, grown.evicted) == (Outcome.NO_ROOM, 0)
    assert total(server) == 2 * cost and await turns.walk("acme", other, MOST, HELD)


async def test_a_conversation_does_not_make_room_for_itself(link: RedisClient, server: RedisServer) -> None:
    turns, mine = Turns(link), place()
    await keep(turns, mine, size=1000)
    server.do("ZADD", "fg1:{acme}:conversations", 10**13, mine.conversation)  # the oldest
    other = place()
    await keep(turns, other, size=1000)
    server.do("ZADD", "fg1:{acme}:conversations", 10**13 + 1, other.conversation)
    room = 2 * 1000 + FIRST_TURN + PER_TURN
    made = await turns.keep("acme", place(mine.conversation), mine.turn, "", record(mine.turn, 1000), TTL, room)
    assert (made.outcome, made.evicted) == (Outcome.STORED, 1)
    assert await turns.walk("acme", other, MOST, HELD) == []


async def test_a_conversation_makes_room_for_a_turn_that_goes_on_from_nothing_in_it(
    link: RedisClient, server: RedisServer
) -> None:
    """A client that changes its history begins anew, in the conversation whose ids it sends."""
    turns, first, other = Turns(link), place(), place()
    cost = 1000 + FIRST_TURN
    await keep(turns, first, size=1000)
    await keep(turns, other, size=100)
    anew = place(first.conversation)
    made = await turns.keep("acme", anew, None, "", record(size=1000), TTL, 2 * cost - 1)
    assert (made.outcome, made.evicted) == (Outcome.STORED, 1)
    assert await turns.walk("acme", first, MOST, HELD) == [] and await turns.walk("acme", anew, MOST, HELD)
    assert await turns.walk("acme", other, MOST, HELD) and total(server) == cost + 100 + FIRST_TURN
    large = await turns.keep("acme", place(first.conversation), None, "", record(size=1000), TTL, cost - 1)
    assert (large.outcome, large.evicted) == (Outcome.NO_ROOM, 0)


async def test_the_books_outlive_what_is_in_them(link: RedisClient, server: RedisServer) -> None:
    """`kept_for` may become less by a reload, or be less on another gateway."""
    turns, books = Turns(link), ("fg1:{acme}:sizes", "fg1:{acme}:conversations")
    for ttl in (1000.0, 10.0, 2000.0, 20.0):
        await turns.keep("acme", place(), None, "", record(), ttl, ROOM)
    assert all(1_990_000 < server.do("PTTL", book) <= 2_000_000 for book in books)


class Full(Exception):
    """There is no memory."""


async def test_no_more_is_read_than_there_is_memory_for(link: RedisClient) -> None:
    turns, chain, read = Turns(link), [place()], list[int]()
    await keep(turns, chain[0], size=PAGE, room=1 << 30)
    for _ in range(4):
        chain.append(place(chain[0].conversation))
        await keep(turns, chain[-1], chain[-2].turn, size=PAGE, room=1 << 30)

    def hold(size: int) -> None:
        read.append(size)
        if sum(read) > 2 * PAGE:
            raise Full

    with pytest.raises(Full):
        await turns.walk("acme", chain[-1], 1 << 30, hold)
    assert read == [PAGE] * 3
    read.clear()
    with pytest.raises(Full):
        await turns.read("acme", chain[0].conversation, [each.turn for each in chain], hold)
    assert read == [PAGE] * 3


async def test_in_a_cluster() -> None:
    async with redis_cluster() as redis, linked(redis) as link:
        turns = Turns(link)
        for tenant in ("acme", "other", "third"):
            first = place()
            assert await keep(turns, first, tenant=tenant) is Outcome.STORED
            second = place(first.conversation)
            assert await keep(turns, second, first.turn, tenant) is Outcome.STORED
            assert len(await turns.walk(tenant, second, MOST, HELD)) == 2
            assert await turns.delete(tenant, second)


@dataclass(slots=True)
class Model:
    """Turns on paper: for each tenant its conversations in the order of their last use, each a tree of turns."""

    room: int
    held: dict[str, dict[str, dict[str, tuple[str | None, int]]]] = field(default_factory=dict)
    deleted: set[str] = field(default_factory=set)

    def total(self, tenant: str) -> int:
        return sum(map(_size, self.held.get(tenant, {}).values()))

    def keep(self, tenant: str, at: Place, before: str | None, size: int) -> tuple[Outcome, int]:
        mine = self.held.setdefault(tenant, {})
        own = mine.get(at.conversation, {})
        if before is not None and before not in own:
            return Outcome.GONE, 0
        cost = size + (FIRST_TURN if before is None else PER_TURN)
        if _size(own) + cost > self.room:
            return Outcome.NO_ROOM, 0
        evicted = 0
        while self.total(tenant) + cost > self.room:
            del mine[next(name for name in mine if name != at.conversation)]
            evicted += 1
        mine.pop(at.conversation, None)
        mine[at.conversation] = {**own, at.turn: (before, size)}
        return Outcome.STORED, evicted

    def walk(self, tenant: str, at: Place) -> list[str]:
        turns, found = self.held.get(tenant, {}).get(at.conversation, {}), list[str]()
        turn: str | None = at.turn
        if at.turn not in turns or at.turn in self.deleted:
            return []
        while turn is not None:
            found.append(turn)
            turn = turns[turn][0]
        return found[::-1]

    def delete(self, tenant: str, at: Place) -> bool:
        turns = self.held.get(tenant, {}).get(at.conversation, {})
        if at.turn not in turns or at.turn in self.deleted:
            return False
        self.deleted.add(at.turn)
        while unneeded := {turn for turn in turns if turn in self.deleted} - {before for before, _ in turns.values()}:
            for turn in unneeded:
                del turns[turn]
        if not turns:
            del self.held[tenant][at.conversation]
        return True


def _size(turns: dict[str, tuple[str | None, int]]) -> int:
    return sum(size + (FIRST_TURN if before is None else PER_TURN) for before, size in turns.values())


@pytest.mark.parametrize("seed", range(12))
async def test_turns_agree_with_a_model_on_paper(link: RedisClient, server: RedisServer, seed: int) -> None:
    """Random histories of two tenants: kept, chained, branched, deleted, read by the wrong tenant, out of room."""
    dice = random.Random(seed)
    turns, model = Turns(link), Model(room=8000)
    made: list[tuple[str, Place]] = []
    for step in range(120):
        tenant = dice.choice(("acme", "other"))
        owner, known = dice.choice(made) if made else (tenant, place())
        kind = dice.choice(("new", "chain", "chain", "chain", "delete", "walk"))
        if kind == "delete":
            assert await turns.delete(tenant, known) is model.delete(tenant, known)
        elif kind == "walk":
            assert [each.turn for each in await turns.walk(tenant, known, MOST, HELD)] == model.walk(tenant, known)
        else:
            chained = kind == "chain" and bool(made)
            at = place(known.conversation if chained else None)
            who, before = (owner, known.turn) if chained else (tenant, None)
            size = dice.choice((40, 100, 800, 1500, 8000))
            kept = await turns.keep(who, at, before, "", record(before, size), TTL, model.room)
            assert (kept.outcome, kept.evicted) == model.keep(who, at, before, size), (seed, step)
            made.append((who, at))
            if kept.outcome is Outcome.STORED:  # the clock ticks
                server.do("ZADD", f"fg1:{{{who}}}:conversations", "XX", 10**13 + step, at.conversation)
    for tenant in ("acme", "other"):
        assert total(server, tenant) == model.total(tenant) <= model.room
        names = {name.decode() for name in server.do("KEYS", f"fg1:{{{tenant}}}:responses:*")}
        assert names == {f"fg1:{{{tenant}}}:responses:{name}" for name in model.held.get(tenant, {})}
    for owner, at in made:
        assert [each.turn for each in await turns.walk(owner, at, MOST, HELD)] == model.walk(owner, at)


async def test_gateways_that_keep_at_once_lose_nothing(link: RedisClient, server: RedisServer) -> None:
    async with linked(server) as another:
        gateways, first = [Turns(link), Turns(another)], place()
        await keep(gateways[0], first)
        places = [place(first.conversation) for _ in range(60)]
        kept = [keep(gateways[number % 2], at, first.turn) for number, at in enumerate(places)]
        assert set(await asyncio.gather(*kept)) == {Outcome.STORED}
        assert total(server) == 61 * 100 + FIRST_TURN + 60 * PER_TURN
        assert all([len(await gateways[0].walk("acme", at, MOST, HELD)) == 2 for at in places])
