"""Where limits are kept: in this process, or in Redis for all of them. Both follow the book of `core.book`."""

import time
from collections.abc import Awaitable, Collection
from pathlib import Path
from typing import Any, Protocol

from gateway.core.book import Book
from gateway.core.limits import Grant
from gateway.limits.rulesets import Ruleset
from gateway.shared.link import Link, Script

_LUA = Path(__file__).parent / "lua"


class Store(Protocol):
    """What a limiter needs. `costs` and `used` are what is taken of each rule, in the rule's own unit."""

    def reserve(self, tenant: str, id: str, rules: Ruleset, costs: tuple[int, ...]) -> Awaitable[Grant]:
        """Take all or nothing; a second time with the same id changes nothing."""

    def settle(self, tenant: str, id: str, rules: Ruleset, used: tuple[int, ...]) -> Awaitable[Any]:
        """Make a reservation what was used; a second time changes nothing."""

    def renew(self, tenant: str, ids: Collection[str]) -> Awaitable[Any]:
        """Begin the leases of reservations anew."""


class MemoryStore:
    """The limits of this process alone."""

    def __init__(self, lease: float, idle: float = 3600.0) -> None:
        """`lease`: seconds for which a reservation is held unless it is renewed; `idle`: until a tenant that nobody
        asked for, and whose books are even, is forgotten (buckets are full again by then)."""
        self._lease = round(lease * 1_000_000)
        self._books: dict[str, Book] = {}

    async def reserve(self, tenant: str, id: str, rules: Ruleset, costs: tuple[int, ...]) -> Grant:
        return self._book(tenant).reserve(_now(), id, rules.rules, costs, self._lease)

    async def settle(self, tenant: str, id: str, rules: Ruleset, used: tuple[int, ...]) -> None:
        self._book(tenant).settle(_now(), id, rules.rules, used)

    async def renew(self, tenant: str, ids: Collection[str]) -> None:
        self._book(tenant).renew(_now(), ids, self._lease)

    def _book(self, tenant: str) -> Book:
        book = self._books.get(tenant)
        if book is None:
            book = self._books[tenant] = Book()
        return book


class RedisStore:
    """The limits of all gateways together, on Redis' clock. Every call raises `Unavailable` where it does not answer.

    `reserve` and `settle` put their call into the next pipeline at once; what they return is only its reply.
    """

    def __init__(self, link: Link, lease: float) -> None:
        self._link = link
        self._lease = round(lease * 1000)
        self._reserve = _script("reserve")
        self._settle = _script("settle")
        self._renew = _script("renew")

    def reserve(self, tenant: str, id: str, rules: Ruleset, costs: tuple[int, ...]) -> Awaitable[Grant]:
        script = self._reserve
        command = ("EVALSHA", script.sha, 1, self._base(tenant), id, self._lease, rules.keep, *costs, *rules.wire)
        return _grant(self._link.submit(command, script))

    def settle(self, tenant: str, id: str, rules: Ruleset, used: tuple[int, ...]) -> Awaitable[Any]:
        script = self._settle
        return self._link.submit(
            ("EVALSHA", script.sha, 1, self._base(tenant), id, rules.keep, *used, *rules.wire), script
        )

    def renew(self, tenant: str, ids: Collection[str]) -> Awaitable[Any]:
        return self._link.run(self._renew, [self._base(tenant)], [self._lease, *ids])

    def _base(self, tenant: str) -> str:
        return f"{self._link.prefix}:{{{tenant}}}"


async def _grant(reply: Awaitable[Any]) -> Grant:
    granted, now, *left = await reply
    return Grant(granted == 1, now, tuple(left))


def _script(name: str) -> Script:
    return Script.read(_LUA / "book.lua", _LUA / f"{name}.lua")


def _now() -> int:
    return time.time_ns() // 1000
