"""The candidates of a request among many nodes: a few, found at a cost that does not grow with their number.

    of a sample                      why
    the conversation's last node     it has the longest part of the prompt in its cache
    `HOMES` of the hash ring         where the conversation goes if all else is equal: alike in all gateways
    `LEAST` of the least loaded      as the process counts: its own requests, and others' as it heard last
    `DRAWN` at random                what is known of others is a moment old; gateways do not rush one node

The sample is then judged as a small fleet is, by exact facts (`selection.expected_wait`, `lua/choose.lua`). A fleet of
up to `WHOLE` nodes is not sampled: all its nodes are candidates.

Where a node stands is told with each change (`put`), so nothing here is searched:

    standing    what it is                                                 a candidate
    FREE        ready, and has a place                                     first
    ROOMY       ready, within its bound, but warms up                      where none is free
    BUSY        the same, and says itself that its queue is full           where none is roomy
    FULL        ready, at its bound                                        of a request that moves only
    OUT         not ready, within its bound                                where none is ready
    OUT_FULL    not ready, at its bound                                    the same, of a request that moves
    DRAINED     gets no new work                                           never
"""

from collections.abc import Collection, Hashable
from typing import Final, Generic, TypeVar

from gateway.core.routing.hash_ring import HashRing
from gateway.core.routing.load_rows import IndexedSet, LoadRows

WHOLE: Final = 16
"""Nodes of a model up to which all are looked at."""

HOMES: Final = 2
LEAST: Final = 3
DRAWN: Final = 2

STEPS: Final = 16
"""Points of the ring that are looked at, at the most, for homes that are free."""

FREE: Final = 0
ROOMY: Final = 1
BUSY: Final = 2
FULL: Final = 3
OUT: Final = 4
OUT_FULL: Final = 5
DRAINED: Final = 6

T = TypeVar("T", bound=Hashable)


class NodeSample(Generic[T]):
    """All nodes of one model, in the order of their standing and load."""

    __slots__ = ("_rest", "_ring", "_weights", "free", "spread")

    def __init__(self) -> None:
        self.free: LoadRows[T] = LoadRows()
        self.spread: IndexedSet[T] = IndexedSet()
        """The free ones again, to draw from."""
        self._rest: list[IndexedSet[T]] = [IndexedSet() for _ in range(DRAINED + 1)]
        self._ring: HashRing[T] = HashRing()
        self._weights: dict[T, float] = {}

    def __contains__(self, node: object) -> bool:
        return node in self._weights

    def __len__(self) -> int:
        return len(self._weights)

    def join(self, node: T, name: str, weight: float) -> None:
        """It serves the model, and has this weight; `put` follows."""
        if self._weights.get(node) != weight:
            self._weights[node] = weight
            self._ring.add(node, name, weight)

    def leave(self, node: T) -> None:
        """It serves the model no more."""
        self._weights.pop(node, None)
        self._ring.remove(node)
        self._remove(node)

    def put(self, node: T, standing: int, load: float) -> None:
        """`load` in seconds, for those that are free; infinite where it counts as full, as all gateways count."""
        if standing == FREE and node in self.spread:
            self.free.put(node, load)
            return
        self._remove(node)
        if standing == FREE:
            self.spread.add(node)
            self.free.put(node, load)
        else:
            self._rest[standing].add(node)

    def count(self, standing: int) -> int:
        return len(self.spread) if standing == FREE else len(self._rest[standing])

    def standing(self, standing: int) -> list[T]:
        """All that stand so, in no order. Not to be changed."""
        return self.spread.items if standing == FREE else self._rest[standing].items

    def some(self, standing: int, count: int, draw: float) -> list[T]:
        """Up to `count` that stand so, those that `draw`, in [0, 1), says."""
        return (self.spread if standing == FREE else self._rest[standing]).some(count, draw)

    def sample(
        self, last: T | None, conversation: bytes, draws: tuple[float, float], tried: Collection[T], among: int = 0
    ) -> list[T]:
        """Some that are free, the one that is preferred among equals first; none only where all that are free were
        `tried`. `last`: the node of the conversation's last turn. `draws` are uniform in [0, 1)."""
        found = [last] if last is not None and last in self.spread else []
        found += self.homes(conversation, tried)
        found += self.free.least(LEAST + len(tried), draws[0], among)
        found += self.spread.some(DRAWN, draws[1])
        return [node for node in dict.fromkeys(found) if node not in tried]

    def homes(self, conversation: bytes, tried: Collection[T]) -> list[T]:
        """The conversation's homes that are free, `HOMES` at the most."""
        found: list[T] = []
        steps = STEPS
        for node in self._ring.walk(conversation):
            if node in self.spread and node not in found and node not in tried:
                found.append(node)
            steps -= 1
            if len(found) == HOMES or not steps:
                break
        return found

    def _remove(self, node: T) -> None:
        if node in self.spread:
            self.spread.discard(node)
            self.free.discard(node)
            return
        for rest in self._rest:
            rest.discard(node)
