"""Where `fleetgate logs` reads: a file, which may be rotated while it is followed, or standard input."""

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

LONGEST = 1 << 20
"""Bytes of one line; what is longer comes in pieces, none of which is a line of the log."""

POLL_SECONDS = 0.2


def lines_of(path: Path | None, follow: bool) -> Iterator[str]:
    """The lines of a file, or of standard input where `path` is None; with `follow` those that come, too, for ever.
    Raises OSError where the file cannot be read."""
    if path is None:
        while line := sys.stdin.buffer.readline(LONGEST):
            yield _text(line)
        return
    with path.open("rb") as file:
        yield from _lines(file, follow, path)
    while follow:  # another file has its name now
        try:
            with path.open("rb") as file:
                yield from _lines(file, follow, path)
        except FileNotFoundError:  # between the two steps of a rotation
            time.sleep(POLL_SECONDS)


def _lines(file: BinaryIO, follow: bool, path: Path) -> Iterator[str]:
    """Until the end of `file`; where it is followed, until it is another file that has its name."""
    begun = b""
    while True:
        piece = file.readline(LONGEST)
        begun += piece
        if begun.endswith(b"\n") or len(begun) >= LONGEST:
            yield _text(begun)
            begun = b""
        elif not piece:
            if not follow or _is_replaced(file, path):
                if begun:
                    yield _text(begun)
                return
            if os.fstat(file.fileno()).st_size < file.tell():  # copied and truncated
                file.seek(0)
                begun = b""
            time.sleep(POLL_SECONDS)


def _is_replaced(file: BinaryIO, path: Path) -> bool:
    try:
        now = path.stat()
    except FileNotFoundError:
        return False
    known = os.fstat(file.fileno())
    return (now.st_dev, now.st_ino) != (known.st_dev, known.st_ino) and not file.peek(1)  # type: ignore[attr-defined]


def _text(line: bytes) -> str:
    return line.decode("utf-8", "replace").rstrip("\r\n")
