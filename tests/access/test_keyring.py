"""What a process remembers of keys stays right: changes between its readings, blips at any of them, in any order."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from redis import Redis

from gateway.access.directory import Directory
from gateway.access.keyring import Keyring, RecordReaders
from gateway.access.new_keys import make_key
from gateway.config.access import read_grant, read_tenant
from gateway.core.access.tenants import Tenants
from gateway.core.errors import KeysUnknown
from gateway.redis.client import RedisClient, RedisSettings, RedisUnavailable
from tests.support.redis import redis_server
from tests.support.resp import RespProxy, resp_proxy

READING = RecordReaders(lambda name, given: read_tenant(b"secret", name, given), read_grant)
REFUSED = b"-TRYAGAIN later\r\n"
READS = (b"GET", b"HSCAN", b"HMGET", b"EVALSHA", b"EVAL")


@dataclass
class House:
    """A ring whose way to Redis leads through a proxy, and a directory that goes around it."""

    ring: Keyring
    link: RedisClient
    directory: Directory
    proxy: RespProxy
    digests: list[bytes] = field(default_factory=list)
    ids: dict[bytes, str] = field(default_factory=dict)

    async def create(self) -> bytes:
        digest = bytes.fromhex(make_key()[1])
        made = await self.directory.create_key("who", "acme", digest, {}, in_file=False)
        self.digests.append(digest)
        self.ids[digest] = made.id
        return digest

    async def revoke(self, digest: bytes) -> None:
        record = await self.directory.key(self.ids.pop(digest))
        assert record is not None
        await self.directory.revoke_key("who", record)

    async def look(self) -> bool:
        with contextlib.suppress(RedisUnavailable):
            await self.ring.refresh()
            return True
        return False


@contextlib.asynccontextmanager
async def house() -> AsyncIterator[House]:
    async with redis_server() as redis, resp_proxy(redis) as proxy:
        straight = RedisClient(RedisSettings(redis.url, timeout=5.0, connect_timeout=5.0))
        link = RedisClient(RedisSettings(proxy.url, timeout=5.0, connect_timeout=5.0))
        directory = Directory(straight, 100)
        await directory.create_tenant("who", "acme", {})
        try:
            yield House(Keyring(link, READING, Tenants(), 100, 60.0), link, directory, proxy)
        finally:
            await link.stop()
            await straight.stop()


def before(proxy: RespProxy, command: bytes, act: Callable[[], None]) -> None:
    """Call `act` once, between the reading of the version and `command`."""

    def swap(asked: list[bytes]) -> bytes | None:
        if asked[0] == command:
            proxy.heal()
            act()
        return None

    proxy.swap = swap


def rewrite(at: House, digest: bytes) -> Callable[[], None]:
    """A revocation that is made in one turn of the loop, by hand: key and version."""

    def act() -> None:
        with Redis(port=at.proxy.redis_port) as client:
            client.hdel("fg1:{access}:keys", at.ids[digest])
            client.incr("fg1:{access}:version")

    return act


@pytest.mark.parametrize(("command", "first"), [(b"HSCAN", True), (b"HMGET", True), (b"HMGET", False)])
async def test_a_key_that_is_revoked_between_the_two_readings_is_gone_after_the_next_look(
    command: bytes, first: bool
) -> None:
    async with house() as at:
        digest = await at.create()
        if first:
            assert await at.ring.find(digest) is not None, "a request was quicker than the first look"
        else:
            assert await at.look() and at.ring.known(digest) is not None
            await at.create()
        before(at.proxy, command, rewrite(at, digest))
        assert await at.look()
        assert await at.look()
        assert at.ring.known(digest) is None and await at.ring.find(digest) is None


@pytest.mark.parametrize("fails", READS[:3])
@pytest.mark.parametrize("first", [True, False])
async def test_a_blip_while_a_change_is_read_does_not_lose_it(fails: bytes, first: bool) -> None:
    async with house() as at:
        digest, other = await at.create(), await at.create()
        if not first:
            assert await at.look()
        await at.revoke(digest)
        at.proxy.swap = lambda asked: REFUSED if asked[0] == fails else None
        missed = await at.look()
        assert missed == (fails == b"HSCAN" and not first)
        at.proxy.heal()
        assert await at.look()
        assert at.ring.known(digest) is None
        assert at.ring.known(other) is not None, "what there is at the start is known, so that an outage finds it"


async def test_a_key_that_was_revoked_before_the_first_look_is_gone_with_it() -> None:
    async with house() as at:
        digest = await at.create()
        assert await at.ring.find(digest) is not None, "a request was quicker"
        await at.revoke(digest)
        assert await at.look()
        assert at.ring.known(digest) is None


async def test_looking_up_others_keeps_no_revoked_key_alive() -> None:
    """Reading again fails for good; a look-up of another key is an answer, but not about the revoked one."""
    async with house() as at:
        at.ring = Keyring(at.link, READING, Tenants(), 100, 0.2)
        digest = await at.create()
        assert await at.look() and at.ring.known(digest) is not None
        await at.revoke(digest)
        at.proxy.swap = lambda asked: REFUSED if asked[0] in (b"HMGET", b"HSCAN") else None
        for _ in range(6):
            other = await at.create()
            assert not await at.look()
            assert await at.ring.find(other) is not None
            assert at.ring.known(other) is not None
            await asyncio.sleep(0.05)
        assert at.ring.known(digest) is None
        assert await at.ring.find(digest) is None, "Redis is asked, and knows"


async def test_a_key_that_was_made_meanwhile_is_not_taken_for_an_unknown_one() -> None:
    async with house() as at:
        assert await at.look()
        digest = bytes.fromhex(make_key()[1])
        assert await at.ring.find(digest) is None
        await at.directory.create_key("who", "acme", digest, {}, in_file=False)
        assert await at.look()
        assert await at.ring.find(digest) is not None


STEPS = st.one_of(
    st.just("create"),
    st.tuples(st.just("revoke"), st.integers(0, 5)),
    st.tuples(st.just("look up"), st.integers(0, 5)),
    st.just("look"),
    st.tuples(st.just("look, failing at"), st.sampled_from(READS[:3]), st.integers(0, 1)),
    st.tuples(st.just("look, losing at"), st.sampled_from(READS[:3]), st.integers(0, 1)),
    st.tuples(st.just("look, revoking at"), st.sampled_from(READS[1:3]), st.integers(0, 5)),
)


BEGINNINGS: tuple[list[object], ...] = ([], ["create", ("look up", 0)], ["create", "create", "look", ("revoke", 0)])


@settings(max_examples=80)
@given(beginning=st.sampled_from(BEGINNINGS), steps=st.lists(STEPS, min_size=1, max_size=6))
@example(BEGINNINGS[1], [("revoke", 0)])
@example(BEGINNINGS[2], [("look, failing at", b"HMGET", 0)])
@example(BEGINNINGS[2], [("look, losing at", b"HMGET", 0)])
def test_no_revoked_key_outlives_the_next_look_that_succeeds(beginning: list[object], steps: list[object]) -> None:
    asyncio.run(play([*beginning, *steps, "look"]))


async def play(steps: list[object]) -> None:
    async with house() as at:
        stale: set[bytes] = set()
        """Revoked since the last look that began after it and succeeded: they may still be known."""
        for step in steps:
            gone_before = set(at.digests) - set(at.ids)
            match step:
                case "create":
                    await at.create()
                case "revoke", int(number):
                    if at.ids:
                        digest = list(at.ids)[number % len(at.ids)]
                        await at.revoke(digest)
                        stale.add(digest)
                case "look up", int(number):
                    if at.digests:
                        digest = at.digests[number % len(at.digests)]
                        with contextlib.suppress(KeysUnknown):
                            found = await at.ring.find(digest)
                            assert (found is not None) == (digest in at.ids), "Redis itself is asked"
                case "look":
                    if await at.look():
                        stale -= gone_before
                case "look, revoking at", bytes(command), int(number):
                    if at.ids:
                        digest = list(at.ids)[number % len(at.ids)]
                        before(at.proxy, command, rewrite(at, digest))
                        if await at.look():
                            stale -= gone_before
                        if at.proxy.asked and _was_revoked(at, digest):
                            del at.ids[digest]
                            stale.add(digest)
                        at.proxy.heal()
                case _:
                    assert isinstance(step, tuple)
                    at.proxy.swap = _blip(step[1], step[2], cut=step[0] == "look, losing at")
                    if await at.look():
                        stale -= gone_before
                    at.proxy.heal()
                    async with asyncio.timeout(20):
                        while not at.link.up:
                            await at.link._probe()
            for digest in set(at.digests) - set(at.ids) - stale:
                assert at.ring.known(digest) is None, steps
        assert await at.look()
        for digest in at.digests:
            assert (at.ring.known(digest) is None) or digest in at.ids, steps


def _was_revoked(at: House, digest: bytes) -> bool:
    with Redis(port=at.proxy.redis_port) as client:
        return not client.hexists("fg1:{access}:keys", at.ids[digest])


def _blip(command: bytes, number: int, cut: bool) -> Callable[[list[bytes]], bytes | None]:
    """The reply to the command of that number is an error, or no answer but garbage that ends the connection."""
    seen = 0

    def swap(asked: list[bytes]) -> bytes | None:
        nonlocal seen
        seen += asked[0] == command
        hit = asked[0] == command and seen == number + 1
        return (b"?\r\n" if cut else REFUSED) if hit else None

    return swap


async def test_a_use_that_was_being_noted_when_the_ring_stops_is_noted_all_the_same() -> None:
    async with house() as at:
        digest = await at.create()
        assert await at.ring.find(digest) is not None
        noting = asyncio.Event()

        async def hold(asked: list[bytes]) -> None:
            if asked[0] == b"HSET" and not noting.is_set():
                noting.set()
                await asyncio.Event().wait()  # the first one never comes to Redis

        at.proxy.meanwhile = hold
        at.ring.start()
        await noting.wait()
        await at.ring.stop()
        assert list(await at.directory.last_used()) == [at.ids[digest]]
