"""HTTP chunks (RFC 9112, section 7.1) that are passed on as they came.

A node writes an event as one chunk, and the gateway would frame it alike. A chunk's size follows from the length of the
whole, so its size line is compared, not parsed.
"""

from typing import Final

LONGEST: Final = 4096
"""Bytes, the framing included, from which a chunk is left to the parser. Nearly every event is shorter."""

_END: Final = b"\r\n"
_NO_SIZE_LINE = b"-" * LONGEST
"""For lengths that no chunk has: too long for anything of that length to begin so."""


def _size_lines() -> tuple[bytes, ...]:
    lines = [_NO_SIZE_LINE] * LONGEST
    for size in range(1, LONGEST):
        line = b"%x\r\n" % size
        length = len(line) + size + len(_END)
        if length < LONGEST:
            lines[length] = line
    return tuple(lines)


SIZE_LINES: Final = _size_lines()
"""The size line of a chunk by its whole length. The last chunk of a body, which is empty, has none here."""

_LINES_OF_DATA: Final = tuple(b"%x\r\n" % size for size in range(LONGEST))
"""The size line of a chunk by the length of its data."""


def data_of_chunk(chunk: bytes) -> bytes:
    """The data of `chunk`; empty where `chunk` is not exactly one chunk framed as servers frame it, or is long."""
    length = len(chunk)
    if length < LONGEST:
        line = SIZE_LINES[length]
        if chunk.startswith(line) and chunk.endswith(_END):
            return chunk[len(line) : length - 2]
    return b""


def chunk_of(data: bytes) -> bytes:
    """`data`, which is shorter than `LONGEST`, as one chunk."""
    return b"".join((_LINES_OF_DATA[len(data)], data, _END))
