"""A server's output through a pipe with a name: every line is passed on at once, nothing piles up on disk."""

import asyncio
import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

# Longer lines (a config dump) are passed on in pieces.
CHUNK_BYTES = 65_536


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
