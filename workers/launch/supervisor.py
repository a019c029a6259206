"""Keeps one vLLM server running and tells the gateways about it.

    state      what happens                               next       what is done
    ---------  -----------------------------------------  ---------  ------------------------------------------
    starting   /health is 200, warm-up and canary done    ready      the record says ready, with the canary
    starting   the process ends, or the deadline passes   waiting    its whole process group is ended
    ready      the process ends, or its engine is dead    waiting    the same; the record says starting
    waiting    the backoff is over                        starting   a new process
    waiting    too many lives without ever being ready    failed     exit code 1, so that an orchestrator sees it
    waiting    the plan says once, and no canary killed   failed     the server's exit code
    ready      SIGTERM, SIGINT or a spot notice           draining   the record says until when
    draining   a notice that ends sooner                  draining   the record says the new deadline
    draining   no request is left, or the deadline, or    stopped    SIGTERM, then SIGKILL to the group;
               a second signal                                       the record is taken out
    starting,  SIGTERM, SIGINT or a spot notice           stopped    the same at once: there is nothing to drain
    waiting

An engine counts as dead when /health says 503, or when a node without any request fails two short requests in a row:
after some faults vLLM's /health stays green for ever while every completion is a 500.

A port on which somebody else listens counts as a start that failed, and /health counts where our own server answers.
When to stop, and how much time is left for it, stands in shutdown.py.
"""

import asyncio
import contextlib
import os
import random
import signal
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from workers.errors import NodeFailed
from workers.gpus.telemetry import RecordGpus
from workers.launch.backoff import Backoff
from workers.launch.node_api import NodeApi
from workers.launch.output import LineReader, named_pipe
from workers.launch.plan import LaunchPlan
from workers.launch.port import foreign_listener, port_fault
from workers.launch.progress import Step, is_news, read_line
from workers.launch.record import NodeRecord
from workers.launch.shutdown import Shutdown
from workers.launch.spot import NoticeSource, notices_of
from workers.launch.tryout import TryOut
from workers.launch.watch import IDLE_POLL_SECONDS, poll_exit, wait_for_death, wait_for_health, wait_until_idle
from workers.node_process import NodeProcess
from workers.registry import Registry

