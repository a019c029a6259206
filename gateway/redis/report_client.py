"""Redis for operators: listings, reports, audits, and changes of tenants and keys, over a connection of their own.

What is slow here slows nothing else: requests' connection is not used, and no failure counts towards its breaker. One
batch is under way at a time, so that a long report and a change take turns.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError, RedisError, ResponseError

from gateway.redis.connection import Value
from gateway.redis.refusals import RedisRefusals, text_of
from gateway.redis.replies import shape_of
from gateway.redis.script import RedisUnavailable, Script, ScriptFailed
from gateway.redis.settings import TRANSPORT, UNREADABLE, RedisSettings, client_of, spell

SECONDS = 5.0
"""How long a batch may take, the time in which others have their turns included."""


class ReportClient:
    """Everything raises `RedisUnavailable` where Redis does not answer, `ScriptFailed` where it refuses.

    What is asked may be carried out twice: a connection that was kept and turns out to be lost is made anew, once.
    """

    def __init__(self, settings: RedisSettings, refusals: RedisRefusals) -> None:
        self._settings = settings
        self._refusals = refusals
        self._client: Any = None
        self._turn = asyncio.Lock()

    async def command(self, *command: Value) -> Any:
        """redis-py's reply to a plain command. Its second word is its key."""
        return self._read(command, await self._ask(command, lambda client: client.execute_command(*command)))

    async def run(self, script: Script, keys: Sequence[str], args: Sequence[Value] = ()) -> Any:
        """What `script` returns for `keys` (at least one) and `args`."""
        words: tuple[Value, ...] = (len(keys), *keys, *args)

        async def work(client: Any) -> Any:
            try:
                return await client.execute_command("EVALSHA", script.sha, *words)
            except NoScriptError:
                return await client.execute_command("EVAL", script.source, *words)

        named = (script.name, keys[0])
        reply = await self._ask(named, work)
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

        replies = await self._ask(commands[0], work)
        return [self._read(command, reply) for command, reply in zip(commands, replies, strict=True)]

    async def close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            with contextlib.suppress(RedisError, OSError, TimeoutError):
                async with asyncio.timeout(SECONDS):
                    await client.aclose()

    def _read(self, command: Sequence[Value], reply: Any) -> Any:
        name, key = str(command[0]), str(command[1])
        if isinstance(reply, RedisError):
            raise self._refusals.understand(name, key, text_of(reply))
        if not shape_of(command)(reply, command):
            raise self._refusals.misshapen(name, key, reply)
        self._refusals.answered(name, key)
        return reply

    async def _ask(self, named: Sequence[Value], work: Callable[[Any], Awaitable[Any]]) -> Any:
        """`named`: a call's name and first key."""
        name, key = str(named[0]), str(named[1])
        try:
            async with asyncio.timeout(SECONDS), self._turn:
                try:
                    return await work(self._connect())
                except RedisConnectionError:
                    return await work(self._connect())
        except TRANSPORT as error:
            raise RedisUnavailable(spell(error)) from None
        except ResponseError as error:
            raise self._refusals.understand(name, key, text_of(error)) from None
        except (RedisError, *UNREADABLE) as error:
            await self.close()  # what comes next on this connection may be anything
            raise self._refusals.misshapen(name, key, error) from None

    def _connect(self) -> Any:
        if self._client is None:
            self._client = client_of(self._settings)
        return self._client


__all__ = ["RedisUnavailable", "ReportClient", "ScriptFailed"]
