"""The client of Redis: one way for all calls, with a breaker in front.

Scripts, which requests wait for, go over `RedisConnections`: the calls of one iteration of the event loop are sent
together. Plain commands of background work go through redis-py. Calls of operators go through `ReportClient`, which the
breaker does not concern:

    state       event                                     next        callers
    up          a call is answered                        up          get their replies
    up          connection lost, made anew                up          what was under way is sent again, once
    up          connection refused, or lost again         down        get `RedisUnavailable`
    up          no answer in time (`connections`)         down        get `RedisUnavailable`
    up          refused for all (see `refusals`)          down        get `RedisRefusesAll`
    up          this call was refused                     up          get `ScriptFailed`; it is logged once
    down        a call                                    down        gets the same error at once
    down        probes write a key over both ways         up          -
    down        a probe fails                             down        the next one comes later, up to `PROBE_MAX`

A call may be carried out twice, so every script has to be idempotent.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence
from typing import Any

import structlog
from redis.exceptions import RedisError, ResponseError

from gateway.aio.inline_future import InlineFuture
from gateway.redis.connection import RedisCall, Value
from gateway.redis.connections import RedisConnections
from gateway.redis.plain_client import PlainClient
from gateway.redis.refusals import RedisRefusals, text_of, unavailable
from gateway.redis.replies import shape_of
from gateway.redis.report_client import ReportClient
from gateway.redis.script import RedisRefusesAll, RedisUnavailable, Script, ScriptFailed
from gateway.redis.settings import PATIENCE, TRANSPORT, UNREADABLE, RedisSettings

__all__ = ["RedisClient", "RedisRefusesAll", "RedisSettings", "RedisUnavailable", "Script", "ScriptFailed", "Value"]

log = structlog.get_logger("fleetgate.redis")

PROBE_FIRST = 0.1
PROBE_MAX = 2.0
"""Seconds until the first probe of a Redis that failed, and between later ones at the most."""

IDLE_CHECK = 1.0
"""Seconds between probes of a Redis that is up, so that its loss is known before a request calls it."""


class RedisClient:
    """This process's connections to one Redis or Redis Cluster."""

    def __init__(self, settings: RedisSettings) -> None:
        """Nothing is connected before `start`, or the first call."""
        self.schema = settings.schema
        self.up = True
        self._down: RedisUnavailable | None = None
        self.outages = 0
        self.refusals = RedisRefusals(settings.schema.name)
        self._settings = settings
        self._plain = PlainClient(settings)
        self.reports = ReportClient(settings, self.refusals, self._plain)
        self._connections = RedisConnections(
            settings, self._plain.server_of, self._set_down, self._redirect, self.refusals
        )
        self._loop: asyncio.AbstractEventLoop | None = None
        self._redirected: set[asyncio.Task[None]] = set()
        self._prober: asyncio.Task[None] | None = None
        self._since = 0.0
        self._lost = asyncio.Event()
        self._listeners: list[Callable[[bool], None]] = []

    @property
    def reason(self) -> str | None:
        """Why it is down, None where it is up."""
        return None if self._down is None else str(self._down)

    def configure(self, settings: RedisSettings) -> None:
        """Go over to another address, password, certificate or time, of the same `cluster` and `schema`. It is no
        outage: what is under way ends where it is, or is sent again."""
        if settings != self._settings:
            self._settings = settings
            self.reports.configure(settings)
            self._plain.configure(settings, settings.timeout * PATIENCE)
            self._connections.configure(settings)

    def on_change(self, listener: Callable[[bool], None]) -> None:
        """Have `listener(up)` called whenever Redis goes or comes back. It must not wait."""
        self._listeners.append(listener)

    async def start(self) -> None:
        """Connect, and begin to probe. A Redis that is down is not an error: see `up`."""
        await self._probe()
        self._prober = asyncio.create_task(self._watch(), name="redis probe")

    async def stop(self) -> None:
        """Wait for the calls in flight, within the timeout, and close."""
        if self._prober is not None:
            self._prober.cancel()
            await asyncio.gather(self._prober, return_exceptions=True)
        await self._connections.close()
        await asyncio.gather(*self._redirected, return_exceptions=True)
        await self.reports.close()
        await self._disconnect()

    async def run(self, script: Script, keys: Sequence[str], args: Sequence[Value] = ()) -> Any:
        """What `script` returns for `keys` (at least one) and `args`. Raises `RedisUnavailable` or `ScriptFailed`.

        In a cluster all `keys` must be in one slot (a common `{tag}`).
        """
        return await self.submit(("EVALSHA", script.sha, len(keys), *keys, *args), script)

    def submit(self, command: tuple[Value, ...], script: Script | None = None) -> InlineFuture[Any]:
        """Send `EVALSHA sha n key ...` with the other calls of this iteration of the event loop. The future has the
        reply, or the error of `run`.

        Without a `script` it is an idempotent plain command, and the reply is as Redis sends it.
        """
        loop = self._loop
        if loop is None:  # once: get_running_loop is a system call
            loop = self._loop = asyncio.get_running_loop()
        waiter: InlineFuture[Any] = InlineFuture(loop)
        if self.up:
            self._connections.submit(RedisCall(command, script, waiter))
        else:
            waiter.set_exception(self._why_down())
        return waiter

    async def command(self, *command: Value) -> Any:
        """The reply to a command, whose second word is its key. Raises `RedisUnavailable` or `ScriptFailed`."""
        if not self.up:
            raise self._why_down()
        name, key, outages = str(command[0]), str(command[1]), self.outages
        reply: Any = None
        broken: ScriptFailed | None = None
        try:
            reply = await self._execute(command)
        except TRANSPORT as error:
            failed = unavailable(error)
            if outages == self.outages:  # otherwise the outage is known already, and may be over
                self._set_down(failed)
            raise failed from None
        except ResponseError as refused:
            raise self._refused(name, key, refused) from None
        except (RedisError, *UNREADABLE) as unreadable:
            broken = self.refusals.misshapen(name, key, unreadable)
        if broken is not None:
            await self._disconnect()  # the next bytes of this connection may be anything
            raise broken
        if not shape_of(command)(reply, command):
            raise self.refusals.misshapen(name, key, reply)
        if self.refusals.standing:
            self.refusals.answered(name, key)
        return reply

    # Plain commands

    def _refused(self, name: str, key: str, error: ResponseError) -> RedisUnavailable:
        """The error for the caller of a command that Redis refuses; where it refuses all, Redis is down."""
        refused = self.refusals.understand(name, key, text_of(error))
        if not isinstance(refused, ScriptFailed):
            self._set_down(refused)
        return refused

    async def _execute(self, command: tuple[Value, ...]) -> Any:
        async with asyncio.timeout(self._settings.timeout * PATIENCE + self._settings.connect_timeout):
            return await self._plain.run(lambda client: client.execute_command(*command))

    async def _disconnect(self) -> None:
        await self._plain.close(self._settings.timeout * PATIENCE)

    def _redirect(self, call: RedisCall) -> None:
        """The cluster has moved a slot: redis-py calls the right server, and remembers it."""
        task = asyncio.create_task(self._execute_redirected(call), name="redis redirection")
        self._redirected.add(task)
        task.add_done_callback(self._redirected.discard)

    async def _execute_redirected(self, call: RedisCall) -> None:
        try:
            reply = await self.command(*call.whole)
        except (RedisUnavailable, ScriptFailed) as error:
            call.fail(error)
            return
        call.end(reply)

    # The breaker

    def _why_down(self) -> RedisUnavailable:
        return RedisUnavailable("Redis is down") if self._down is None else _another(self._down)

    def _set_down(self, error: RedisUnavailable) -> None:
        """Redis is down: fail all calls in flight."""
        if isinstance(error, ScriptFailed):  # of a login, or a probe: all calls would get it
            error = RedisUnavailable(str(error))
        try:
            self._mark(error)
        finally:
            self._connections.drop(error)

    def _mark(self, down: RedisUnavailable | None) -> None:
        """`down`: why it is down, None where it is up."""
        up = down is None
        if up == self.up:
            return
        self.up, self._down = up, None if down is None else _another(down)
        now = time.monotonic()
        if up:
            self._lost.clear()
            log.info("redis_recovered", after_s=round(now - self._since, 3))
        else:
            self.outages += 1
            self._since = now
            self._lost.set()
            log.warning("redis_lost", reason=str(down))
        for listener in self._listeners:
            listener(up)

    async def _watch(self) -> None:
        pause = PROBE_FIRST
        while True:
            if self.up:
                pause = PROBE_FIRST
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(IDLE_CHECK):  # not wait_for: see `client_of`
                        await self._lost.wait()
            if not self.up:
                await asyncio.sleep(pause)
                pause = min(pause * 2, PROBE_MAX)
            try:
                await self._probe()
            except Exception:
                log.exception("redis_probe_failed")

    async def _probe(self) -> None:
        """Write a key, since a Redis that answers but accepts no writes (read only, full) counts as down. One that is
        down has to accept it over both kinds of connections."""
        self.refusals.forget_old()
        key = f"{self.schema.live}:probe:{{0}}"
        failed: RedisUnavailable | None = None
        try:
            async with asyncio.timeout(self._settings.timeout + self._settings.connect_timeout):
                for number in range(8 if self._settings.cluster else 1):
                    key = f"{self.schema.live}:probe:{{{number}}}"
                    await self._execute(("SET", key, 1, "PX", 60_000))
                if not self.up:  # while it is up, requests show the state of their connection
                    waiter: InlineFuture[Any] = InlineFuture(asyncio.get_running_loop())
                    self._connections.submit(RedisCall(("SET", key, 1, "PX", 60_000), None, waiter))
                    await waiter
        except (RedisUnavailable, *TRANSPORT) as error:
            failed = unavailable(error)
        except ResponseError as refused:
            failed = self.refusals.understand("SET", key, text_of(refused))
        except (RedisError, *UNREADABLE) as unreadable:
            failed = self.refusals.misshapen("SET", key, unreadable)
        if failed is None:
            self.refusals.answered("SET", key)
            self._mark(None)
        else:
            await self._failed(failed)

    async def _failed(self, error: RedisUnavailable) -> None:
        self._set_down(error)
        await self._disconnect()  # after a failover the name may have another address


def _another(error: RedisUnavailable) -> RedisUnavailable:
    """The same error for another caller: one that was raised keeps the frames that it went through."""
    return type(error)(*error.args)
