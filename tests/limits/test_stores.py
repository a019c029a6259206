"""One contract for every store, and a model check: stores and a reference on paper agree on random histories."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.core.limits.rules import UNIT, Amounts, Limits, rules_of
from gateway.core.limits.tenant_limits import TenantLimits
from gateway.limits.rulesets import Ruleset
from gateway.limits.stores import MemoryStore, RedisStore, read_result
from tests.limits.awaited import AwaitedStore
from tests.limits.reference import Reference
from tests.support.redis import Kind, linked, redis_cluster, redis_server

LEASE = 60.0
KINDS = ["memory", "valkey9", "redis7", "cluster"]
SEVERAL = Limits(
    requests_per_minute=600,
    input_tokens_per_minute=6_000,
    output_tokens_per_minute=6_000,
    concurrent_requests=5,
    tokens_per_day=100_000,
    nanodollars_per_month=10**15,
)


@contextlib.asynccontextmanager
async def store_of(kind: str, lease: float = LEASE) -> AsyncIterator[AwaitedStore]:
    if kind == "memory":
        yield AwaitedStore(MemoryStore(lease))
    elif kind == "cluster":
        async with redis_cluster() as nodes, linked(nodes) as link:
            yield AwaitedStore(RedisStore(link, lease))
    else:
        named: Kind = "redis7" if kind == "redis7" else "valkey9"
        async with redis_server(named) as redis, linked(redis) as link:
            yield AwaitedStore(RedisStore(link, lease))


def ruleset(limits: Limits) -> Ruleset:
    return Ruleset.of(rules_of(limits, "t"))


@pytest.mark.parametrize("kind", KINDS)
async def test_the_contract(kind: str) -> None:
    async with store_of(kind) as store:
        await _takes_all_or_nothing(store)
        await _gives_back_and_owes(store)
        await _lets_exactly_as_many_pass_as_fit(store)
        await _counts_every_token_once(store)
        await _keeps_tenants_and_scopes_apart(store)


async def _takes_all_or_nothing(store: AwaitedStore) -> None:
    rules = ruleset(SEVERAL)
    first = await store.reserve("a", "1", rules, rules.costs(Amounts(1, 100, 6_000)))
    assert first.granted
    second = await store.reserve("a", "2", rules, rules.costs(Amounts(1, 100, 6_000)))
    assert not second.granted
    requests = rules.rules[0]
    assert second.left[0] - first.left[0] <= (second.now - first.now) * requests.limit, "no request was taken"


async def _gives_back_and_owes(store: AwaitedStore) -> None:
    rules = ruleset(Limits(tokens_per_day=1000, output_tokens_per_minute=1000, concurrent_requests=2))
    for id, used in (("1", 0), ("2", 1500)):
        assert (await store.reserve("b", id, rules, rules.costs(Amounts(output=1000)))).granted
        await store.settle("b", id, rules, rules.costs(Amounts(output=used)))
    grant = await store.reserve("b", "3", rules, rules.costs(Amounts(output=1)))
    assert not grant.granted
    output, places, day = grant.left
    assert places == 2 and day == -500
    assert -500 * UNIT <= output < -400 * UNIT


async def _lets_exactly_as_many_pass_as_fit(store: AwaitedStore) -> None:
    rules = ruleset(Limits(tokens_per_day=70, concurrent_requests=50))
    asked = [store.reserve("c", str(number), rules, rules.costs(Amounts(output=10))) for number in range(100)]
    grants = await asyncio.gather(*asked)
    assert sum(grant.granted for grant in grants) == 7


async def _counts_every_token_once(store: AwaitedStore) -> None:
    rules = ruleset(Limits(tokens_per_day=1000))
    for _ in range(2):
        assert (await store.reserve("d", "1", rules, (600,))).left == (400,)
    for _ in range(2):
        await store.settle("d", "1", rules, (100,))
        await store.settle("d", "never reserved", rules, (50,))
    assert (await store.reserve("d", "2", rules, (0,))).left == (850,)


async def _keeps_tenants_and_scopes_apart(store: AwaitedStore) -> None:
    rules = Ruleset.of((*rules_of(Limits(tokens_per_day=100), "t"), *rules_of(Limits(tokens_per_day=60), "k:one")))
    other = Ruleset.of((*rules_of(Limits(tokens_per_day=100), "t"), *rules_of(Limits(tokens_per_day=60), "k:two")))
    assert (await store.reserve("e", "1", rules, (60, 60))).left == (40, 0)
    assert not (await store.reserve("e", "2", rules, (10, 10))).granted
    assert (await store.reserve("e", "3", other, (10, 10))).left == (30, 50)
    assert (await store.reserve("f", "4", rules, (10, 10))).left == (90, 50)


@pytest.mark.parametrize("kind", ["memory", "valkey9"])
async def test_a_lease_that_runs_out_gives_everything_back_and_one_that_is_renewed_nothing(kind: str) -> None:
    rules = ruleset(Limits(concurrent_requests=2, tokens_per_day=100))
    async with store_of(kind, lease=3.0) as store:  # longer than a busy machine may keep us from renewing
        for id in ("dead", "alive"):
            assert (await store.reserve("a", id, rules, (1, 50))).granted
        looks = 0
        while (seen := await store.reserve("a", f"look {looks}", rules, (0, 0))).left[1] == 0:
            await store.renew("a", ["alive"])
            await asyncio.sleep(0.02)
            looks += 1
        assert seen.left == (1, 50)
        await store.settle("a", "dead", rules, (1, 30))
        assert (await store.reserve("a", "end", rules, (0, 0))).left == (1, 20), "its gateway was alive after all"


async def test_the_keys_are_of_one_slot_versioned_and_expire() -> None:
    async with redis_server() as redis, linked(redis) as link:
        store, rules = AwaitedStore(RedisStore(link, LEASE)), ruleset(SEVERAL)
        await store.reserve("acme", "1", rules, rules.costs(Amounts(output=5)))
        await store.settle("acme", "1", rules, rules.costs(Amounts(output=5)))
        keys = {key.decode() for key in redis.do("KEYS", "*acme*")}
        assert keys == {"fg1:{acme}:t", "fg1:{acme}:held", "fg1:{acme}:leases"}
        assert all(25 * 3600 < redis.do("TTL", key) <= 32 * 86_400 for key in keys)


@pytest.mark.parametrize("kind", ["valkey9", "redis7"])
async def test_a_redis_whose_clock_has_gone_back_fills_buckets_on(kind: Kind) -> None:
    """It was set right, or a replica took over whose clock is behind."""
    async with redis_server(kind) as redis, linked(redis) as link:
        store, rules = AwaitedStore(RedisStore(link, LEASE)), ruleset(Limits(requests_per_minute=6_000))
        taken = await store.reserve("a", "1", rules, (6_000 * UNIT,))
        assert taken.granted
        redis.do("HSET", "fg1:{a}:t", "rpm@", taken.now + 3600 * 1_000_000)
        first = await store.reserve("a", "2", rules, (6_000 * UNIT,))
        assert not first.granted and first.left == (0,), "going back fills nothing"
        await asyncio.sleep(0.02)
        second = await store.reserve("a", "3", rules, (UNIT,))
        assert second.granted and second.left[0] == (second.now - first.now) * 6_000 - UNIT


Operation = tuple[str, int, int, int, int]
"""What is done, the request's id, two amounts, and by how many seconds the clock moves before."""


