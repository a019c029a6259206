"""The one way to Redis: what is asked in one turn of the event loop travels together, and nobody waits long.

Scripts, which requests wait for, go over `RedisConnections`. Plain commands of background work go through redis-py,
which puts replies into shape. A breaker stands before both. What operators ask goes by `ReportClient`, and past the
breaker:

    state       event                                     next        callers
    up          a call is answered                        up          get their replies
    up          connection lost, made anew                up          what was under way is sent again, once
    up          connection refused, or lost again         down        get `RedisUnavailable`
    up          no answer in time (see `wires`)           down        get `RedisUnavailable`
    up          refused for all (see `refusals`)          down        get `RedisUnavailable`
    up          this call was refused                     up          get `ScriptFailed`; it is logged once
    down        a call                                    down        gets `RedisUnavailable` at once
    down        probes write a key over both ways         up          -
    down        a probe fails                             down        the next one comes later, up to `PROBE_MAX`

Since a call may be carried out twice, scripts have to be such that a second time changes nothing.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence
from typing import Any

import structlog
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError, ResponseError

from gateway.aio.inline_future import InlineFuture
from gateway.redis.connection import RedisCall, Value
from gateway.redis.connections import RedisConnections
from gateway.redis.refusals import RedisRefusals, text_of
from gateway.redis.replies import shape_of
from gateway.redis.report_client import ReportClient
from gateway.redis.script import RedisUnavailable, Script, ScriptFailed
from gateway.redis.settings import PATIENCE, TRANSPORT, UNREADABLE, Address, RedisSettings, client_of, spell

__all__ = ["RedisClient", "RedisSettings", "RedisUnavailable", "Script", "ScriptFailed", "Value"]

log = structlog.get_logger("fleetgate.redis")

PROBE_FIRST = 0.1
PROBE_MAX = 2.0
"""Seconds until the first probe of a Redis that failed, and between later ones at the most."""

IDLE_CHECK = 1.0
"""Seconds between probes of a Redis that is up, so that its loss is known before a request meets it."""


class RedisClient:
    """One Redis (or Redis Cluster) as this process reaches it."""

    def __init__(self, settings: RedisSettings) -> None:
        """Nothing is connected before `start`, or the first call."""
        self.schema = settings.schema
        self.up = True
        self.reason: str | None = None
        """Why it is down, None where it is up."""
        self.outages = 0
        self.refusals = RedisRefusals(settings.schema.name)
        self.reports = ReportClient(settings, self.refusals)
        self._settings = settings
        self._wires = RedisConnections(settings, self._locate, self._fell, self._redirect, self.refusals)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._client: Any = None
        self._redirected: set[asyncio.Task[None]] = set()
        self._prober: asyncio.Task[None] | None = None
        self._since = 0.0
        self._fallen = asyncio.Event()
        self._listeners: list[Callable[[bool], None]] = []

    def on_change(self, listener: Callable[[bool], None]) -> None:
        """Have `listener(up)` called whenever Redis goes or comes back. It must not wait."""
        self._listeners.append(listener)

    async def start(self) -> None:
        """Connect, and watch from now on. A Redis that is not there yet is not an error: see `up`."""
        await self._probe()
        self._prober = asyncio.create_task(self._watch(), name="redis probe")

    async def stop(self) -> None:
        """Wait for what is under way, within the timeout, and close."""
        if self._prober is not None:
            self._prober.cancel()
            await asyncio.gather(self._prober, return_exceptions=True)
        await self._wires.close()
        await asyncio.gather(*self._redirected, return_exceptions=True)
        await self.reports.close()
        await self._disconnect()

    async def run(self, script: Script, keys: Sequence[str], args: Sequence[Value] = ()) -> Any:
        """What `script` returns for `keys` (at least one) and `args`. Raises `RedisUnavailable` or `ScriptFailed`.

        In a cluster all `keys` must be in one slot (a common `{tag}`).
        """
        return await self.submit(("EVALSHA", script.sha, len(keys), *keys, *args), script)

    def submit(self, command: tuple[Value, ...], script: Script | None = None) -> InlineFuture[Any]:
        """Have `EVALSHA sha n key ...` sent with this turn's other calls: it ends with the reply, or as `run`.

        Without a `script` it is a plain command, such as can be carried out twice, and the reply is as Redis sends it.
        """
        loop = self._loop
        if loop is None:  # once: to ask for it is a system call
            loop = self._loop = asyncio.get_running_loop()
        waiter: InlineFuture[Any] = InlineFuture(loop)
        if self.up:
            self._wires.submit(RedisCall(command, script, waiter))
        else:
            waiter.set_exception(RedisUnavailable(self.reason or "Redis is down"))
        return waiter

    async def command(self, *command: Value) -> Any:
        """The reply to a command, whose second word is its key. Raises `RedisUnavailable` or `ScriptFailed`."""
        if not self.up:
            raise RedisUnavailable(self.reason or "Redis is down")
        name, key, outages = str(command[0]), str(command[1]), self.outages
        try:
            reply = await self._ask(command)
        except TRANSPORT as error:
            if outages == self.outages:  # else it is of an outage that is known, and may be over
                self._fell(spell(error))
            raise RedisUnavailable(spell(error)) from None
        except ResponseError as error:
            refused = self.refusals.understand(name, key, text_of(error))
            if not isinstance(refused, ScriptFailed):
                self._fell(str(refused))
            raise refused from None
        except (RedisError, *UNREADABLE) as error:
            await self._disconnect()  # what comes next on this connection may be anything
            raise self.refusals.misshapen(name, key, error) from None
        if not shape_of(command)(reply, command):
            raise self.refusals.misshapen(name, key, reply)
        if self.refusals.standing:
            self.refusals.answered(name, key)
        return reply

    # redis-py

    async def _ask(self, command: tuple[Value, ...]) -> Any:
        """A connection that was kept and turns out to be lost is made anew, once."""
        async with asyncio.timeout(self._settings.timeout * PATIENCE + self._settings.connect_timeout):
            try:
                return await self._connect().execute_command(*command)
            except RedisConnectionError:
                return await self._connect().execute_command(*command)

    def _connect(self) -> Any:
        if self._client is None:
            self._client = client_of(self._settings)
        return self._client

    async def _disconnect(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            with contextlib.suppress(RedisError, OSError, TimeoutError):
                async with asyncio.timeout(self._settings.timeout * PATIENCE):
                    await client.aclose()

    def _locate(self, key: str) -> Address:
        """The server of a cluster that has `key`, as far as redis-py knows; it has asked in the first probe."""
        if self._client is None or not self._client.get_nodes():
            return self._settings.address
        node = self._client.get_node_from_key(key)
        return node.host, int(node.port)

    def _redirect(self, call: RedisCall) -> None:
        """The cluster has moved a slot: redis-py asks the right server, and knows from now on."""
        task = asyncio.create_task(self._follow(call), name="redis redirection")
        self._redirected.add(task)
        task.add_done_callback(self._redirected.discard)

    async def _follow(self, call: RedisCall) -> None:
        try:
            reply = await self.command(*call.whole)
        except (RedisUnavailable, ScriptFailed) as error:
            call.fail(error)
            return
        call.end(reply)

    # The breaker

    def _fell(self, reason: str) -> None:
        """Redis is down: everybody who waits is told now."""
        try:
            self._mark(False, reason)
        finally:
            self._wires.drop(RedisUnavailable(reason))

    def _mark(self, up: bool, reason: str | None = None) -> None:
        if up == self.up:
            return
        self.up, self.reason = up, reason
        now = time.monotonic()
        if up:
            self._fallen.clear()
            log.info("redis_back", after_s=round(now - self._since, 3))
        else:
            self.outages += 1
            self._since = now
            self._fallen.set()
            log.warning("redis_lost", reason=reason)
        for listener in self._listeners:
            listener(up)

    async def _watch(self) -> None:
        pause = PROBE_FIRST
        while True:
            if self.up:
                pause = PROBE_FIRST
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(IDLE_CHECK):  # not wait_for: see `client_of`
                        await self._fallen.wait()
            if not self.up:
                await asyncio.sleep(pause)
                pause = min(pause * 2, PROBE_MAX)
            try:
                await self._probe()
            except Exception:
                log.exception("redis_probe_failed_unexpectedly")

    async def _probe(self) -> None:
        """Write a key: what only answers, but takes nothing (read only, full), is of no use here. A Redis that is down
        has to take it over both ways."""
        self.refusals.forget_old()
        key = f"{self.schema.live}:probe:{{0}}"
        try:
            async with asyncio.timeout(self._settings.timeout + self._settings.connect_timeout):
                for number in range(8 if self._settings.cluster else 1):
                    key = f"{self.schema.live}:probe:{{{number}}}"
                    await self._ask(("SET", key, 1, "PX", 60_000))
                if not self.up:  # else requests say how their connection is
                    waiter: InlineFuture[Any] = InlineFuture(asyncio.get_running_loop())
                    self._wires.submit(RedisCall(("SET", key, 1, "PX", 60_000), None, waiter))
                    await waiter
        except (RedisUnavailable, *TRANSPORT) as error:
            await self._failed(spell(error))
        except ResponseError as error:
            await self._failed(str(self.refusals.understand("SET", key, text_of(error))))
        except (RedisError, *UNREADABLE) as error:
            await self._failed(str(self.refusals.misshapen("SET", key, error)))
        else:
            self.refusals.answered("SET", key)
            self._mark(True)

    async def _failed(self, reason: str) -> None:
        self._fell(reason)
        await self._disconnect()  # a name may lead elsewhere after a failover
