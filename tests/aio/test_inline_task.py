"""A story does without a task what a task does, and without the loop where nothing is waited for."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from gateway.aio.inline_future import InlineFuture
from gateway.aio.inline_task import InlineTask
from tests.support.gateways import eventually

Tell = Callable[[Coroutine[Any, Any, None]], "Told"]


class Told:
    """A story that was begun by a callback of the loop, as those of requests are."""

    def __init__(self, coroutine: Coroutine[Any, Any, None]) -> None:
        loop = asyncio.get_running_loop()
        self.running: set[Any] = set()
        self.ends = 0
        self.story = InlineTask(coroutine, loop, self.running, self._end)
        loop.call_soon(self.story.start)

    def _end(self) -> None:
        self.ends += 1

    async def over(self) -> None:
        await eventually(lambda: self.ends == 1 and not self.running)


async def test_what_waits_for_nothing_ends_within_start() -> None:
    seen: list[object] = []

    async def nothing() -> None:
        seen.append(asyncio.current_task())

    def begin() -> None:
        story = InlineTask(nothing(), loop, set(), lambda: seen.append("end"))
        story.start()
        seen.append(story)

    loop = asyncio.get_running_loop()
    loop.call_soon(begin)
    await eventually(lambda: len(seen) == 3)
    assert seen[0] is seen[2] and seen[1] == "end"


async def test_an_ending_wakes_it_on_the_spot() -> None:
    loop = asyncio.get_running_loop()
    ending: InlineFuture[int] = InlineFuture(loop)
    heard: list[int] = []

    async def wait() -> None:
        heard.append(await ending)

    told = Told(wait())
    await eventually(lambda: told.running)

    def end() -> None:
        ending.set_result(7)
        heard.append(-told.ends)

    loop.call_soon(end)
    await told.over()
    assert heard == [7, -1], "it had ended when set_result came back"


async def test_on_the_stack_of_a_task_it_goes_on_later() -> None:
    ending: InlineFuture[int] = InlineFuture(asyncio.get_running_loop())

    async def wait() -> None:
        await ending

    told = Told(wait())
    await eventually(lambda: told.running)
    ending.set_result(7)
    assert told.ends == 0
    await told.over()


async def test_it_waits_for_all_that_a_task_can_wait_for() -> None:
    loop = asyncio.get_running_loop()
    seen: list[object] = []

    async def wait() -> None:
        await asyncio.sleep(0)
        await asyncio.sleep(0.001)
        seen.append(await asyncio.create_task(asyncio.sleep(0, "task")))
        future = loop.create_future()
        loop.call_soon(future.set_exception, ValueError("broken"))
        with pytest.raises(ValueError, match="broken"):
            await future
        seen.extend(await asyncio.gather(asyncio.sleep(0, 1), asyncio.sleep(0, 2)))

    await Told(wait()).over()
    assert seen == ["task", 1, 2]


async def test_timeouts_work_within() -> None:
    seen: list[str] = []

    async def wait() -> None:
        for late in (asyncio.Event().wait(), InlineFuture[None](asyncio.get_running_loop())):
            try:
                async with asyncio.timeout(0.01):
                    await late
            except TimeoutError:
                seen.append("late")
        async with asyncio.timeout(60):
            await asyncio.sleep(0)
        seen.append("in time")

    await Told(wait()).over()
    assert seen == ["late", "late", "in time"]


async def test_it_can_be_cancelled_while_it_waits() -> None:
    loop = asyncio.get_running_loop()
    seen: list[str] = []

    async def wait() -> None:
        try:
            await loop.create_future()
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise

    told = Told(wait())
    await eventually(lambda: told.running)
    (found,) = told.running
    assert found.cancel(msg="as a server does")
    await told.over()
    assert seen == ["cancelled"]


async def test_an_error_ends_it_and_is_logged(capsys: pytest.CaptureFixture[str]) -> None:
    async def fail() -> None:
        raise ValueError("broken")

    await Told(fail()).over()
    assert "request_task_failed" in "".join(capsys.readouterr())
