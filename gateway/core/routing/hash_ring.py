"""A ring of hashes: each conversation's homes among any number of nodes, found without looking at all of them.

Consistent hashing (Karger et al., 1997): a node has points on a ring of 64 bits, as many as its weight says, and a
conversation's homes are the nodes of the next points behind its own. A node that comes or goes moves only what is its
own, and gateways with the same nodes agree.
"""

from array import array
from bisect import bisect_left
from collections.abc import Hashable, Iterator
from hashlib import blake2b
from typing import Generic, TypeVar

POINTS = 32
"""Points of a node of weight 1: its share of the conversations is then within a fifth of an even one, mostly."""

HEAVIEST = 16.0
"""Times that number which a node may have at the most."""

T = TypeVar("T", bound=Hashable)


class HashRing(Generic[T]):
    """To add or remove a node costs `POINTS` searches, and so many moves within a list; to walk it one search."""

    __slots__ = ("_nodes", "_of", "_points")

    def __init__(self) -> None:
        self._points = array("Q")
        """In order: 8 bytes each, where a list of integers takes 44."""
        self._nodes: list[T] = []
        """Whose each point is."""
        self._of: dict[T, array[int]] = {}

    def add(self, node: T, name: str, weight: float) -> None:
        """`name`: the same in all gateways."""
        self.remove(node)
        count = max(1, round(POINTS * min(weight, HEAVIEST)))
        points = self._of[node] = array("Q")
        for number in range(0, count, 8):
            digest = blake2b(b"%d|%b" % (number, name.encode()), digest_size=64).digest()
            for at in range(min(8, count - number)):
                points.append(int.from_bytes(digest[8 * at : 8 * at + 8], "big"))
        for point in points:
            at = bisect_left(self._points, point)
            self._points.insert(at, point)
            self._nodes.insert(at, node)

    def remove(self, node: T) -> None:
        """Nothing happens where it is not there."""
        for point in self._of.pop(node, ()):
            at = bisect_left(self._points, point)
            while self._nodes[at] != node:  # two nodes' points may be the same
                at += 1
            del self._points[at], self._nodes[at]

    def walk(self, conversation: bytes) -> Iterator[T]:
        """The nodes of the points behind the conversation's, once around; a node comes as often as it has points."""
        if not self._points:
            return
        start = bisect_left(self._points, int.from_bytes(conversation[:8], "big"))
        for at in range(len(self._nodes)):
            yield self._nodes[(start + at) % len(self._nodes)]
