"""The life of a machine that only lends its GPUs to the head's Ray: start, start again, end with the launcher."""

import asyncio
import contextlib
import random
import signal
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from workers.errors import MissingTool
from workers.launch.backoff import Backoff
from workers.launch.output import LineReader, named_pipe
from workers.launch.watch import poll_exit
from workers.node_process import NodeProcess

STOP_SECONDS = 30.0

Say = Callable[[str], None]


async def keep_joined(command: Sequence[str], environment: Mapping[str, str], say: Say, first_delay: float) -> int:
    """Run `command` until SIGTERM or SIGINT, again whenever it ends: the head may come up later, or come back."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    backoff = Backoff(most=0, first_seconds=first_delay)
    while not stop.is_set():
        started = loop.time()
        await _one_life(command, environment, say, stop)
        backoff = backoff.after(loop.time() - started)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), backoff.delay(random.random()))
    return 0


async def _one_life(command: Sequence[str], environment: Mapping[str, str], say: Say, stop: asyncio.Event) -> None:
    with named_pipe() as (output, reader):
        lines = LineReader(reader, say)
        try:
            process = NodeProcess(command, environment, Path.cwd(), output)
        except FileNotFoundError as missing:
            lines.close()
            raise MissingTool(f"{command[0]} is not installed") from missing
        ended = asyncio.create_task(poll_exit(process))
        stopped = asyncio.create_task(stop.wait())
        await asyncio.wait([ended, stopped], return_when=asyncio.FIRST_COMPLETED)
        for task in (ended, stopped):
            task.cancel()
        await asyncio.gather(ended, stopped, return_exceptions=True)
        code = await asyncio.to_thread(process.end, STOP_SECONDS)
        lines.close()
        say(f"{command[0]} ended with code {code}")
