"""What other gateways say of the requests that wait there: how many of each class.

One line of text for each gateway travels through Redis with its question for a place (`routing/lua/choose.lua`):
`until|class|counter|requests|slack|class=requests,class=requests`, of which the last part is read here.
"""

from collections.abc import Iterable, Mapping

VALID = 1.0
"""Seconds for which what was said counts here: a gateway where nobody waits asks nothing, and hears nothing."""


def spell_facts(waiting: Mapping[str, int]) -> str:
    """`waiting`: requests by class."""
    return ",".join(f"{name}={count}" for name, count in waiting.items() if count)


class PeerQueues:
    """The waiting requests of one model at other gateways, as they said last."""

    def __init__(self) -> None:
        self._at = float("-inf")
        self._waiting: dict[str, int] = {}

    def update(self, lines: Iterable[bytes], now: float) -> None:
        self._at = now
        self._waiting = {}
        for line in lines:
            self._add(line.decode("utf-8", "replace"))

    def _add(self, line: str) -> None:
        try:
            for pair in filter(None, line.rpartition("|")[2].split(",")):
                name, _, count = pair.partition("=")
                self._waiting[name] = self._waiting.get(name, 0) + int(count)
        except ValueError:  # of a version that says it otherwise
            return

    def waiting(self, now: float, service_class: str | None = None) -> int:
        """How many wait, in `service_class` or in all."""
        if now >= self._at + VALID:
            return 0
        return sum(self._waiting.values()) if service_class is None else self._waiting.get(service_class, 0)