def histories(*pauses: int) -> st.SearchStrategy[list[Operation]]:
    return st.lists(
        st.tuples(
            st.sampled_from(["reserve", "reserve", "settle", "settle", "renew"]),
            st.integers(0, 7),
            st.integers(0, 900),
            st.integers(0, 900),
            st.sampled_from(pauses),
        ),
        max_size=40,
    )


CHECKED = Limits(
    requests_per_minute=5,
    output_tokens_per_minute=1_000,
    tokens_per_minute=1_700,
    reasoning_tokens_per_minute=900,
    concurrent_requests=3,
    tokens_per_day=4_000,
    nanodollars_per_month=5_000,
    burst_seconds=30,
)


@given(histories(0, 0, 1, 3, 40))
def test_the_book_agrees_with_the_reference_on_any_history(history: list[Operation]) -> None:
    """Leases (of 30 s) run out, and a year ends."""
    agree(history, 1_798_761_580_000_000)


@given(histories(0, 1, 3, 40, -3, -40))
def test_they_agree_where_the_clock_goes_back_too(history: list[Operation]) -> None:
    """Within a day: what was counted in another one is not known any more."""
    agree(history, 1_798_718_400_000_000)


def agree(history: list[Operation], now: int) -> None:
    rules, book, reference, lease = ruleset(CHECKED), TenantLimits(), Reference(), 30_000_000
    for operation, id, first, second, pause in history:
        now += pause * 1_000_000 + 7
        costs = rules.costs(Amounts(1, first, second, second // 2, first + second))
        if operation == "reserve":
            grant = book.reserve(now, str(id), rules.rules, costs, lease)
            assert (grant.granted, list(grant.left)) == reference.reserve(now, str(id), rules.rules, costs, lease)
        elif operation == "settle":
            book.settle(now, str(id), rules.rules, costs)
            reference.settle(now, str(id), rules.rules, costs)
        else:
            book.renew(now, [str(id)], lease)
            reference.renew(now, str(id), lease)


def test_redis_agrees_with_the_book_on_any_history() -> None:
    """The book is asked on the clock that Redis answers with."""

    async def check() -> None:
        async with redis_server() as redis, linked(redis) as link:
            store, rules = RedisStore(link, LEASE), ruleset(CHECKED)
            loop = asyncio.get_running_loop()
            tenants = iter(range(1_000_000))

            async def replay(history: list[Operation]) -> None:
                tenant, book = f"t{next(tenants)}", TenantLimits()
                for operation, id, first, second, _ in history:
                    costs = rules.costs(Amounts(1, first, second, second // 2, first + second))
                    if operation == "reserve":
                        grant = read_result(await store.reserve(tenant, str(id), rules, costs))
                        assert grant == book.reserve(grant.now, str(id), rules.rules, costs, round(LEASE * 1e6))
                    elif operation == "settle":
                        at = await store.settle(tenant, str(id), rules, costs)
                        book.settle(at, str(id), rules.rules, costs)
                    else:
                        await store.renew(tenant, [str(id)])

            def run(history: list[Operation]) -> None:
                asyncio.run_coroutine_threadsafe(replay(history), loop).result(60)

            check_all = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))(
                given(histories(0))(run)
            )
            await asyncio.to_thread(check_all)

    asyncio.run(check())
