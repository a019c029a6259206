"""Reads bodies of many values in a process of its own, one at a time: the event loop only hands bytes over.

    event                               effect
    the first such body                 the process is started
    a body while another one is read    waits; one body of a tenant at a time, so that no tenant's many hold up others
    the client leaves                   its request ends at once. A body that is being read is read to its end
    no answer within `PATIENCE`         the process is killed, its request gets 503, the next one another process
    the process ends                    the same
    the gateway stops                   the process is killed

What waits is held as memory of its request, as is what the process needs to parse it.
"""

import asyncio
import contextlib
import marshal
import os
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from weakref import WeakValueDictionary

import structlog

from gateway.core.dialects import Dialect
from gateway.core.errors import BodyUnread
from gateway.core.reading.outlining import Outlined, Refusal
from gateway.reading.frames import ANSWER, REQUEST

log = structlog.get_logger("fleetgate.reading")

PATIENCE = 60.0
"""Seconds for one body, the start of the process included: a value takes half a microsecond."""


class BodyReader:
    """The process, and who waits for it."""

    def __init__(self) -> None:
        """Nothing is started before the first body."""
        self._lanes: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._free = asyncio.Lock()
        self._process: Process | None = None
        self._closed = False
        self._reading: set[asyncio.Task[Outlined | Refusal]] = set()

    @property
    def pid(self) -> int | None:
        """Of the process, where one is there."""
        return None if self._process is None else self._process.pid

    @property
    def unwritten(self) -> int:
        """Bytes that the process has not taken yet."""
        process = self._process
        return 0 if process is None or process.stdin is None else process.stdin.transport.get_write_buffer_size()

    async def read(self, dialect: Dialect, raw: bytes, owner: str) -> Outlined | Refusal:
        """What the process says of `raw`. Raises `BodyUnread` where it ends, or takes too long."""
        lane = self._lanes.get(owner)
        if lane is None:
            lane = self._lanes[owner] = asyncio.Lock()
        async with lane:
            await self._free.acquire()
            # A task of its own: where the caller leaves, the process reads on, and its answer has to be taken.
            task = asyncio.create_task(self._exchange(dialect, raw), name="body read")
            self._reading.add(task)
            task.add_done_callback(self._reading.discard)
            del raw
            return await asyncio.shield(task)

    async def stop(self) -> None:
        """Kill the process."""
        self._closed = True
        await self._kill()
        await asyncio.gather(*self._reading, return_exceptions=True)

    async def _exchange(self, dialect: Dialect, raw: bytes) -> Outlined | Refusal:
        try:
            async with asyncio.timeout(PATIENCE):
                process = await self._running()
                assert process.stdin is not None and process.stdout is not None
                name = dialect.name.encode()
                process.stdin.write(REQUEST.pack(len(name), len(raw)) + name)
                process.stdin.write(raw)
                await process.stdin.drain()
                (length,) = ANSWER.unpack(await process.stdout.readexactly(ANSWER.size))
                answer = await process.stdout.readexactly(length)
        except (OSError, TimeoutError, asyncio.IncompleteReadError) as error:
            await self._kill()
            log.warning("body_reader_lost", reason=type(error).__name__, bytes=len(raw))
            raise BodyUnread("The process that reads large bodies ended; retry in 1 s.", retry_after=1.0) from None
        except BaseException:
            await self._kill()  # whatever comes next from it is not the next body's answer
            raise
        finally:
            self._free.release()
        outlined, fields = marshal.loads(answer)
        return Outlined(*fields) if outlined else Refusal(*fields)

    async def _running(self) -> Process:
        process = self._process
        if process is None or process.returncode is not None:
            if self._closed:
                raise ConnectionResetError
            paths = os.pathsep.join(path or os.getcwd() for path in sys.path)  # noqa: PTH109
            self._process = process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-P", "-m", "gateway.reading.child"),  # -P: nothing of the working directory
                stdin=PIPE,
                stdout=PIPE,
                stderr=DEVNULL,  # a traceback can quote a prompt
                env={**os.environ, "PYTHONPATH": paths},
            )
            if self._closed:  # meanwhile
                raise ConnectionResetError
        return process

    async def _kill(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
