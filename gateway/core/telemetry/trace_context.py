"""W3C trace context: the headers `traceparent` and `tracestate`, as they come from clients and go to nodes.

from the client                       to the node, traces off    to the node, traces on
none, several, or none valid          none                       a new trace; `tracestate` stays here
a later version than 00               its fields, as version 00  the same trace
valid                                 the same                   the same trace; the parent is the attempt's span
"""

import re
from binascii import hexlify
from collections.abc import Iterable, Mapping
from typing import Final

_PARENT: Final = re.compile(rb"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-[!-~]{0,200})?")
_STATE: Final = re.compile(rb"[ !-~\t]*")

MAX_STATE: Final = 512
MAX_MEMBERS: Final = 32
"""Of `tracestate`: what the recommendation asks everybody to pass on; what is longer is cut behind a whole member."""

SAMPLED: Final = 1


class TraceContext:
    """`trace`, `parent`: 128 and 64 bits. `state`: what goes with them, bounded."""

    __slots__ = ("parent", "sampled", "state", "trace")

    def __init__(self, trace: int, parent: int, sampled: bool, state: bytes) -> None:
        self.trace = trace
        self.parent = parent
        self.sampled = sampled
        self.state = state


def read_context(headers: Mapping[bytes, bytes]) -> TraceContext | None:
    """The context of a client's `headers`; None where there is none that is valid."""
    given = headers.get(b"traceparent")
    if given is None:
        return None
    found = _PARENT.fullmatch(given)
    if found is None or found[1] == b"ff" or (found[1] == b"00" and found[5] is not None):
        return None
    trace, parent = int(found[2], 16), int(found[3], 16)
    if not trace or not parent:
        return None
    return TraceContext(trace, parent, bool(int(found[4], 16) & SAMPLED), bounded_state(headers.get(b"tracestate")))


def merge_context(fields: Iterable[tuple[bytes, bytes]], headers: dict[bytes, bytes]) -> None:
    """Make of `fields` with a name that stands twice the context in `headers`, as W3C has it: lists of `tracestate` are
    one list, in their order; of several `traceparent` none is valid."""
    parents, states = [], []
    for name, value in fields:
        if name == b"traceparent":
            parents.append(value)
        elif name == b"tracestate":
            states.append(value)
    if len(parents) > 1:
        del headers[b"traceparent"]
    if len(states) > 1:
        headers[b"tracestate"] = b",".join(states)


def bounded_state(given: bytes | None) -> bytes:
    """`tracestate` within its bounds, cut at its end; empty where it is none."""
    if not given or _STATE.fullmatch(given[: MAX_STATE + 1]) is None:
        return b""
    kept: list[bytes] = []
    length = 0
    for member in given[: MAX_STATE + 1].split(b",")[:-1] if len(given) > MAX_STATE else given.split(b","):
        member = member.strip()
        length += len(member) + 1
        if length > MAX_STATE or len(kept) == MAX_MEMBERS:
            break
        if member:
            kept.append(member)
    return b",".join(kept)


def trace_lines(trace: int, parent: int, sampled: bool, state: bytes) -> bytes:
    """The header lines of a request to a node."""
    line = b"traceparent: 00-%032x-%016x-%02x\r\n" % (trace, parent, sampled)
    return line + b"tracestate: " + state + b"\r\n" if state else line


def unrecorded_lines(ids: int) -> bytes:
    """The header line of a new trace that is not recorded. `ids`: 192 bits, the trace and the parent. Every request
    has one where traces are on: this takes a third of the time of `trace_lines`."""
    return b"traceparent: 00-" + hexlify(ids.to_bytes(24, "big"), b"-", -16) + b"-00\r\n"


def passed_lines(headers: Mapping[bytes, bytes]) -> bytes:
    """The header lines that pass a client's valid context on as it is."""
    found = read_context(headers)
    return b"" if found is None else trace_lines(found.trace, found.parent, found.sampled, found.state)
