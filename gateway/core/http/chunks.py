"""HTTP chunks (RFC 9112, section 7.1) that can go on as they stand: a server writes an event as one chunk, and that is
how the next server would write it.

A chunk's size is known from the length of the whole, so its first line needs no parsing: it is compared.
"""

LONGEST = 4096
"""Bytes of a chunk, its framing included, up to which it is known at sight: longer than nearly every event."""

END = b"\r\n"
_NEVER = b"-"
"""How no chunk begins."""


def _first_lines() -> tuple[bytes, ...]:
    found = [_NEVER] * LONGEST
    for size in range(1, LONGEST):
        line = b"%x\r\n" % size
        length = len(line) + size + len(END)
        if length < LONGEST:
            found[length] = line
    return tuple(found)


FIRST_LINES = _first_lines()
"""How a chunk begins that is so many bytes long with its framing; the last chunk, which is empty, is not among them."""


def start_of_data(framed: bytes) -> int:
    """Where the data begins in `framed` if that is exactly one chunk, written as servers write it; else 0.

    The data ends where the last two bytes begin. Where this gives 0 a parser has to look.
    """
    length = len(framed)
    if length < LONGEST:
        line = FIRST_LINES[length]
        if framed.startswith(line) and framed.endswith(END):
            return len(line)
    return 0
