"""Scripts on their way to one Redis or to a cluster's servers: gathered by turns, bounded in time, sent again once.

A turn's calls go out in one piece for each server. What was under way on a connection that broke is sent again over
a new one, once; where that breaks too, or none can be made, or an answer is late, Redis has fallen. Late is what has
no answer `timeout` after it was sent, and a little more for each call that is ahead of it.
"""

import asyncio
import math
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any

import hiredis
import structlog
from redis.exceptions import RedisError

from gateway.redis.connection import LoginCall, RedisCall, RedisConnection, open_wire
from gateway.redis.refusals import RedisRefusals, code_of
from gateway.redis.script import RedisUnavailable, ScriptFailed
from gateway.redis.settings import TRANSPORT, Address, RedisSettings, spell

log = structlog.get_logger("fleetgate.redis")

GRACE = 0.005
"""Seconds beyond the timeout: a loop that was busy looks at its sockets once more before an answer counts as late."""

EACH = 0.00025
"""Seconds beyond the timeout for every call that is ahead, four times what one costs Redis: a burst is no outage."""

LAST_LOOKS = 20
"""How often, within the timeout, it is looked whether all is answered, before connections are closed."""


class RedisConnections:
    """A connection for each server that was needed so far."""

    def __init__(
        self,
        settings: RedisSettings,
        locate: Callable[[str], Address],
        fell: Callable[[str], None],
        redirect: Callable[[RedisCall], None],
        refusals: RedisRefusals,
    ) -> None:
        """`locate` tells the server of a key, `fell` is told why Redis is lost, `redirect` takes on a call whose key
        has moved, `refusals` says what an error means."""
        self._settings = settings
        self._refusals = refusals
        self._home = settings.address
        self._locate = locate
        self._fell = fell
        self._redirect = redirect
        self._gathered: list[RedisCall] = []
        self._parked: defaultdict[Address, list[RedisCall]] = defaultdict(list)
        self._wires: dict[Address, RedisConnection] = {}
        self._opening: dict[Address, asyncio.Task[None]] = {}
        self._timer: asyncio.TimerHandle | None = None

    def submit(self, call: RedisCall) -> None:
        """Have `call` sent with the others of this turn."""
        if not self._gathered:
            call.waiter.get_loop().call_soon(self._flush)
        self._gathered.append(call)

    def under_way(self) -> Iterator[RedisCall]:
        """All calls that have no answer yet."""
        yield from self._gathered
        for calls in self._parked.values():
            yield from calls
        for wire in self._wires.values():
            yield from wire.in_flight

    def drop(self, error: Exception) -> None:
        """Hang up everywhere; whoever waits gets `error`."""
        waiting = list(self.under_way())
        self._gathered = []
        self._parked.clear()
        for wire in self._wires.values():
            wire.close()
        self._wires.clear()
        for call in waiting:
            call.fail(error)

    async def close(self) -> None:
        """Wait for what is under way, within the timeout, and hang up."""
        for _ in range(LAST_LOOKS):
            if next(self.under_way(), None) is None:
                break
            await asyncio.sleep(self._settings.timeout / LAST_LOOKS)
        for task in self._opening.values():
            task.cancel()
        await asyncio.gather(*self._opening.values(), return_exceptions=True)
        self.drop(RedisUnavailable("the gateway stops"))
        if self._timer is not None:
            self._timer.cancel()

    # Out

    def _flush(self) -> None:
        calls, self._gathered = self._gathered, []
        if not calls:  # dropped in between
            return
        loop = calls[0].waiter.get_loop()
        deadline = loop.time() + self._settings.timeout + self._ahead() * EACH
        for call in calls:
            call.deadline = deadline
            deadline += EACH
        if not self._settings.cluster:
            self._send(self._home, calls)
        else:
            by_server: defaultdict[Address, list[RedisCall]] = defaultdict(list)
            for call in calls:
                by_server[self._locate(call.key)].append(call)
            for address, group in by_server.items():
                self._send(address, group)
        first = calls[0].deadline
        if self._timer is not None and self._timer.when() > first:  # it is set for the last of a burst
            self._timer.cancel()
            self._timer = None
        if self._timer is None:
            self._timer = loop.call_at(first, self._check, False)

    def _ahead(self) -> int:
        """How many calls were sent before and have no answer yet, in a cluster to whichever server."""
        parked = sum([len(calls) for calls in self._parked.values()])
        return parked + sum([len(wire.in_flight) for wire in self._wires.values()])

    def _send(self, address: Address, calls: list[RedisCall]) -> None:
        wire = self._wires.get(address)
        if wire is not None:
            wire.send(calls)
            return
        self._parked[address] += calls
        if address not in self._opening:
            self._opening[address] = asyncio.create_task(self._open(address), name="redis connection")

    async def _open(self, address: Address) -> None:
        try:
            wire = await open_wire(address, self._settings, lambda: RedisConnection(self._answered, self._lost))
        except ScriptFailed as error:
            self._fell(str(self._refusals.understand("AUTH", "", str(error))))
            return
        except (*TRANSPORT, RedisError, RedisUnavailable) as error:
            self._fell(spell(error))
            return
        except Exception:
            log.exception("redis_connection_failed_unexpectedly")
            self._fell("a mistake of ours")
            return
        finally:
            del self._opening[address]
        self._wires[address] = wire
        wire.send(self._parked.pop(address, []))

    # Back

    def _answered(self, call: RedisCall, reply: Any) -> None:
        if isinstance(reply, hiredis.ReplyError):
            self._refused(call, str(reply))
        elif call.fits(reply):
            if self._refusals.standing:
                self._refusals.answered(call.name, call.key)
            call.end(reply)
        else:
            call.fail(self._refusals.misshapen(call.name, call.key, reply))

    def _refused(self, call: RedisCall, text: str) -> None:
        code = code_of(text)
        if isinstance(call, LoginCall):
            call.fail(ScriptFailed(text))
        elif code == "NOSCRIPT" and call.command[0] == "EVALSHA":  # the server has not seen it, or was told to forget
            call.command = call.whole
            self._send(self._locate(call.key) if self._settings.cluster else self._home, [call])
        elif code in ("MOVED", "ASK") and self._settings.cluster:
            self._redirect(call)
        else:
            error = self._refusals.understand(call.name, call.key, text)
            try:
                if not isinstance(error, ScriptFailed):
                    self._fell(str(error))
            finally:
                call.fail(error)

    def _lost(self, wire: RedisConnection) -> None:
        calls = list(wire.in_flight)
        wire.in_flight.clear()
        address = next((place for place, other in self._wires.items() if other is wire), None)
        if address is None:  # it was logging in
            for call in calls:
                call.fail(ConnectionResetError("Redis closed the connection"))
            return
        del self._wires[address]
        again = [call for call in calls if not call.again]
        for call in again:
            call.again = True
        if again:
            self._send(address, again)
        if len(again) < len(calls):
            self._parked[address] += [call for call in calls if call not in again]
            self._fell("Redis closed the connection")

    # Time

    def _check(self, sure: bool) -> None:
        """Whether the oldest call is late. `sure` after the grace."""
        self._timer = None
        loop = asyncio.get_running_loop()
        oldest = min((call.deadline for call in self.under_way()), default=math.inf)
        if oldest == math.inf:  # nothing was sent: what is gathered has the next look made when it goes
            return
        if oldest > loop.time():
            self._timer = loop.call_at(oldest, self._check, False)
        elif sure:
            self._fell("no answer in time")
        else:
            self._timer = loop.call_later(GRACE, self._check, True)
