"""What an exchange came to, or what Redis said: awaited once, and told without a turn of the event loop in between.

An `asyncio.Future` wakes who awaits it through the loop: a callback, a turn, and mostly a system call that asks for
events which are not there. An `InlineFuture` calls its waiter on the spot, from the stack that the last bytes came in
on. An error that nobody asks for is nobody's. It is a future to whoever needs one (`_asyncio_future_blocking` and the
methods below are what asyncio's tasks ask of what they wait for); a task, which only the loop may resume, is woken
through the loop as ever. (`asyncio.gather` and `asyncio.wait` want a real one: they look at a future's private parts.)

    who awaits               how it goes on
    an `InlineTask`          within `set_result` or `set_exception`, which return when it waits again or has ended
    an asyncio task          in the loop's next turn
    any that is cancelled    in the loop's next turn
"""

import asyncio
from collections.abc import Callable, Generator
from contextvars import Context
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class InlineFuture(Generic[T]):
    """Set once, awaited by one."""

    __slots__ = ("_asyncio_future_blocking", "_error", "_loop", "_result", "_set", "_wake")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._asyncio_future_blocking = False
        self._loop = loop
        self._set = False
        self._error: BaseException | None = None
        self._wake: Callable[[Any], object] | None = None

    def done(self) -> bool:
        return self._set

    def set_result(self, result: T) -> None:
        """The last thing to do where it is called: whoever waits goes on within."""
        self._result = result
        self._end()

    def set_exception(self, error: BaseException) -> None:
        """As `set_result`; `error` is raised where this is awaited."""
        self._error = error
        self._end()

    def result(self) -> T:
        error, self._error = self._error, None  # raised once: kept, it would hold its own traceback in a ring
        if error is None:
            return self._result
        try:
            raise error
        finally:
            del error

    def __await__(self) -> Generator[Any, None, T]:
        if not self._set:
            self._asyncio_future_blocking = True
            yield self
        return self.result()

    def get_loop(self) -> asyncio.AbstractEventLoop:
        return self._loop

    def exception(self) -> BaseException | None:
        """The error that it ended with, for a callback that does not want it raised."""
        return self._error

    def add_done_callback(self, wake: Callable[[Any], object], *, context: Context | None = None) -> None:
        """Asyncio's tasks give a `context`, and must not be woken but by the loop. One callback at a time."""
        if self._set:
            self._loop.call_soon(wake, self, context=context)
        elif context is None:
            self._wake = wake
        else:
            self._wake = lambda ending: self._loop.call_soon(wake, ending, context=context)

    def cancel(self, msg: Any = None) -> bool:
        """Through the loop for every waiter: who cancels (a timeout) still has to note why."""
        if self._set:
            return False
        self._set = True
        self._error = asyncio.CancelledError(msg) if msg is not None else asyncio.CancelledError()
        wake, self._wake = self._wake, None
        if wake is not None:
            self._loop.call_soon(wake, self)
        return True

    def _end(self) -> None:
        if self._set:
            raise asyncio.InvalidStateError("an ending is set once")
        self._set = True
        wake, self._wake = self._wake, None
        if wake is None:
            return
        try:
            wake(self)
        except Exception as error:  # noqa: BLE001 - as asyncio does: whoever sets this may have others to tell
            self._loop.call_exception_handler({"message": "what an ending woke has failed", "exception": error})
