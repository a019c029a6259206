"""Faults on demand: what a node can do wrong, and the board where the faults in force hang.

| kind | what happens | parameters |
|---|---|---|
| refuse | the port is closed, connections are refused; streams under way go on | seconds (0: until cleared) |
| status | the request is answered with an error status | status (500), seconds: `Retry-After` when > 0 |
| zombie | probes are green, every completion is 500 'cannot schedule new futures after shutdown' | |
| paused | the engine takes no new requests (`/pause`): probes are green, every completion is 503 | |
| hang | the request is read and never answered | |
| wedge | requests and the paced streams under way stand still until it is taken away, then go on | |
| stall | after `after` events (half of a plain body) nothing more comes, the connection stays | after |
| die | after `after` events (half of a plain body) the connection is cut (FIN) | after |
| reset | the same with a TCP reset; `after=-1`: before the head | after |
| exit | after `after` events the whole node is gone: a process exits, an in-process node drops everything | after |
| eof | after `after` events (half of a plain body) the body ends as if it were whole, without `[DONE]` | after |
| abort | after `after` tokens the answer ends with finish_reason `abort`, as the engine ends what it gives up | after |
| error_event | after `after` events an error event, then `[DONE]` | after |
| truncate | a plain body ends `size` bytes before its content-length | size |
| garbage | bytes that are not HTTP instead of an answer | |
| early | an answer (`status`, 413) before the request body is read, then the connection is closed | status |
| slow_read | the request body is read one chunk in `seconds` | seconds |
| slow_head | the answer begins `seconds` later | seconds |
| split | every event is written in pieces of `size` bytes, one TCP write each | size |
| coalesce | `size` events in one TCP write | size |
| comments | a keep-alive comment line before every `size`th event | size |
| crlf | lines of the stream end in CR LF | |

`part` (stall, die, reset, exit, eof): as much of the next event is still sent, 0.5 is half of it.
`scope`: generate (requests that make tokens; the default), probes (health, models, metrics, version), or all.
`next`: only the next N requests that it meets; 0 is no limit. `path`: only paths that start so.
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal, get_args

Kind = Literal[
    "refuse",
    "status",
    "zombie",
    "paused",
    "hang",
    "wedge",
    "stall",
    "die",
    "reset",
    "exit",
    "eof",
    "abort",
    "error_event",
    "truncate",
    "garbage",
    "early",
    "slow_read",
    "slow_head",
    "split",
    "coalesce",
    "comments",
    "crlf",
]
Scope = Literal["generate", "probes", "all"]
KINDS: frozenset[str] = frozenset(get_args(Kind))
BREAKS: tuple[Kind, ...] = ("stall", "die", "reset", "exit", "eof")
"""What ends an answer in its middle, without a word."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault; the table above says which numbers it reads. Raises ValueError for an unknown kind or scope."""

    kind: Kind
    after: int = 0
    next: int = 0
    seconds: float = 0.0
    status: int = 500
    size: int = 1
    scope: Scope = "generate"
    path: str = ""
    part: float = 0.0

    def __post_init__(self) -> None:
        if self.kind not in KINDS or self.scope not in get_args(Scope):
            raise ValueError(f"unknown fault {self.kind!r} or scope {self.scope!r}")

    def meets(self, path: str, scope: Scope) -> bool:
        """Whether a request on `path`, which is of `scope`, is hit."""
        return self.scope in (scope, "all") and path.startswith(self.path)


def read_fault(fields_given: Mapping[str, Any]) -> Fault:
    """A fault from JSON. Raises ValueError on a field or value that does not exist."""
    known = {f.name: f.type for f in fields(Fault)}
    unknown = fields_given.keys() - known.keys()
    if unknown or "kind" not in fields_given:
        raise ValueError(f"unknown fields {sorted(unknown)}" if unknown else "a fault needs a kind")
    return Fault(**fields_given)


def parse_fault(text: str) -> Fault:
    """A fault from a flag: `die:after=5,next=10`; `503` is short for `status:status=503`."""
    kind, _, rest = text.partition(":")
    given: dict[str, Any] = dict(part.split("=", 1) for part in rest.split(",") if part)
    for name in ("after", "next", "status", "size"):
        if name in given:
            given[name] = int(given[name])
    for name in ("seconds", "part"):
        if name in given:
            given[name] = float(given[name])
    if kind.isdigit():
        return read_fault({"kind": "status", "status": int(kind), **given})
    return read_fault({"kind": kind, **given})


class FaultBoard:
    """The faults in force; a fault with `next` leaves the board when it is used up."""

    def __init__(self, faults: Iterable[Fault] = ()) -> None:
        self._faults = list(faults)

    def set(self, *faults: Fault) -> None:
        """Puts exactly these faults in force."""
        self._faults = list(faults)

    def add(self, fault: Fault) -> None:
        """Puts one more fault in force."""
        self._faults.append(fault)

    def drop(self, kind: str) -> None:
        """Takes all faults of a kind away."""
        self._faults = [f for f in self._faults if f.kind != kind]

    def first(self, kind: Kind) -> Fault | None:
        """The first fault of a kind that is in force."""
        return find(self._faults, kind)

    def take(self, path: str, scope: Scope) -> tuple[Fault, ...]:
        """The faults that hit this request; counts them down."""
        if not self._faults:
            return ()
        hit = tuple(f for f in self._faults if f.meets(path, scope))
        self._faults = [g for f in self._faults if (g := _counted(f) if f in hit else f) is not None]
        return hit

    def snapshot(self) -> list[dict[str, Any]]:
        """What is in force, as JSON."""
        return [asdict(f) for f in self._faults]


def _counted(fault: Fault) -> Fault | None:
    if fault.next == 0:
        return fault
    return replace(fault, next=fault.next - 1) if fault.next > 1 else None


def find(faults: Iterable[Fault], *kinds: Kind) -> Fault | None:
    """The first of the faults that is of one of these kinds."""
    return next((f for f in faults if f.kind in kinds), None)
