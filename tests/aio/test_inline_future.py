"""An ending wakes a task through the loop and a plain callback on the spot; a sweep looks at what is due."""

import asyncio

import pytest

from gateway.aio.inline_future import InlineFuture
from gateway.upstream.sweep import TimeoutSweep
from tests.support.gateways import eventually


async def test_a_task_gets_the_result_that_is_set_later_or_was_set_before() -> None:
    loop = asyncio.get_running_loop()
    for later in (True, False):
        ending: InlineFuture[str] = InlineFuture(loop)

        async def wait(ending: InlineFuture[str]) -> str:
            return await ending

        if not later:
            ending.set_result("set")
        task = asyncio.create_task(wait(ending))
        await asyncio.sleep(0)
        if later:
            assert not task.done()
            ending.set_result("set")
            assert not task.done(), "a task is resumed by the loop alone"
        assert await task == "set"


async def test_a_task_gets_the_error() -> None:
    ending: InlineFuture[None] = InlineFuture(asyncio.get_running_loop())
    asyncio.get_running_loop().call_soon(ending.set_exception, ValueError("broken"))
    with pytest.raises(ValueError, match="broken"):
        await ending


async def test_a_task_that_waits_can_be_cancelled() -> None:
    ending: InlineFuture[None] = InlineFuture(asyncio.get_running_loop())
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await ending
    assert ending.done() and not ending.cancel()


async def test_a_callback_without_a_context_is_called_on_the_spot() -> None:
    ending: InlineFuture[int] = InlineFuture(asyncio.get_running_loop())
    heard: list[int] = []
    ending.add_done_callback(lambda ended: heard.append(ended.result()))
    ending.set_result(5)
    assert heard == [5]
    with pytest.raises(asyncio.InvalidStateError):
        ending.set_result(6)


async def test_what_fails_when_it_is_woken_is_not_who_wakes(caplog: pytest.LogCaptureFixture) -> None:
    ending: InlineFuture[int] = InlineFuture(asyncio.get_running_loop())

    def fail(_: object) -> None:
        raise OSError("no space left")

    ending.add_done_callback(fail)
    ending.set_result(5)
    assert ending.result() == 5
    assert "no space left" in caplog.text


async def test_a_callback_that_comes_late_is_called_in_the_next_turn() -> None:
    ending: InlineFuture[int] = InlineFuture(asyncio.get_running_loop())
    ending.set_result(5)
    heard: list[int] = []
    ending.add_done_callback(lambda ended: heard.append(ended.result()))
    assert heard == []
    await asyncio.sleep(0)
    assert heard == [5]


async def test_what_it_ended_with_can_be_asked_by_whoever_does_not_wait() -> None:
    loop = asyncio.get_running_loop()
    well, badly, never = InlineFuture[int](loop), InlineFuture[int](loop), InlineFuture[int](loop)
    well.set_result(1)
    badly.set_exception(ValueError("broken"))
    never.cancel()
    assert well.exception() is None and str(badly.exception()) == "broken"
    assert isinstance(never.exception(), asyncio.CancelledError)


class Clock:
    """Due again `every` seconds, until it has been looked at `times` times."""

    def __init__(self, sweep: "TimeoutSweep[Clock]", due: float, every: float, times: int) -> None:
        self.due = due
        self.seen: list[float] = []
        self._sweep = sweep
        self._every = every
        self._times = times

    def check(self, now: float) -> None:
        assert now >= self.due
        self.seen.append(now)
        self.due = now + self._every
        if len(self.seen) == self._times:
            self._sweep.discard(self)


async def test_a_sweep_looks_at_what_is_due_and_at_nothing_else() -> None:
    loop = asyncio.get_running_loop()
    sweep: TimeoutSweep[Clock] = TimeoutSweep()
    start = loop.time()
    late = Clock(sweep, start + 3600.0, 1.0, 1)
    often = Clock(sweep, start + 0.01, 0.001, 3)
    for clock in (late, often):
        sweep.add(clock, loop)
    await eventually(lambda: len(often.seen) == 3)
    assert late.seen == [] and list(sweep) == [late] and len(sweep) == 1


async def test_a_check_may_discard_another_that_is_due() -> None:
    loop = asyncio.get_running_loop()
    sweep: TimeoutSweep[Clock] = TimeoutSweep()

    class Jealous(Clock):
        def check(self, now: float) -> None:
            super().check(now)
            for other in sweep:
                if other is not self:
                    sweep.discard(other)

    both = [Jealous(sweep, loop.time(), 60.0, 9) for _ in range(2)]
    for clock in both:
        sweep.add(clock, loop)
    await eventually(lambda: any(clock.seen for clock in both))
    later = Clock(sweep, loop.time(), 60.0, 1)
    sweep.add(later, loop)
    await eventually(lambda: later.seen)
    assert sorted(len(clock.seen) for clock in both) == [0, 1]
