"""Running a coroutine without a task, up to where it really has to wait.

ASGI's `send` and `receive` are coroutines, but under uvicorn almost every call returns without waiting for
anything. Waking a task for each streamed event would cost more than the event. So a call is stepped by hand, in
the stack of whoever has bytes to send; only where it does wait, it is carried on later, from a callback of the
future that it waits for.

This is the protocol between coroutines and asyncio's event loop (PEP 3156): a coroutine waits by yielding a
future whose `_asyncio_future_blocking` is set; whoever drives it clears the flag and steps again when the future
is done. A bare `yield` (None) asks to be stepped in the next iteration of the loop.
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Stepped(Generic[T]):
    """One coroutine driven by hand. `done` is called with its result, or with the error that it ended in."""

    __slots__ = ("_coroutine", "_done", "_loop")

    def __init__(
        self,
        coroutine: Coroutine[Any, Any, T],
        loop: asyncio.AbstractEventLoop,
        done: Callable[[T | None, BaseException | None], None],
    ) -> None:
        self._coroutine = coroutine
        self._loop = loop
        self._done = done

    def step(self, _: object = None) -> None:
        """Run until the next wait or the end."""
        try:
            awaited = self._coroutine.send(None)
        except StopIteration as stop:
            self._done(stop.value, None)
        except BaseException as error:  # noqa: BLE001 - whatever ended it is told, as a task would
            self._done(None, error)
        else:
            wait_for(awaited, self._loop, self.step)


def wait_for(awaited: Any, loop: asyncio.AbstractEventLoop, step: Callable[[object], None]) -> None:
    """Have `step` called when what a coroutine yielded is done."""
    if awaited is None:
        loop.call_soon(step, None)
    else:
        awaited._asyncio_future_blocking = False
        awaited.add_done_callback(step)
