"""The one way to Redis: what is asked in one turn of the event loop travels together, and nobody waits long.

A command of its own costs redis-py about 100 µs of CPU, one inside a pipeline of fifty about 20 µs. So calls are
gathered: those made in the same turn of the loop, and those made while an earlier pipeline is under way, go out as
the next one. Redis' word is bounded in time, and a breaker stands before it:

    state       event                                     next        callers
    up          a pipeline is answered                    up          get their replies
    up          connection lost, tried again, lost        down        get `Unavailable`
    up          no answer within `timeout`                down        get `Unavailable`
    up          read only, full, loading, cluster down    down        that call gets `Unavailable`
    down        a call                                    down        gets `Unavailable` at once
    down        a probe writes a key and is answered      up          -
    down        a probe fails                             down        the next one comes later, up to `PROBE_MAX`

A pipeline whose connection was lost is sent once more, so a call may be carried out twice: scripts have to be such
that a second time changes nothing (an id, a plain SET).
"""

import asyncio
import contextlib
import hashlib
import ssl
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog
from redis.asyncio import Redis, RedisCluster
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import (
    ClusterDownError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisClusterException,
    RedisError,
    ResponseError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

log = structlog.get_logger("fleetgate.redis")

Value = bytes | str | int | float

PROBE_FIRST = 0.1
PROBE_MAX = 2.0
"""Seconds until the first probe of a Redis that failed, and between later ones at the most."""

IDLE_CHECK = 1.0
"""Seconds between probes of a Redis that is up, so that its loss is known before a request meets it."""

MAX_BATCH = 256

_TRANSPORT = (RedisConnectionError, RedisTimeoutError, RedisClusterException, OSError)
_REFUSALS = (ReadOnlyError, OutOfMemoryError, ClusterDownError)
_REFUSAL_WORDS = ("LOADING", "MASTERDOWN", "MISCONF", "NOREPLICAS", "CLUSTERDOWN", "READONLY", "OOM", "TRYAGAIN")


class Unavailable(Exception):
    """Redis did not answer in time, cannot be reached or cannot write. The message says which."""


class ScriptFailed(Exception):
    """Redis answered with an error that is about the call itself: a mistake in a script, a key of another kind."""


@dataclass(frozen=True, slots=True)
class Script:
    """A Lua script by its name. `sha` is how Redis knows it."""

    name: str
    source: str
    sha: str

    @classmethod
    def of(cls, name: str, source: str) -> "Script":
        return cls(name, source, hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest())

    @classmethod
    def read(cls, *files: Path) -> "Script":
        """The script that the files make one after the other; it is called after the last one."""
        return cls.of(files[-1].stem, "\n".join(file.read_text() for file in files))


@dataclass(frozen=True, slots=True)
class LinkSettings:
    """Where Redis is. Times are in seconds; `url` may hold a password and is never printed.

    `prefix` begins every key; it names the schema's version, so that gateways of two versions do not mix.
    """

    url: str
    cluster: bool = False
    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None
    timeout: float = 0.05
    connect_timeout: float = 0.25
    prefix: str = "fg1"


@dataclass(slots=True, eq=False)
class _Call:
    """One call on its way: as it is sent, and who waits for it. `script` is sent whole where Redis has forgotten it."""

    command: tuple[Value, ...]
    script: Script | None
    waiter: asyncio.Future[Any]


class Link:
    """One Redis (or Redis Cluster) as this process reaches it."""

    def __init__(self, settings: LinkSettings) -> None:
        """Nothing is connected before `start`, or the first call."""
        self.prefix = settings.prefix
        self.up = True
        self.reason: str | None = None
        """Why it is down, None where it is up."""
        self.outages = 0
        self._settings = settings
        self._client: Any = None
        self._waiting: list[_Call] = []
        self._sender: asyncio.Task[None] | None = None
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
        """Send what waits, within the timeout, and close."""
        if self._prober is not None:
            self._prober.cancel()
            await asyncio.gather(self._prober, return_exceptions=True)
        if self._sender is not None:
            await asyncio.gather(self._sender, return_exceptions=True)
        await self._disconnect()

    async def run(self, script: Script, keys: Sequence[str], args: Sequence[Value] = ()) -> Any:
        """What `script` returns for `keys` and `args`. Raises `Unavailable` or `ScriptFailed`.

        In a cluster all `keys` must be in one slot (a common `{tag}`).
        """
        return await self.submit(("EVALSHA", script.sha, len(keys), *keys, *args), script)

    async def command(self, *command: Value) -> Any:
        """The reply to a plain command. Raises `Unavailable` or `ScriptFailed`. Its second word is its key."""
        return await self.submit(command)

    def submit(self, command: tuple[Value, ...], script: Script | None = None) -> asyncio.Future[Any]:
        """Put a call into the next pipeline; the future holds its reply or raises as `run` does."""
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[Any] = loop.create_future()
        if not self.up:
            waiter.set_exception(Unavailable(self.reason or "Redis is down"))
            return waiter
        self._waiting.append(_Call(command, script, waiter))
        if self._sender is None:
            self._sender = loop.create_task(self._send_all(), name="redis pipelines")
        return waiter

    # Sending

    async def _send_all(self) -> None:
        """Pipeline after pipeline until nothing waits. Others join while one is under way."""
        try:
            while self._waiting:
                batch, self._waiting = self._waiting[:MAX_BATCH], self._waiting[MAX_BATCH:]
                batch = [call for call in batch if not call.waiter.done()]
                if batch:
                    await self._send(batch)
        finally:
            self._sender = None

    async def _send(self, batch: list[_Call]) -> None:
        try:
            replies = await self._exchange([call.command for call in batch])
            forgotten = [call for call, reply in zip(batch, replies, strict=True) if isinstance(reply, NoScriptError)]
            if forgotten:
                again = await self._exchange([_whole(call) for call in forgotten])
                known = dict(zip(map(id, forgotten), again, strict=True))
                replies = [known.get(id(call), reply) for call, reply in zip(batch, replies, strict=True)]
        except (*_TRANSPORT, TimeoutError) as error:
            self._fell(_spell(error), batch)
            return
        except RedisError as error:
            replies = [error] * len(batch)
        for call, reply in zip(batch, replies, strict=True):
            self._answer(call, reply)

    async def _exchange(self, commands: list[tuple[Value, ...]], patience: float = 0.0) -> list[Any]:
        """Replies to `commands`, errors among them as values. A connection that was lost is made anew, once.

        `patience`: seconds beyond the timeout.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._settings.timeout + patience
        try:
            return await self._exchange_once(commands, deadline)
        except RedisConnectionError:
            return await self._exchange_once(commands, max(deadline, loop.time() + self._settings.timeout / 2))

    async def _exchange_once(self, commands: list[tuple[Value, ...]], deadline: float) -> list[Any]:
        async with asyncio.timeout_at(deadline):
            pipeline = self._connect().pipeline(transaction=False)
            for command in commands:
                pipeline.execute_command(*command)
            replies: list[Any] = await pipeline.execute(raise_on_error=False)
            return replies

    def _answer(self, call: _Call, reply: Any) -> None:
        if isinstance(reply, (*_REFUSALS, *_TRANSPORT)) or (isinstance(reply, ResponseError) and _refuses(reply)):
            self._fell(_spell(reply), [call])
        elif call.waiter.done():
            return
        elif isinstance(reply, RedisError):
            name = call.script.name if call.script is not None else str(call.command[0])
            call.waiter.set_exception(ScriptFailed(f"{name}: {reply}"))
        else:
            call.waiter.set_result(reply)

    def _connect(self) -> Any:
        if self._client is None:
            self._client = _client(self._settings)
        return self._client

    async def _disconnect(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            try:
                async with asyncio.timeout(self._settings.timeout):
                    await client.aclose()
            except (RedisError, OSError, TimeoutError):
                return

    # The breaker

    def _fell(self, reason: str, batch: list[_Call]) -> None:
        """Redis is down: everybody who waits is told now."""
        self._mark(False, reason)
        waiting, self._waiting = self._waiting, []
        for call in (*batch, *waiting):
            if not call.waiter.done():
                call.waiter.set_exception(Unavailable(reason))

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
                    await asyncio.wait_for(self._fallen.wait(), IDLE_CHECK)
            if not self.up:
                await asyncio.sleep(pause)
                pause = min(pause * 2, PROBE_MAX)
            try:
                await self._probe()
            except Exception:
                log.exception("redis_probe_failed_unexpectedly")

    async def _probe(self) -> None:
        """Write a key: what only answers, but takes nothing (read only, full), is of no use here."""
        numbers = range(8 if self._settings.cluster else 1)
        probes: list[tuple[Value, ...]] = [("SET", f"{self.prefix}:probe:{{{n}}}", 1, "PX", 60_000) for n in numbers]
        try:
            replies = await self._exchange(probes, self._settings.connect_timeout)
        except (RedisError, OSError, TimeoutError) as error:
            replies = [error]
        wrong = next((reply for reply in replies if isinstance(reply, Exception)), None)
        if wrong is None:
            self._mark(True)
        else:
            self._fell(_spell(wrong), [])
            await self._disconnect()  # a name may lead elsewhere after a failover


def _client(settings: LinkSettings) -> Any:
    """A client that fails at once: waiting and trying again are the link's affair."""
    options: dict[str, Any] = {
        "socket_timeout": settings.timeout,
        "socket_connect_timeout": settings.connect_timeout,
        "retry": Retry(NoBackoff(), 0),
    }
    if settings.url.startswith("rediss://"):
        options["ssl_ca_certs"] = str(settings.ca_file) if settings.ca_file is not None else None
        options["ssl_certfile"] = str(settings.cert_file) if settings.cert_file is not None else None
        options["ssl_keyfile"] = str(settings.key_file) if settings.key_file is not None else None
        options["ssl_cert_reqs"] = ssl.CERT_REQUIRED
    if settings.cluster:
        return RedisCluster.from_url(settings.url, **options)
    return Redis.from_url(settings.url, **options)


def _whole(call: _Call) -> tuple[Value, ...]:
    """The call with its script's text, for a Redis that has not seen it (or was told to forget)."""
    assert call.script is not None
    return ("EVAL", call.script.source, *call.command[2:])


def _refuses(reply: ResponseError) -> bool:
    """Whether Redis cannot serve (now) what it understands. Scripts wrap the reason in a text of their own."""
    return any(word in str(reply) for word in _REFUSAL_WORDS)


def _spell(error: BaseException) -> str:
    if isinstance(error, TimeoutError | RedisTimeoutError):
        return "no answer in time"
    return str(error) or type(error).__name__
