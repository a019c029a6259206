"""Redis users have the rights that the documentation lists: these do for everything, and none of them is too many."""

import asyncio

import pytest

from tests.support.redis import Kind, redis_cluster, redis_server
from tests.support.registrations import record
from tests.support.rights import documented, give, linked_as, use_everything
from workers.registry import RedisRegistry, RegistryUnreachable

RIGHTS = documented("rights")
KINDS: tuple[Kind, ...] = ("valkey9", "redis7")


@pytest.mark.parametrize("kind", KINDS)
async def test_the_documented_rights_do_for_everything(kind: Kind) -> None:
    async with redis_server(kind) as redis, linked_as(redis, give(redis, "gate", RIGHTS)) as link:
        assert await use_everything(redis, link) == []
        redis.forget_scripts()
        assert await use_everything(redis, link) == [], "each script is sent again"
        redis.do("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        assert await use_everything(redis, link) == [], "connections are made anew"
        assert (link.outages, link.refusals.count) == (0, 0)


async def test_in_a_cluster_a_few_more_are_needed() -> None:
    async with redis_cluster() as redis:
        for node in redis.nodes:
            url = give(node, "gate", [*RIGHTS, "+cluster|slots", "+command"])
        async with linked_as(redis, url) as link:
            assert await use_everything(redis, link) == []
            assert (link.outages, link.refusals.count) == (0, 0)


@pytest.mark.parametrize("kind", KINDS)
async def test_without_any_one_of_them_something_is_refused_and_told(kind: Kind) -> None:
    async with redis_server(kind) as redis:
        for missing in [right for right in RIGHTS if right[0] in "+~%"]:
            redis.flush()
            redis.forget_scripts()
            url = give(redis, "gate", [right for right in RIGHTS if right != missing])
            async with linked_as(redis, url) as link:
                await use_everything(redis, link)
                await use_everything(redis, link)
                told = [str(refusal) for refusal in link.refusals.standing.values()]
            assert told, f"{missing} is not needed"
            assert all("The Redis user lacks" in words for words in told), told


async def test_what_a_user_lacks_is_named_and_forgotten_once_it_has_it() -> None:
    async with redis_server() as redis:
        lacking = [right for right in RIGHTS if right != "+evalsha"]
        async with linked_as(redis, give(redis, "gate", lacking)) as link:
            assert len(await use_everything(redis, link)) > 3
            told = {str(refusal).rpartition(": docs")[0][-40:] for refusal in link.refusals.standing.values()}
            assert all("lacks EVALSHA on fg*" in words for words in told)
            give(redis, "gate", RIGHTS)
            redis.flush()  # the first call of each script had passed, and left what it wrote
            for _ in range(2):  # the user was reset: its connections are cut
                await asyncio.sleep(0)
                failed = await use_everything(redis, link)
            assert failed == []


@pytest.mark.parametrize("kind", KINDS)
async def test_the_rights_of_launchers_are_the_least_too(kind: Kind) -> None:
    rights = documented("worker-rights")

    async def register(url: str) -> None:
        async with RedisRegistry(url, None) as registry:
            written = record("http://10.0.0.1:8000")
            await registry.announce(written)
            await registry.withdraw(written.node_id)

    async with redis_server(kind) as redis:
        await register(give(redis, "launcher", rights))
        for missing in [right for right in rights if right[0] in "+~"]:
            url = give(redis, "launcher", [right for right in rights if right != missing])
            with pytest.raises(RegistryUnreachable):
                await register(url)
