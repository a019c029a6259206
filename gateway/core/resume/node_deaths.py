"""Which nodes of a model have died lately, and of which requests that may have been.

Theory. A request that kills nodes shows by its deaths alone: it moves on, and the next node dies. So do the streams of
nodes that are killed from outside one after the other, by a spot market, a rack, a rollout. What tells them apart is
who else was there. A node dies of a request soon after it was sent: answers that had got on there are innocent.

    who was there when its nodes died                        the request
    no innocents: only its own answers break, nodes live     explains its deaths
    innocents, and no other request at all of these deaths   explains its deaths
    innocents, and another request at all of these deaths    may be innocent: either may be the killer
    nodes died with innocents where it was not, in `WINDOW`  is innocent: nodes die without it, unless each of those
                                                             deaths may be the work of other requests that kill

A request that gets on is no suspect of the deaths before. Where a request was ended for its deaths they are explained:
they tell nothing of others, but of those that were suspects at all of them, which may be the same request again.

A node that stalls is taken for dead where it stalled with innocents. A stall of one answer alone says nothing of its
node: a full queue and a broken network look the same from here.
"""

from collections import Counter, deque
from collections.abc import Iterator, Sequence
from itertools import count

TOGETHER = 1.0
"""Seconds behind the first within which a node's breaks are one death."""

STALLED_TOGETHER = 30.0
"""The same for stalls: those that have come to the node since it stands still are noticed later."""

WINDOW = 60.0
"""Seconds for which a death is remembered."""

MOST = 512
"""Deaths that are remembered at the most: where there are more, no request is the reason."""


class NodeDeath:
    """The node `node_name` broke off answers, first at `at` (seconds of any clock that does not go back).

    `suspects`: the numbers of the requests that had not got on there. `innocents`: of those that had. `explained`: a
    request was ended for it. `stalled`: its connections stayed, and nothing came. `missing`: it stalled, and left the
    gateway's own probes without an answer as well.
    """

    __slots__ = ("at", "explained", "innocents", "missing", "node_name", "stalled", "suspects")

    def __init__(self, node_name: str, at: float, stalled: bool) -> None:
        self.node_name = node_name
        self.at = at
        self.stalled = stalled
        self.suspects: set[int] = set()
        self.innocents: set[int] = set()
        self.explained = False
        self.missing = False

    def took_along(self, number: int) -> bool:
        """Whether an answer to another request than `number` broke off that had got on there."""
        return not self.innocents <= {number}

    def is_the_nodes(self, number: int) -> bool:
        """Whether the node broke off with more than the request `number`: with answers that had got on there, or where
        it stalled with any, or with its probes. What comes to a node that stands still has no time to get on."""
        return self.took_along(number) or (self.stalled and (self.missing or not self.suspects <= {number}))


class NodeDeaths:
    """Those of one model's nodes, as this process saw them."""

    __slots__ = ("_deaths", "_last", "_numbers")

    def __init__(self) -> None:
        self._deaths: deque[NodeDeath] = deque()
        self._last: dict[tuple[str, bool], NodeDeath] = {}
        """By node and `stalled`: its last one in the deque."""
        self._numbers = count()

    def number(self) -> int:
        """A number for one more request."""
        return next(self._numbers)

    def record(self, node_name: str, now: float, number: int, got_on: bool, stalled: bool = False) -> NodeDeath:
        """The answer to the request of `number` broke off at `now`. `got_on`: it had made some tokens on the node. That
        stays true of this death. `stalled`: it was silent for too long."""
        self._forget(now)
        death = self._last.get((node_name, stalled))
        if death is None or now > death.at + (STALLED_TOGETHER if stalled else TOGETHER):
            if len(self._deaths) == MOST:
                self._drop_oldest()
            death = self._last[node_name, stalled] = NodeDeath(node_name, now, stalled)
            self._deaths.append(death)
        if got_on:
            death.suspects.discard(number)
            death.innocents.add(number)
        elif number not in death.innocents and not (death.explained and death.innocents):
            death.suspects.add(number)
        return death

    def without(self, number: int, now: float) -> Iterator[NodeDeath]:
        """The deaths with innocents at which the request of `number` was no suspect, and that no request was ended
        for."""
        self._forget(now)
        return (death for death in self._deaths if _tells(death) and number not in death.suspects)

    def repeated(self, times: int) -> set[int]:
        """The requests that are suspects at so many deaths with innocents, or more: each may be a killer."""
        counts = Counter(number for death in self._deaths if _tells(death) for number in death.suspects)
        return {number for number, count in counts.items() if count >= times}

    def _forget(self, now: float) -> None:
        while self._deaths and now > self._deaths[0].at + WINDOW:
            self._drop_oldest()

    def _drop_oldest(self) -> None:
        oldest = self._deaths.popleft()
        place = oldest.node_name, oldest.stalled
        if self._last.get(place) is oldest:
            del self._last[place]


def explain(own: Sequence[NodeDeath]) -> None:
    """A request is ended for the deaths `own`, of which there is one at least."""
    twins = _common(own)
    for death in own:
        death.explained = True
        if death.innocents:
            death.suspects &= twins


def shared(own: Sequence[NodeDeath], number: int) -> bool:
    """Whether another request than `number` was a suspect at each of the deaths `own`, all of which had innocents."""
    return all(death.took_along(number) for death in own) and bool(_common(own) - {number})


def _common(deaths: Sequence[NodeDeath]) -> set[int]:
    """The suspects of all these deaths."""
    return set.intersection(*(death.suspects for death in deaths))


def _tells(death: NodeDeath) -> bool:
    return bool(death.innocents) and not death.explained
