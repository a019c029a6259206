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
import types
from collections.abc import Callable, Coroutine, Generator
from typing import Any

Done = Callable[[Any, BaseException | None], None]


def finish_later(
    coroutine: Coroutine[Any, Any, Any], awaited: Any, loop: asyncio.AbstractEventLoop, done: Done
) -> None:
    """Carry on a coroutine that yielded `awaited`. `done` is called with its result, or with what it ended in."""

    def step(_: object) -> None:
        try:
            awaited = coroutine.send(None)
        except StopIteration as stop:
            done(stop.value, None)
        except BaseException as error:  # noqa: BLE001 - whatever ended it is told, as a task would
            done(None, error)
        else:
            wait_for(awaited)

    def wait_for(awaited: Any) -> None:
        if awaited is None:
            loop.call_soon(step, None)
        else:
            awaited._asyncio_future_blocking = False
            awaited.add_done_callback(step)

    wait_for(awaited)


@types.coroutine
def await_rest(coroutine: Coroutine[Any, Any, Any], awaited: Any) -> Generator[Any, None, Any]:
    """The same from within a task: await a coroutine that was stepped before and yielded `awaited`."""
    try:
        while True:
            yield awaited
            awaited = coroutine.send(None)
    except StopIteration as stop:
        return stop.value
    finally:
        coroutine.close()  # does nothing where it has ended; ends it where this was cancelled
