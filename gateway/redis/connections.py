"""The connections for scripts, one for each server: calls are gathered, bounded in time, and sent again once.

The calls of one iteration of the event loop are one write for each server. Calls in flight on a connection that breaks
are sent again over a new one, once. Redis is down where that breaks too, where no connection can be made, or where a
reply is late: `timeout` after the call was sent, and a little more for each call ahead of it.
"""

import asyncio
import math
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any

import hiredis
import structlog
from redis.exceptions import RedisError

from gateway.redis.connection import LoginCall, RedisCall, RedisConnection, open_connection
from gateway.redis.refusals import RedisRefusals, code_of, unavailable
from gateway.redis.script import RedisUnavailable, ScriptFailed
from gateway.redis.settings import TRANSPORT, Address, RedisSettings

log = structlog.get_logger("fleetgate.redis")

GRACE = 0.005
"""Seconds beyond the timeout, so that a busy event loop reads its sockets once more before a reply counts as late."""

EACH = 0.00025
"""Seconds beyond the timeout for every call ahead, four times what one costs Redis: a burst is no outage."""

CLOSE_CHECKS = 20
"""How often, within the timeout, `close` checks whether all calls are answered."""


class RedisConnections:
    """A connection for each server that was called so far."""

    def __init__(
        self,
        settings: RedisSettings,
        server_of: Callable[[str], Address],
        set_down: Callable[[RedisUnavailable], None],
        redirect: Callable[[RedisCall], None],
        refusals: RedisRefusals,
    ) -> None:
        """`server_of(key)`; `set_down(error)` is called where Redis is down; `redirect(call)` carries out a call whose
        key has moved; `refusals` explains errors."""
        self._settings = settings
        self._refusals = refusals
        self._home = settings.address
        self._server_of = server_of
        self._set_down = set_down
        self._redirect = redirect
        self._gathered: list[RedisCall] = []
        self._parked: defaultdict[Address, list[RedisCall]] = defaultdict(list)
        self._connections: dict[Address, RedisConnection] = {}
        self._left: list[RedisConnection] = []
        """Those of earlier settings, until their calls are answered."""
        self._opening: dict[Address, asyncio.Task[None]] = {}
        self._timer: asyncio.TimerHandle | None = None

    def configure(self, settings: RedisSettings) -> None:
        """Open connections by `settings` from now on."""
        self._settings = settings
        self._home = settings.address
        left = [*self._left, *self._connections.values()]
        self._connections.clear()
        for connection in left:
            connection.leave()
        self._left = [connection for connection in left if not connection.closed]
        for task in self._opening.values():
            task.cancel()
        self._opening.clear()
        waiting = [call for calls in self._parked.values() for call in calls]
        self._parked.clear()
        if waiting:
            self._route(waiting)

    def submit(self, call: RedisCall) -> None:
        """Send `call` with the others of this iteration of the event loop."""
        if not self._gathered:
            call.waiter.get_loop().call_soon(self._flush)
        self._gathered.append(call)

    def in_flight(self) -> Iterator[RedisCall]:
        """All calls without a reply."""
        yield from self._gathered
        for calls in self._parked.values():
            yield from calls
        for connection in self._all():
            yield from connection.in_flight

    def _all(self) -> Iterator[RedisConnection]:
        yield from self._connections.values()
        yield from self._left

    def drop(self, error: Exception) -> None:
        """Close all connections, and fail all calls with `error`."""
        waiting = list(self.in_flight())
        self._gathered = []
        self._parked.clear()
        for connection in self._all():
            connection.close()
        self._connections.clear()
        self._left.clear()
        for call in waiting:
            call.fail(error)

    async def close(self) -> None:
        """Wait for the calls in flight, within the timeout, and close."""
        for _ in range(CLOSE_CHECKS):
            if next(self.in_flight(), None) is None:
                break
            await asyncio.sleep(self._settings.timeout / CLOSE_CHECKS)
        for task in self._opening.values():
            task.cancel()
        await asyncio.gather(*self._opening.values(), return_exceptions=True)
        self.drop(RedisUnavailable("the gateway is stopping"))
        if self._timer is not None:
            self._timer.cancel()

    # Sending

    def _flush(self) -> None:
        calls, self._gathered = self._gathered, []
        if not calls:  # dropped meanwhile
            return
        loop = calls[0].waiter.get_loop()
        deadline = loop.time() + self._settings.timeout + self._ahead() * EACH
        for call in calls:
            call.deadline = deadline
            deadline += EACH
        self._route(calls)
        first = calls[0].deadline
        if self._timer is not None and self._timer.when() > first:  # it is set for the last call of a burst
            self._timer.cancel()
            self._timer = None
        if self._timer is None:
            self._timer = loop.call_at(first, self._check, False)

    def _ahead(self) -> int:
        """The number of calls in flight, to all servers of a cluster."""
        parked = sum([len(calls) for calls in self._parked.values()])
        return parked + sum([len(connection.in_flight) for connection in self._all()])

    def _route(self, calls: list[RedisCall]) -> None:
        """Send each to the server that has its key."""
        if not self._settings.cluster:
            self._send(self._home, calls)
            return
        by_server: defaultdict[Address, list[RedisCall]] = defaultdict(list)
        for call in calls:
            by_server[self._server_of(call.key)].append(call)
        for address, group in by_server.items():
            self._send(address, group)

    def _send(self, address: Address, calls: list[RedisCall]) -> None:
        connection = self._connections.get(address)
        if connection is not None:
            connection.send(calls)
            return
        self._parked[address] += calls
        if address not in self._opening:
            self._opening[address] = asyncio.create_task(self._open(address), name="redis connection")

    async def _open(self, address: Address) -> None:
        try:
            connection = await open_connection(
                address, self._settings, lambda: RedisConnection(self._reply_received, self._connection_lost)
            )
        except ScriptFailed as refused:  # compiled, a name has the type of its first handler: docs/architecture.md
            self._set_down(self._refusals.understand("AUTH", "", str(refused)))
            return
        except (*TRANSPORT, RedisError, RedisUnavailable) as error:
            self._set_down(unavailable(error))
            return
        except Exception:
            log.exception("redis_connection_failed")
            self._set_down(RedisUnavailable("an error of the gateway"))
            return
        finally:
            if self._opening.get(address) is asyncio.current_task():  # not one that `configure` has put in its place
                del self._opening[address]
        self._connections[address] = connection
        connection.send(self._parked.pop(address, []))

    # Replies

    def _reply_received(self, call: RedisCall, reply: Any) -> None:
        if isinstance(reply, hiredis.ReplyError):
            self._error_received(call, str(reply))
        elif call.fits(reply):
            if self._refusals.standing:
                self._refusals.answered(call.name, call.key)
            call.end(reply)
        else:
            call.fail(self._refusals.misshapen(call.name, call.key, reply))

    def _error_received(self, call: RedisCall, text: str) -> None:
        code = code_of(text)
        if isinstance(call, LoginCall):
            call.fail(ScriptFailed(text))
        elif code == "NOSCRIPT" and call.command[0] == "EVALSHA":  # the server has not got the script, or no longer
            call.command = call.whole
            self._route([call])
        elif code in ("MOVED", "ASK") and self._settings.cluster:
            self._redirect(call)
        else:
            error = self._refusals.understand(call.name, call.key, text)
            try:
                if not isinstance(error, ScriptFailed):
                    self._set_down(error)
            finally:
                call.fail(error)

    def _connection_lost(self, connection: RedisConnection) -> None:
        calls = list(connection.in_flight)
        connection.in_flight.clear()
        address = next((place for place, other in self._connections.items() if other is connection), None)
        if address is not None:
            del self._connections[address]
        elif connection in self._left:
            self._left.remove(connection)
        else:  # it broke during its login
            for call in calls:
                call.fail(ConnectionResetError("Redis closed the connection"))
            return
        again = [call for call in calls if not call.again]
        for call in again:
            call.again = True
        if again:
            self._route(again)
        if len(again) < len(calls):
            self._parked[self._home] += [call for call in calls if call not in again]
            self._set_down(RedisUnavailable("Redis closed the connection"))

    # Timeouts

    def _check(self, sure: bool) -> None:
        """Check whether the oldest call is late. `sure`: the grace is over."""
        self._timer = None
        loop = asyncio.get_running_loop()
        oldest = min((call.deadline for call in self.in_flight()), default=math.inf)
        if oldest == math.inf:  # nothing is sent yet: `_flush` sets the timer
            return
        if oldest > loop.time():
            self._timer = loop.call_at(oldest, self._check, False)
        elif sure:
            self._set_down(RedisUnavailable("no answer in time"))
        else:
            self._timer = loop.call_later(GRACE, self._check, True)