Say = Callable[[str], None]
STARTING_STOP_SECONDS = 5.0
"""Between SIGTERM and SIGKILL of a server that never was ready: it serves nobody, and may not listen yet."""
CANARY_SECONDS = 10.0
"""A first server that ends within these after a canary that failed has died of it."""
FORWARDED = (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


class Supervisor:
    """One node's life. `say` takes the launcher's own lines, `log` those of the server."""

    def __init__(
        self, plan: LaunchPlan, registry: Registry, say: Say, log: Say, gpus: RecordGpus = lambda: None
    ) -> None:
        """Nothing is started before `run`. `gpus` gives what the record says of the GPUs."""
        self._plan = plan
        self._say = say
        self._log = log
        self._record = NodeRecord(plan, registry, say, gpus)
        self._api = NodeApi(plan.local_url, plan.served_name, plan.api_key)
        self._tryout = TryOut(plan, self._api, self._record, say)
        self._shutdown = Shutdown(plan.patience, say)
        self._process: NodeProcess | None = None
        self._last_step: Step | None = None
        self._exit_code = 0

    async def run(self, notices: Sequence[NoticeSource] = ()) -> int:
        """Run until stopped (0), or until starting again has become pointless (1) or is not wanted (the server's code
        as a shell tells it, 1 for a server that ended well without being asked).
        """
        self._take_signals()
        background = [asyncio.create_task(self._record.beat())]
        background += [asyncio.create_task(self._heed(source)) for source in notices]
        try:
            return await self._live()
        finally:
            await self._record.withdraw()
            for task in background:
                task.cancel()
            await asyncio.gather(*background, return_exceptions=True)
            await self._api.close()

    async def _live(self) -> int:
        backoff = Backoff(self._plan.patience.startups, first_seconds=self._plan.patience.backoff)
        while True:
            ready_since = await self._one_life()
            if self._is_stopping:
                return 0
            of_canary = self._tryout.has_killed and backoff.failures == 0 and (ready_since or 0.0) < CANARY_SECONDS
            if self._plan.once and not of_canary:
                await self._record.change(state="failed")
                return self._exit_code or 1
            backoff = backoff.after(ready_since)
            if backoff.gives_up:
                await self._record.change(state="failed")
                self._say(f"gave up after {backoff.barren} starts that never got ready")
                return 1
            delay = backoff.delay(random.random())
            self._say(f"starting again in {delay:.1f} s")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._shutdown.ordered.wait(), delay)
                return 0

    async def _one_life(self) -> float | None:
        """One process from start to end. Returns for how many seconds it was ready, None if it never was."""
        await self._record.change(state="starting", drain_deadline=None)
        self._last_step = None
        if (fault := port_fault(self._plan.binding.host, self._plan.binding.port)) is not None:
            self._say(fault)
            return None
        with named_pipe() as (output, reader):
            lines = LineReader(reader, self._read_log)
            try:
                ready_seconds = await self._watch_over(self._start(output))
                grace = self._shutdown.stop_seconds
                await self._end(grace if ready_seconds is not None else min(grace, STARTING_STOP_SECONDS))
                return ready_seconds
            finally:
                await self._end(0.0)
                lines.close()

    async def _watch_over(self, process: NodeProcess) -> float | None:
        if not await self._comes_up(process):
            return None
        ready_at = time.monotonic()
        patience = self._plan.patience
        death = await self._first(wait_for_death(process, self._api, patience.watch, patience.proof))
        if death is not None:
            self._say(death)
            await self._record.change(state="starting")
        else:
            await self._drain(process)
        return time.monotonic() - ready_at

    def _start(self, output: Path) -> NodeProcess:
        try:
            self._process = NodeProcess(self._plan.command, self._plan.environment, Path.cwd(), output)
        except OSError as error:
            raise NodeFailed(f"cannot start {self._plan.command[0]}: {error}") from error
        self._say(f"started process {self._process.pid}")
        return self._process

    async def _comes_up(self, process: NodeProcess) -> bool:
        """Wait until the node answers and was tried. False if it ended, took too long, or is to stop."""
        started = time.monotonic()
        try:
            async with asyncio.timeout(self._plan.patience.startup):
                ended = await self._first(poll_exit(process), self._own_server_answers(process))
                if ended is not None or self._is_stopping:
                    self._say(ended or "stopped before it was ready")
                    return False
                self._say(f"healthy after {time.monotonic() - started:.1f} s")
                ended = await self._first(poll_exit(process), self._tryout.run())
        except TimeoutError:
            self._say(f"not ready after {self._plan.patience.startup:.0f} s")
            return False
        if self._record.is_ready:
            return True  # also where it ended or is to stop in this moment: gateways may have read the record
        if ended is not None or self._is_stopping:
            self._say(ended or "stopped before it was ready")
        return False

    async def _own_server_answers(self, process: NodeProcess) -> None:
        """Return when /health is 200 and our own server says so: another one may have taken the port meanwhile."""
        told = None
        while True:
            await wait_for_health(self._api)
            foreign = await asyncio.to_thread(foreign_listener, self._plan.local_url, process.pid)
            if foreign is None:
                return
            if foreign != told:
                self._say(f"{self._plan.local_url} is answered by {foreign}, which this launcher did not start")
                told = foreign
            await asyncio.sleep(IDLE_POLL_SECONDS)

    async def _drain(self, process: NodeProcess) -> None:
        """Wait until no request is left, the process ends, or the time is over, which may come closer meanwhile."""
        idle = asyncio.create_task(wait_until_idle(self._api, self._plan.patience.settle))
        ended = asyncio.create_task(poll_exit(process))
        try:
            while True:
                self._shutdown.sooner.clear()
                await self._record.change(state="draining", drain_deadline=time.time() + self._shutdown.drain_left)
                sooner = asyncio.create_task(self._shutdown.sooner.wait())
                left = self._shutdown.drain_left  # not what it was before the registry answered
                await asyncio.wait([idle, ended, sooner], timeout=left, return_when=asyncio.FIRST_COMPLETED)
                sooner.cancel()
                if ended.done():
                    return self._say(ended.result())
                if idle.done():
                    return self._say("drained")
                if self._shutdown.drain_left == 0:
                    return self._say("stopping although requests are still running")
        finally:
            for task in (idle, ended):
                task.cancel()
            await asyncio.gather(idle, ended, return_exceptions=True)

    async def _end(self, grace_seconds: float) -> None:
        """End the process group, whatever state it is in."""
        process, self._process = self._process, None
        if process is not None:
            code = await asyncio.to_thread(process.end, grace_seconds)
            self._exit_code = code if code >= 0 else 128 - code
            self._say(f"the server ended with code {code}")

    async def _first(self, *waits: Awaitable[str | None]) -> str | None:
        """What the wait that ends first says; None if that is the wish to stop, or a wait that says nothing."""
        tasks = [asyncio.ensure_future(wait) for wait in (*waits, self._stopped())]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            results = [task.result() for task in done]
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        return next((result for result in results if result is not None), None)

    async def _stopped(self) -> None:
        await self._shutdown.ordered.wait()

    @property
    def _is_stopping(self) -> bool:
        return self._shutdown.ordered.is_set()

    async def _heed(self, source: NoticeSource) -> None:
        async for notice in notices_of(source, self._say):
            self._shutdown.take_notice(notice)

    def _take_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._shutdown.take_signal, number.name)
        for number in FORWARDED:
            loop.add_signal_handler(number, self._forward, number)

    def _forward(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.exit_code() is None:
            os.kill(self._process.pid, number)

    def _read_log(self, line: str) -> None:
        self._log(line)
        step = read_line(line)
        if step is not None and is_news(step, self._last_step):
            percent = "" if step.percent is None else f" {step.percent}%"
            self._say(f"[{step.phase}] {step.told}{percent}")
            self._last_step = step
