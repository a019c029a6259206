"""The client's side of a request, as the relay needs it, and what the relay notes about the request."""

from collections.abc import Callable
from typing import Protocol

from gateway.core.usage.token_usage import ObservedWork, Usage
from gateway.fleet.node import PrefillTracker

Headers = list[tuple[bytes, bytes]]


class ClientListener(Protocol):
    """What the client's side tells an exchange."""

    def on_gone(self) -> None: ...
    def on_full(self) -> None:
        """More was written than it takes now: no more until `on_writable`. Told within the write."""

    def on_writable(self) -> None: ...


class Downstream(Protocol):
    """The client's side of a request, as the relay needs it. None of these waits."""

    listener: ClientListener | None
    gone: bool

    @property
    def started(self) -> bool:
        """Whether the head was sent."""

    def hold(self, length: int, rewritten: bytes | None = None) -> None:
        """So many more bytes of the answer are kept until it is whole; `rewritten` is what will be parsed of it. Raises
        `MemoryFull` and `AnswerTooLarge`."""

    def start(self, status: int, headers: Headers, stream: bool) -> None:
        """Send the head; `stream` where events follow, so that an error can be one of them."""

    def push(self, data: bytes) -> bool:
        """Send a piece of the body; False asks for no more until `on_writable`."""

    @property
    def write_chunk(self) -> Callable[[bytes], None] | None:
        """What sends a piece of the body that is an HTTP chunk already, from now on; None where it is to be pushed."""

    def finish(self, data: bytes = b"") -> None:
        """Send the last piece of the body."""


class RequestStats:
    """What the relay notes about a request for its record; `first_byte` as `time.perf_counter` tells it.

    `failures`: node and outcome of every attempt that failed; `retry_refused`: there was no budget for another one.
    `sent`: a node was asked. `answered`: the client has got bytes of what the node is asked now, so that asking again
    would repeat them.
    `wasted`: tokens of thinking that a node made and nobody gets. `overran`: it thought far beyond a budget that it had
    proven to hold. `lost`: seconds for which nodes worked on plain answers that they did not finish, `lost_events` what
    they streamed of others. `work`: what was seen of the last node's.
    """

    __slots__ = (
        "answered",
        "attempts",
        "failures",
        "first_byte",
        "lost",
        "lost_events",
        "node",
        "node_failed",
        "overran",
        "prefill",
        "retry_refused",
        "sent",
        "usage",
        "wasted",
        "work",
    )

    def __init__(self) -> None:
        self.node: str | None = None
        self.attempts = 0
        self.failures: tuple[tuple[str, str], ...] = ()
        self.retry_refused = False
        self.sent = False
        self.answered = False
        self.first_byte: float | None = None
        self.prefill: PrefillTracker | None = None
        self.usage: Usage | None = None
        self.wasted = 0
        self.overran = False
        self.lost = 0.0
        self.lost_events = 0
        self.work = ObservedWork()
        self.node_failed = False

    def begin_again(self) -> None:
        """Another attempt follows: what the last one made is nobody's."""
        self.lost_events += self.work.events
        self.work = ObservedWork()
        self.usage = None
