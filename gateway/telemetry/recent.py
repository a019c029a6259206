"""What this process saw of each node of late: times to the first token, and answers that broke off."""

from array import array
from collections.abc import Iterable, Sequence

from gateway.core.errors import ClientGone
from gateway.core.fleet.peer_view import AnswerBreaks, add_up
from gateway.core.telemetry.request_stats import RequestStats
from gateway.telemetry.batches import NONE

KEPT = 256
"""Streams of each node."""

TTFT_SECONDS = 600.0
"""For how long a time to the first token is shown."""

BREAK_MINUTES = 10
"""For how long an answer that broke off is shown, to the minute."""

_UNHARMED = frozenset({"ok", ClientGone.default_code})
"""Endings of answers that nodes did not fail."""


class RecentTtft:
    """Times of streams only: the first byte of a plain answer comes with its last."""

    def __init__(self) -> None:
        self._seconds: dict[str, array[float]] = {}
        """By node, by turns: when a stream ended, and its time to the first token. In objects they would be 28 KB."""

    def note(self, ended: Sequence[RequestStats], now: float) -> None:
        """Add requests that have ended by `now`, in seconds of a monotonic clock."""
        for event in ended:
            if event.stream and event.ttft is not None and event.node is not None:
                kept = self._seconds.setdefault(event.node, array("d"))
                kept.extend((now, event.ttft))
                if len(kept) > 2 * KEPT:
                    del kept[:2]

    def waits(self, node: str, now: float) -> tuple[float, ...]:
        """Seconds to the first token of the streams that ended there in the last `TTFT_SECONDS`, at most `KEPT` of
        them, the last one at the end."""
        kept = self._seconds.get(node)
        if kept is None:
            return ()
        return tuple([ttft for at, ttft in zip(kept[::2], kept[1::2], strict=True) if now - at <= TTFT_SECONDS])

    def keep(self, nodes: set[str]) -> None:
        """Forget the nodes that are not in `nodes`."""
        for name in self._seconds.keys() - nodes:
            del self._seconds[name]


class RecentBreaks:
    """The answers that broke off in the last `BREAK_MINUTES`, counted by minute, node and model. Nodes that have left
    the fleet are counted, too."""

    def __init__(self) -> None:
        self._minutes: dict[int, dict[tuple[str, str], AnswerBreaks]] = {}

    def __len__(self) -> int:
        """Minutes with a break."""
        return len(self._minutes)

    def note(self, ended: Iterable[RequestStats], now: float) -> None:
        """Add requests that have ended. `now` is in seconds, by a clock that does not jump."""
        for event in ended:
            if event.resumes or event.failures:
                self._note(event, now)

    def by_node(self, now: float) -> dict[str, tuple[AnswerBreaks, ...]]:
        """The breaks of each node that has any, one entry a model."""
        self._forget(now)
        found: dict[str, list[AnswerBreaks]] = {}
        for minute in self._minutes.values():
            for (node, _), breaks in minute.items():
                found.setdefault(node, []).append(breaks)
        return {node: add_up(breaks) for node, breaks in found.items()}

    def _note(self, event: RequestStats, now: float) -> None:
        """A break may be followed by resumes that failed before a token came: it is one, of the node that had a stream
        to lose."""
        failed = event.ending not in _UNHARMED
        source: str | None = None
        for note in event.resumes:
            source = source or note.source
            if note.outcome == "resumed":
                self._add(source, event.model, True, False, now)
                source = None
        if source is None and not event.resumes and failed and event.stream and event.status == 200:  # it had begun
            source = event.failures[-1][0]
        if source is not None:
            self._add(source, event.model, False, failed, now)

    def _add(self, node: str, model: str | None, resumed: bool, not_resumed: bool, now: float) -> None:
        self._forget(now)
        minute = self._minutes.setdefault(int(now // 60), {})
        name = model or NONE
        one = AnswerBreaks(name, 1, int(resumed), int(not_resumed))
        known = minute.get((node, name))
        minute[node, name] = one if known is None else add_up((known, one))[0]

    def _forget(self, now: float) -> None:
        for minute in [each for each in self._minutes if each <= now // 60 - BREAK_MINUTES]:
            del self._minutes[minute]
