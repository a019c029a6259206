"""The latest times to the first token of each node, measured by this process."""

from collections import deque
from collections.abc import Sequence

from gateway.core.telemetry.request_stats import RequestStats

KEPT = 256
"""Streams of each node."""


class RecentTtft:
    """Times of streams only: the first byte of a plain answer comes with its last. They do not expire."""

    def __init__(self) -> None:
        self._seconds: dict[str, deque[float]] = {}

    def note(self, ended: Sequence[RequestStats]) -> None:
        """Add requests that have ended."""
        for event in ended:
            if event.stream and event.ttft is not None and event.node is not None:
                self._seconds.setdefault(event.node, deque(maxlen=KEPT)).append(event.ttft)

    def waits(self, node: str) -> tuple[float, ...]:
        """Seconds to the first token of the node's latest streams, the last one at the end."""
        return tuple(self._seconds.get(node, ()))

    def keep(self, nodes: set[str]) -> None:
        """Forget the nodes that are not in `nodes`."""
        for name in self._seconds.keys() - nodes:
            del self._seconds[name]
