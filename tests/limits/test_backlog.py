"""Settlements that wait: none is lost, whether Redis takes them, does not, or nobody waits to see."""

import asyncio
from typing import Any, cast

import pytest

from gateway.core.limits.rules import Limits, rules_of
from gateway.ending import Ending
from gateway.limits.backlog import Backlog, Settlement
from gateway.limits.rulesets import Ruleset
from gateway.limits.stores import RedisStore
from gateway.shared.link import ScriptFailed, Unavailable

RULES = Ruleset.of(rules_of(Limits(requests_per_minute=5), "t"))


class Asked:
    """A store of which each answer is the test's."""

    def __init__(self) -> None:
        self.replies: list[Ending[Any]] = []

    def settle(self, *_: object) -> Ending[Any]:
        self.replies.append(Ending(asyncio.get_running_loop()))
        return self.replies[-1]


def settlement(number: int) -> Settlement:
    return Settlement("acme", f"r{number}", RULES, (1,))


@pytest.fixture
def store() -> Asked:
    return Asked()


@pytest.fixture
def backlog(store: Asked) -> Backlog:
    return Backlog(cast(RedisStore, store))


async def test_what_is_sent_at_once_waits_only_where_redis_did_not_take_it(backlog: Backlog, store: Asked) -> None:
    for number in range(4):
        backlog.send(settlement(number))
    taken, refused, lost, given_up = store.replies
    taken.set_result(1)
    refused.set_exception(ScriptFailed("no such thing"))
    assert (len(backlog), backlog.dropped) == (0, 1)
    lost.set_exception(Unavailable("gone"))
    given_up.cancel()
    await asyncio.sleep(0)
    assert (len(backlog), backlog.dropped) == (2, 1)


async def test_a_flush_keeps_what_redis_did_not_take(backlog: Backlog, store: Asked) -> None:
    for number in range(3):
        backlog.add(settlement(number))
    flush = asyncio.create_task(backlog.flush())
    await asyncio.sleep(0)
    assert len(backlog) == 3, "they are on their way"
    store.replies[1].set_exception(Unavailable("gone"))
    store.replies[0].set_result(1)
    store.replies[2].set_exception(ScriptFailed("no such thing"))
    await flush
    assert (len(backlog), backlog.dropped) == (1, 1)


async def test_a_flush_that_is_cancelled_loses_nothing(backlog: Backlog, store: Asked) -> None:
    for number in range(3):
        backlog.add(settlement(number))
    flush = asyncio.create_task(backlog.flush())
    await asyncio.sleep(0)
    store.replies[0].set_result(1)
    flush.cancel()
    await asyncio.gather(flush, return_exceptions=True)
    assert flush.cancelled() and len(backlog) == 3
