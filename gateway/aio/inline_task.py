"""Runs the coroutine of a request without a task.

A task is started by the loop, one turn later, and woken by it, again a turn later; each turn mostly asks the system
for events that are not there. A request needs neither: all it does before it waits can be done in the stack that its
last byte came in on, and what it waits for, an `InlineFuture` of Redis' answer or of an exchange, wakes it in the stack
of that answer's last byte. asyncio lets others make tasks of their own (`_enter_task` and `_leave_task` are its
documented hooks for that), so within an inline task `asyncio.timeout` and the like work as they do in a task.

    state     what happens                                          next
    new       start()                                               stepping
    stepping  the coroutine ends, or raises                         ended: `on_end` is called
    stepping  it waits for something                                waiting
    stepping  cancel()                                              stepping: CancelledError at its next wait
    waiting   what it waits for comes, on no other task's stack     stepping, at once
    waiting   it comes on the stack of another task                 stepping, in the loop's next turn
    waiting   cancel()                                              what it waits for is cancelled, and so comes
"""

import asyncio
from asyncio.tasks import _enter_task, _leave_task
from collections.abc import Callable, Coroutine
from typing import Any

import structlog

log = structlog.get_logger("fleetgate.inline_task")


class InlineTask:
    """One coroutine, from `start` to its end. Duck-typed as a task for those who ask for the current one."""

    __slots__ = ("_asked_to_stop", "_coroutine", "_loop", "_must_stop", "_on_end", "_running", "_waits_for")

    def __init__(
        self,
        coroutine: Coroutine[Any, Any, None],
        loop: asyncio.AbstractEventLoop,
        running: set[Any],
        on_end: Callable[[], None],
    ) -> None:
        """While it waits, it is in `running`, for whoever has to end all that do."""
        self._coroutine = coroutine
        self._loop = loop
        self._running = running
        self._on_end = on_end
        self._waits_for: Any = None
        self._must_stop: asyncio.CancelledError | None = None
        self._asked_to_stop = 0

    def start(self) -> None:
        """Run up to the first wait, or to the end."""
        self._step()

    # What `asyncio.timeout` and a server's shutdown ask of a task

    def cancel(self, msg: Any = None) -> bool:
        self._asked_to_stop += 1
        if self._waits_for is None or not self._waits_for.cancel(msg):
            self._must_stop = asyncio.CancelledError(msg) if msg is not None else asyncio.CancelledError()
        return True

    def cancelling(self) -> int:
        return self._asked_to_stop

    def uncancel(self) -> int:
        self._asked_to_stop = max(0, self._asked_to_stop - 1)
        return self._asked_to_stop

    # Its steps

    def _step(self) -> None:
        loop = self._loop
        task: Any = self  # as far as asyncio looks
        try:
            _enter_task(loop, task)
        except RuntimeError:  # on another task's stack
            loop.call_soon(self._step)
            return
        stop, self._must_stop = self._must_stop, None
        try:
            waits_for = self._coroutine.send(None) if stop is None else self._coroutine.throw(stop)
        except StopIteration:
            self._end()
        except asyncio.CancelledError:
            self._end()
        except Exception:
            self._end()
            log.exception("request_task_failed")
        else:
            self._wait(waits_for)
        finally:
            _leave_task(loop, task)

    def _wait(self, waits_for: Any) -> None:
        self._running.add(self)
        if waits_for is None:  # asyncio.sleep(0): a turn of the loop
            self._loop.call_soon(self._step)
            return
        waits_for._asyncio_future_blocking = False
        self._waits_for = waits_for
        waits_for.add_done_callback(self._wake)
        if self._must_stop is not None and waits_for.cancel():
            self._must_stop = None

    def _wake(self, _: Any) -> None:
        """The coroutine itself asks what it waited for for its result, or its error."""
        self._waits_for = None
        self._step()

    def _end(self) -> None:
        self._running.discard(self)
        self._on_end()
