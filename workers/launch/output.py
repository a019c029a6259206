"""A server's output through a pipe with a name, and on to ours: every line at once, nothing piles up on disk.

Whoever reads our output may stop reading: a paused pager, a log shipper that hangs. Then lines are lost, and not the
heartbeats, drains and notices that the same loop does.
"""

import asyncio
import contextlib
import os
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path

# Longer lines (a config dump) are passed on in pieces.
CHUNK_BYTES = 65_536
MOST_BYTES = 16_000_000
"""Of lines that wait to be written."""
LAST_SECONDS = 1.0


@contextlib.contextmanager
def named_pipe() -> Iterator[tuple[Path, int]]:
    """A FIFO's path for the server to write to, and our reading end. Both are gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="fleetgate-") as folder:
        path = Path(folder) / "output"
        os.mkfifo(path, mode=0o600)
        # Opened for both directions: a reader alone would see the end whenever no writer has it open.
        reader = os.open(path, os.O_RDWR | os.O_NONBLOCK)
        try:
            yield path, reader
        finally:
            os.close(reader)


class Outlet:
    """Lines to a file descriptor, written by a thread of their own; those that it has no room for are lost."""

    def __init__(self, descriptor: int) -> None:
        """`descriptor` stays the caller's."""
        self._descriptor = descriptor
        self._changed = threading.Condition()
        self._lines: deque[bytes] = deque()
        self._held = 0
        self._lost = 0
        self._closed = False
        # A daemon, and no buffered file with a lock: a write that is stuck must not keep this process from its end.
        self._writer = threading.Thread(target=self._write_all, name="output", daemon=True)
        self._writer.start()

    def write(self, line: str) -> None:
        """Pass a line on, or lose it: this never waits."""
        data = f"{line}\n".encode(errors="replace")
        with self._changed:
            if self._held + len(data) > MOST_BYTES:
                self._lost += 1
                return
            if self._lost:
                data = f"... {self._lost} lines were lost here, as nobody read them\n".encode() + data
                self._lost = 0
            self._held += len(data)
            self._lines.append(data)
            self._changed.notify()

    def close(self) -> None:
        """Give the last lines a moment."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._writer.join(LAST_SECONDS)

    def _write_all(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._lines or self._closed)
                if not self._lines:
                    return
                data = self._lines.popleft()
            size = len(data)
            with contextlib.suppress(OSError):  # a full disk, a reader that is gone: no node ends for it
                while data:
                    data = data[os.write(self._descriptor, data) :]
            with self._changed:
                self._held -= size


class LineReader:
    """Calls `take` with each line that arrives on a file descriptor, while the event loop runs."""

    def __init__(self, descriptor: int, take: Callable[[str], None]) -> None:
        """Start reading. `close` stops and passes on what is left."""
        self._descriptor = descriptor
        self._take = take
        self._rest = b""
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(descriptor, self._read)

    def close(self) -> None:
        """Stop reading, after everything that was written has been passed on."""
        while self._read():
            pass
        self._loop.remove_reader(self._descriptor)
        if self._rest:
            self._take(self._rest.decode(errors="replace"))
            self._rest = b""

    def _read(self) -> bool:
        try:
            data = os.read(self._descriptor, CHUNK_BYTES)
        except BlockingIOError:
            return False
        # A progress bar rewrites its line with carriage returns.
        *lines, self._rest = (self._rest + data).replace(b"\r", b"\n").split(b"\n")
        for line in lines:
            if line.strip():
                self._take(line.decode(errors="replace"))
        if len(self._rest) > CHUNK_BYTES:
            self._take(self._rest.decode(errors="replace"))
            self._rest = b""
        return True
