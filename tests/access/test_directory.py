"""The directory and the ring on every kind of server: one slot of a cluster holds all of it."""

import contextlib
from collections.abc import AsyncIterator, Awaitable

import pytest

from gateway.access.audit import Audit
from gateway.access.directory import AlreadyExists, Directory
from gateway.access.keyring import Keyring, RecordReaders
from gateway.access.new_keys import make_key
from gateway.access.records import KeyRecord
from gateway.config.access import read_grant, read_tenant
from gateway.core.access.tenants import Tenants
from gateway.redis.client import RedisClient, RedisSettings, ScriptFailed
from tests.support.gateways import eventually
from tests.support.redis import Kind, RedisServer, redis_cluster, redis_server
from tests.support.resp import resp_proxy
from tests.support.rights import documented, give, linked_as

READING = RecordReaders(lambda name, settings: read_tenant(b"secret", name, settings), read_grant)


@pytest.mark.parametrize("kind", ["valkey9", "redis7", "cluster"])
async def test_a_tenants_life(kind: str) -> None:
    server = redis_cluster() if kind == "cluster" else redis_server("redis7" if kind == "redis7" else "valkey9")
    async with server as redis:
        link = RedisClient(RedisSettings(redis.url, cluster=redis.cluster, timeout=1.0, connect_timeout=2.0))
        directory, ring = Directory(link, 100), Keyring(link, READING, Tenants(), 100, 60.0)
        ring.start()
        await directory.create_tenant("who", "acme", {"models": ["a"]})
        with pytest.raises(AlreadyExists):
            await directory.create_tenant("who", "acme", {})
        digest = bytes.fromhex(make_key()[1])
        made = await directory.create_key("who", "acme", digest, {"label": "x"}, in_file=False)
        found = await ring.find(digest)
        assert found is not None and (found.tenant.name, found.key) == ("acme", made.id)
        assert ring.known(digest) == found
        new = bytes.fromhex(make_key()[1])
        kept = await directory.key(made.id)
        assert kept is not None
        await directory.rotate_key("who", kept, new, kept.settings, {**kept.settings, "expires": "2020-01-01"})
        assert [key.replaces for key in await directory.keys("acme")] == [None, made.id]
        await eventually(lambda: (old := ring.known(digest)) is not None and old.expires < 2e9)
        tenant = await directory.tenant("acme")
        assert tenant is not None and await directory.delete_tenant("who", tenant) == 2
        await eventually(lambda: ring.known(digest) is None)
        assert await ring.find(new) is None
        lines = await Audit(link, 100).read(0.0, 10)
        told = [line.event.what for line in lines]
        assert told == ["tenant deleted", "key rotated", "key created", "tenant created"]
        await ring.stop()
        await link.stop()


@contextlib.asynccontextmanager
async def directory() -> AsyncIterator[tuple[Directory, RedisServer]]:
    async with redis_server() as redis:
        link = RedisClient(RedisSettings(redis.url, timeout=5.0, connect_timeout=5.0))
        try:
            yield Directory(link, 100), redis
        finally:
            await link.stop()


async def key_of(at: Directory, tenant: str) -> KeyRecord:
    return await at.create_key("who", tenant, bytes.fromhex(make_key()[1]), {}, in_file=False)


async def test_a_tenant_that_is_there_keeps_its_keys_when_it_is_created_again() -> None:
    async with directory() as (at, redis):
        await at.create_tenant("who", "acme", {})
        made = [await key_of(at, "acme") for _ in range(3)]
        before = redis.do("GET", "fg1:{access}:version"), redis.do("XLEN", "fg1:{access}:audit")
        with pytest.raises(AlreadyExists):
            await at.create_tenant("who", "acme", {})
        assert [key.id for key in await at.keys("acme")] == [key.id for key in made]
        assert (redis.do("GET", "fg1:{access}:version"), redis.do("XLEN", "fg1:{access}:audit")) == before


async def test_keys_that_a_deleted_tenant_left_behind_open_nothing_for_the_next_one_of_that_name() -> None:
    async with directory() as (at, redis):
        await at.create_tenant("who", "acme", {})
        left = [await key_of(at, "acme") for _ in range(3)]
        redis.do("HDEL", "fg1:{access}:tenants", "acme")  # and whoever did it died
        await at.create_tenant("who", "acme", {})
        assert await at.keys("acme") == []
        assert [await at.key(key.id) for key in left] == [None] * 3


async def test_a_tenant_that_is_created_while_its_forerunner_is_deleted_keeps_its_keys() -> None:
    """The deletion has read the keys that there are; before it takes them out there are a tenant and a key again."""
    async with redis_server() as redis, resp_proxy(redis) as proxy:
        straight = RedisClient(RedisSettings(redis.url, timeout=5.0, connect_timeout=5.0))
        link = RedisClient(RedisSettings(proxy.url, timeout=5.0, connect_timeout=5.0))
        at, other = Directory(link, 100), Directory(straight, 100)
        await at.create_tenant("who", "acme", {})
        await key_of(at, "acme")
        new: list[KeyRecord] = []

        async def meanwhile() -> None:
            await other.create_tenant("who", "acme", {})
            new.append(await key_of(other, "acme"))

        for turn in (b"HSCAN", b"EVALSHA"):  # before the keys are read, and before they are taken out
            new.clear()
            before = await at.tenant("acme")
            assert before is not None
            seen = [0]

            def swap(asked: list[bytes], turn: bytes = turn, seen: list[int] = seen) -> Awaitable[None] | None:
                seen[0] += asked[0] == turn
                if seen[0] == (1 if turn == b"HSCAN" else 2):  # the second script is the one that takes out
                    seen[0] = 99
                    return meanwhile()
                return None

            proxy.meanwhile = swap
            await at.delete_tenant("who", before)
            proxy.meanwhile = None
            assert [key.id for key in await at.keys("acme")] == [key.id for key in new] and len(new) == 1, turn
        await link.stop()
        await straight.stop()


@pytest.mark.parametrize("refused", ["+xadd", "+hset", "+hdel", "+set"])
@pytest.mark.parametrize("kind", ["valkey9", "redis7"])
async def test_a_change_that_is_refused_has_changed_nothing(kind: Kind, refused: str) -> None:
    """Redis undoes nothing of a script that fails midway: what may be refused comes before the first edit."""
    rights = [right for right in documented("rights") if right != refused]
    async with redis_server(kind) as redis:
        straight = RedisClient(RedisSettings(redis.url, timeout=5.0, connect_timeout=5.0))
        sure = Directory(straight, 100)
        await sure.create_tenant("who", "acme", {})
        made = await key_of(sure, "acme")
        kept = await sure.key(made.id)
        tenant = await sure.tenant("acme")
        assert kept is not None and tenant is not None
        names = [f"fg1:{{access}}:{name}" for name in ("tenants", "keys", "version", "audit")]
        before = [redis.do("DUMP", name) for name in names]
        async with linked_as(redis, give(redis, "gate", rights)) as link:
            at = Directory(link, 100)
            for change in (
                at.create_tenant("who", "other", {}),
                at.set_tenant("who", tenant, {"models": ["m"]}, {}),
                at.create_key("who", "acme", bytes.fromhex(make_key()[1]), {}, in_file=False),
                at.rotate_key("who", kept, bytes.fromhex(make_key()[1]), {}, {}),
                at.revoke_key("who", kept),
                at.delete_tenant("who", tenant),
            ):
                with pytest.raises(ScriptFailed):
                    await change
                now = [redis.do("DUMP", name) for name in names[:3]]
                assert now == before[:3] and redis.do("XLEN", names[3]) == 2
        await straight.stop()
