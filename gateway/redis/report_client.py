"""Redis for operators: listings, reports, audits, and changes of tenants and keys, over a connection of their own.

A slow call here delays no request: the connections of requests are not used, and no failure counts for the breaker. One
batch runs at a time, so that a long report and a change alternate.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from redis.exceptions import NoScriptError, RedisError, ResponseError

from gateway.redis.connection import Value
from gateway.redis.plain_client import PlainClient
from gateway.redis.refusals import RedisRefusals, text_of, unavailable
from gateway.redis.replies import shape_of
from gateway.redis.script import RedisUnavailable, Script, ScriptFailed
from gateway.redis.settings import TRANSPORT, UNREADABLE, RedisSettings

SECONDS = 5.0
"""Seconds that a batch may take, the wait for the batch before it included."""


class ReportClient:
    """Every method raises `RedisUnavailable` where Redis does not answer, `ScriptFailed` where it refuses.

    A call may be carried out twice (see `PlainClient`).
    """

    def __init__(self, settings: RedisSettings, refusals: RedisRefusals, beside: PlainClient) -> None:
        """`beside`: the client of other plain commands."""
        self._refusals = refusals
        self._plain = PlainClient(settings, beside)
        self._lock = asyncio.Lock()

    def configure(self, settings: RedisSettings) -> None:
        self._plain.configure(settings, SECONDS)

    async def command(self, *command: Value) -> Any:
        """redis-py's reply to a plain command. Its second word is its key."""
        return self._read(command, await self._execute(command, lambda client: client.execute_command(*command)))

    async def run(self, script: Script, keys: Sequence[str], args: Sequence[Value] = ()) -> Any:
        """What `script` returns for `keys` (at least one) and `args`."""
        words: tuple[Value, ...] = (len(keys), *keys, *args)

        async def work(client: Any) -> Any:
            with contextlib.suppress(NoScriptError):
                return await client.execute_command("EVALSHA", script.sha, *words)
            return await client.execute_command("EVAL", script.source, *words)

        named = (script.name, keys[0])
        reply = await self._execute(named, work)
        if not script.fits(reply, ("EVALSHA", script.sha, *words)):
            raise self._refusals.misshapen(script.name, keys[0], reply)
        self._refusals.answered(script.name, keys[0])
        return reply

    async def batch(self, commands: Sequence[tuple[Value, ...]]) -> list[Any]:
        """The replies to plain commands, whose keys are in one slot. The first refusal is raised."""
        if not commands:
            return []

        async def work(client: Any) -> Any:
            pipeline = client.pipeline(transaction=False)
            for command in commands:
                pipeline.execute_command(*command)
            return await pipeline.execute(raise_on_error=False)

        replies = await self._execute(commands[0], work)
        return [self._read(command, reply) for command, reply in zip(commands, replies, strict=True)]

    async def close(self) -> None:
        await self._plain.close(SECONDS)

    def _read(self, command: Sequence[Value], reply: Any) -> Any:
        name, key = str(command[0]), str(command[1])
        if isinstance(reply, RedisError):
            raise self._refusals.understand(name, key, text_of(reply))
        if not shape_of(command)(reply, command):
            raise self._refusals.misshapen(name, key, reply)
        self._refusals.answered(name, key)
        return reply

    async def _execute(self, named: Sequence[Value], work: Callable[[Any], Awaitable[Any]]) -> Any:
        """`named`: a call's name and first key."""
        name, key = str(named[0]), str(named[1])
        try:
            async with asyncio.timeout(SECONDS), self._lock:
                return await self._plain.run(work)
        except TRANSPORT as error:
            raise unavailable(error) from None
        except ResponseError as refused:
            raise self._refusals.understand(name, key, text_of(refused)) from None
        except (RedisError, *UNREADABLE) as unreadable:
            broken = self._refusals.misshapen(name, key, unreadable)
        await self.close()  # the next bytes of this connection may be anything
        raise broken


__all__ = ["RedisUnavailable", "ReportClient", "ScriptFailed"]
