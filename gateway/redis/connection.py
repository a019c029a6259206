"""One connection to a Redis server, for scripts: calls are written at once, replies come in the same order.

redis-py sends a command and waits for its reply, one task at a time: about 150 µs of CPU for a script alone and 30 in a
pipeline. Here nothing waits: hiredis (the parser of redis-py) packs and parses, and each reply is handed on within
`data_received`. The login is the first calls.
"""

import asyncio
import math
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, cast

import hiredis

from gateway.aio.inline_future import InlineFuture
from gateway.redis.script import Script, ScriptFailed
from gateway.redis.settings import NAMING, Address, RedisSettings

Value = bytes | str | int | float

_pack: Callable[[tuple[Value, ...]], bytes] = hiredis.pack_command  # type: ignore[assignment]  # its stub forgets "..."


class RedisCall:
    """A call. `script` None: a plain command. `deadline`: loop time, infinite before the call is sent. `again`: it was
    sent before."""

    __slots__ = ("again", "command", "deadline", "script", "waiter")

    def __init__(self, command: tuple[Value, ...], script: Script | None, waiter: InlineFuture[Any]) -> None:
        self.command = command
        self.script = script
        self.waiter = waiter
        self.deadline = math.inf
        self.again = False

    @property
    def key(self) -> str:
        """The first key; the others are in the same slot."""
        return str(self.command[1 if self.script is None else 3])

    @property
    def name(self) -> str:
        """For errors."""
        return str(self.command[0]) if self.script is None else self.script.name

    @property
    def whole(self) -> tuple[Value, ...]:
        """The call with its script's text, for a server that does not know the script."""
        if self.script is None:
            return self.command
        return ("EVAL", self.script.source, *self.command[2:])

    def fits(self, reply: Any) -> bool:
        """Whether `reply` is one that the script returns."""
        return self.script is None or self.script.fits(reply, self.command)

    def end(self, reply: Any) -> None:
        """Resume the caller with `reply`, within this call; nothing where it is gone."""
        if not self.waiter.done():
            self.waiter.set_result(reply)

    def fail(self, error: Exception) -> None:
        """The same with `error`."""
        if not self.waiter.done():
            self.waiter.set_exception(error)


class LoginCall(RedisCall):
    """A call of the login. `open_connection` decides what its refusal means."""


class RedisConnection(asyncio.Protocol):
    """Writes calls and reads replies. The owner decides what replies and a lost connection mean."""

    def __init__(self, answered: Callable[[RedisCall, Any], None], lost: Callable[["RedisConnection"], None]) -> None:
        self.in_flight: deque[RedisCall] = deque()
        self.closed = False
        self._leaving = False
        self._answered = answered
        self._lost = lost
        self._reader = hiredis.Reader()
        self._known: set[str] = set()
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's does not inherit from it

    def send(self, calls: Sequence[RedisCall]) -> None:
        """Send `calls` in one write."""
        assert self._transport is not None
        self.in_flight.extend(calls)
        self._transport.write(b"".join([_pack(self._spelled(call)) for call in calls]))

    def _spelled(self, call: RedisCall) -> tuple[Value, ...]:
        """The first call of a script carries its text: refused and sent again, it would come after later calls."""
        if call.script is None or call.script.sha in self._known:
            return call.command
        self._known.add(call.script.sha)
        return call.whole

    def data_received(self, data: bytes) -> None:
        reader = self._reader
        reader.feed(data)
        try:
            while (reply := reader.gets()) is not False and self.in_flight:
                self._answered(self.in_flight.popleft(), reply)
        except hiredis.ProtocolError:
            reply = None
        if reply is not False and self._transport is not None:  # another protocol, or a reply without a call
            self._transport.abort()
        elif self._leaving and not self.in_flight:
            self.close()

    def connection_lost(self, _: Exception | None) -> None:
        if not self.closed:
            self.closed = True
            self._lost(self)

    def leave(self) -> None:
        """Close once all calls are answered; none is sent any more."""
        self._leaving = True
        if not self.in_flight:
            self.close()

    def close(self) -> None:
        """Close; the owner is not called any more."""
        self.closed = True
        if self._transport is not None:
            self._transport.abort()


async def open_connection(
    address: Address, settings: RedisSettings, make: Callable[[], RedisConnection]
) -> RedisConnection:
    """Connect and log in. Raises OSError, TimeoutError, or `ScriptFailed` where Redis refuses the login."""
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(settings.connect_timeout):
        tls = settings.tls()
        host, port = address
        name = host if tls is not None else None
        _, connection = await loop.create_connection(make, host, port, ssl=tls, server_hostname=name)
        calls = [LoginCall(command, None, InlineFuture(loop)) for command in (*settings.login, NAMING)]
        connection.send(calls)
        try:
            for call in calls:
                try:
                    await call.waiter
                except ScriptFailed:
                    if call.command != NAMING:
                        raise
        except BaseException:
            connection.close()
            for call in calls:
                call.waiter.cancel()
            raise
    return connection
