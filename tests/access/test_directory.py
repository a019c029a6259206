"""The directory and the ring on every kind of server: one slot of a cluster holds all of it."""

import pytest

from gateway.access.audit import Audit
from gateway.access.directory import AlreadyThere, Directory
from gateway.access.keyring import Keyring, Reading
from gateway.config.tenants import read_grant, read_tenant
from gateway.core.tenants import Tenants
from gateway.keys import make_key
from gateway.shared.link import Link, LinkSettings
from tests.support.gateways import eventually
from tests.support.redis import redis_cluster, redis_server

READING = Reading(lambda name, settings: read_tenant(b"secret", name, settings), read_grant)


@pytest.mark.parametrize("kind", ["valkey9", "redis7", "cluster"])
async def test_a_tenants_life(kind: str) -> None:
    server = redis_cluster() if kind == "cluster" else redis_server("redis7" if kind == "redis7" else "valkey9")
    async with server as redis:
        link = Link(LinkSettings(redis.url, cluster=redis.cluster, timeout=1.0, connect_timeout=2.0))
        directory, ring = Directory(link, 100), Keyring(link, READING, Tenants(), 100, 60.0)
        ring.start()
        await directory.create_tenant("who", "acme", {"models": ["a"]})
        with pytest.raises(AlreadyThere):
            await directory.create_tenant("who", "acme", {})
        digest = bytes.fromhex(make_key()[1])
        made = await directory.create_key("who", "acme", digest, {"label": "x"}, in_file=False)
        found = await ring.look_up(digest)
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
        assert await ring.look_up(new) is None
        lines = await Audit(link, 100).read(0.0, 10)
        told = [line.deed.what for line in lines]
        assert told == ["tenant deleted", "key rotated", "key created", "tenant created"]
        await ring.stop()
        await link.stop()
