"""Either store of limits behind one set of awaitable methods, so that one contract holds both."""

from collections.abc import Collection

from gateway.core.limits.rules import LimitResult
from gateway.limits.rulesets import Ruleset
from gateway.limits.stores import MemoryStore, RedisStore, read_result


class AwaitedStore:
    def __init__(self, store: MemoryStore | RedisStore) -> None:
        self._store = store

    async def reserve(self, tenant: str, id: str, rules: Ruleset, costs: tuple[int, ...]) -> LimitResult:
        reply = self._store.reserve(tenant, id, rules, costs)
        return reply if isinstance(reply, LimitResult) else read_result(await reply)

    async def settle(self, tenant: str, id: str, rules: Ruleset, used: tuple[int, ...]) -> None:
        if (reply := self._store.settle(tenant, id, rules, used)) is not None:
            await reply

    async def renew(self, tenant: str, ids: Collection[str]) -> None:
        if (reply := self._store.renew(tenant, ids)) is not None:
            await reply
