"""The order in which waiting requests of one model are served.

Theory. Every class, and within it every tenant, has a virtual counter: the tokens that it was served, each at its cost,
over its share. The next request is the oldest one of the tenant with the least counter, in the class with the least
counter (Sheng et al., "Fairness in Serving Large Language Models", OSDI 2024: service of two tenants that both wait
never differs by more than twice the bound that no work-conserving order can beat). Of tenants whose counters differ by
less than `SLACK` requests, the one with the fewest that wait goes first: who asks now and then is served at once.

    event                              effect on the counters
    a tenant begins to wait            its counter is lifted to the least of those that wait, or to the floor where
                                       none does, less twice the slack: idling earns next to nothing; its class's
                                       likewise, with nothing less
    a request gets a place             its planned cost is added; the floor rises to the counter that it had before
    it ends                            planned cost gives way to the real one
    a class has to yield               its requests are left out; its counter stays
    it has to yield no more            its counter is lifted, as if it had begun to wait: yielding earns nothing

The floor is the start tag of the last request that got a place (Goyal et al., "Start-time fair queuing", 1996).

A conversation may stay on its node: where a place on a node is free, a request of a conversation that was there last
may go before the one whose turn it is, as long as its tenant is not ahead by more than `PATIENCE` tokens (Cao et al.,
"Locality-aware fair scheduling in LLM serving", 2025), and no request is passed by more than `PASSES` times.

The same counters may be kept in Redis for all gateways (`routing/lua/choose.lua`); `refresh` brings them here.
"""

from collections import OrderedDict
from collections.abc import Collection, Mapping
from typing import Generic, Protocol, TypeVar

PATIENCE = 16_384
"""Tokens by which a tenant may be ahead of its turn where its conversation's node has a place."""

SLACK = 2.0
"""Mean requests by which tenants' counters may be apart and count as equal: a request that ends moves its tenant's
counter by as much as its forecast was wrong, just when its place is to be given away."""

WEIGHT = 0.05
"""Of the last request, in the mean."""

UNIT = 1000
"""Counters are whole numbers, of thousandths of a token."""

PASSES = 8
"""Times that requests of other conversations may go before one whose turn it is."""

MAX_IDLE = 4096
"""Counters that are kept of tenants that do not wait."""


class Turn:
    """Who pays for a request, and how much: `tokens` at their cost, over the shares of class and tenant. `tokens` may
    change until they are charged. `answer`: tokens that are expected to be made."""

    __slots__ = ("answer", "class_share", "service_class", "tenant", "tenant_share", "tokens")

    def __init__(self, service_class: str, tenant: str, class_share: float, tenant_share: float, tokens: float) -> None:
        self.answer = 0
        self.service_class = service_class
        self.tenant = tenant
        self.class_share = class_share
        self.tenant_share = tenant_share
        self.tokens = tokens

    @property
    def of_class(self) -> int:
        """What is added to the class's counter."""
        return round(self.tokens * UNIT / self.class_share)

    @property
    def of_tenant(self) -> int:
        return round(self.tokens * UNIT / self.tenant_share)

    @property
    def member(self) -> str:
        """The name of the tenant's counter: it has one in each class."""
        return f"{self.service_class}|{self.tenant}"


class Waiter(Protocol):
    """A request that waits. `home`: the node where its conversation was last; `passed`: times that another went first
    although it was this one's turn."""

    passed: int

    @property
    def turn(self) -> Turn: ...
    @property
    def home(self) -> str | None: ...


Waiting = TypeVar("Waiting", bound=Waiter)


class FairOrder(Generic[Waiting]):
    """The waiting requests of one model, and the counters of their tenants. Nothing here waits or knows the time."""

    def __init__(self) -> None:
        self.size = 0
        self._mean = 0.0
        """The mean of what tenants were charged lately, in units of their counters."""
        self._waiting: dict[str, dict[str, OrderedDict[int, Waiting]]] = {}
        """By class and tenant's counter, the oldest first."""
        self._counters: dict[str, int] = {}
        self._floors: dict[str, int] = {}
        self.begun: set[str] = set()
        """The counters of those that have begun to wait since all gateways were last told."""
        self._yielding: frozenset[str] = frozenset()
        """The classes that had to yield at the last look."""

    # Counters

    def counter(self, name: str) -> int:
        return self._counters.get(name, 0)

    @property
    def slack(self) -> int:
        """How far counters of tenants may be apart and count as equal."""
        return round(SLACK * self._mean)

    def charge(self, turn: Turn, waited: bool) -> None:
        """A request got a place. One that had not to wait (`waited`) is lifted first, as if it had begun to."""
        for level, name, amount in (("", turn.service_class, turn.of_class), _of_tenant(turn)):
            floor = self._floors.get(level, 0)
            before = self._counters.get(name, 0) if waited else max(self._counters.get(name, 0), floor)
            self._counters[name] = before + amount
            if before > floor:
                self._floors[level] = before
        self._mean += WEIGHT * (turn.of_tenant - self._mean)
        if len(self._counters) > MAX_IDLE:
            self._forget_idle()

    def correct(self, turn: Turn, tokens: float) -> tuple[int, int]:
        """A request of `turn` has ended, and used `tokens` in place of those that were planned. Returns what that
        changes of the counters of its class and tenant."""
        used = Turn(turn.service_class, turn.tenant, turn.class_share, turn.tenant_share, tokens)
        changes = used.of_class - turn.of_class, used.of_tenant - turn.of_tenant
        for name, change in zip((turn.service_class, turn.member), changes, strict=True):
            if name in self._counters:
                self._counters[name] = max(0, self._counters[name] + change)
        return changes

    def refresh(self, counters: Mapping[str, int], floors: Mapping[str, int]) -> None:
        """Take over the counters of all gateways."""
        self._counters.update(counters)
        for level, floor in floors.items():
            self._floors[level] = max(floor, self._floors.get(level, 0))

    def _lift(self, level: str, name: str) -> None:
        beside = self._waiting.keys() - self._yielding if level == "" else self._waiting[level]
        floor = min((self._counters[each] for each in beside if each != name), default=self._floors.get(level, 0))
        credit = 0 if level == "" else 2 * self.slack
        self._counters[name] = max(self._counters.get(name, 0), floor - credit)
        self.begun.add(name)

    def _forget_idle(self) -> None:
        """Forget the counters that the floor would lift anyway, and then the least."""
        waiting = {name for members in self._waiting.values() for name in members} | self._waiting.keys()
        idle = [name for name in self._counters if name not in waiting and "|" in name]
        idle.sort(key=lambda name: self._counters[name] - self._floors.get(name.partition("|")[0], 0))
        for name in idle[: max(0, len(self._counters) - MAX_IDLE // 2)]:
            del self._counters[name]

    # Requests

    def add(self, waiter: Waiting) -> None:
        turn = waiter.turn
        members = self._waiting.get(turn.service_class)
        if members is None:
            members = self._waiting[turn.service_class] = {}
            self._lift("", turn.service_class)
        queue = members.get(turn.member)
        if queue is None:
            queue = members[turn.member] = OrderedDict()
            self._lift(turn.service_class, turn.member)
        queue[id(waiter)] = waiter
        self.size += 1

    def remove(self, waiter: Waiting) -> None:
        """It has a place, or leaves; a second time changes nothing."""
        turn = waiter.turn
        members = self._waiting.get(turn.service_class, {})
        queue = members.get(turn.member)
        if queue is None or queue.pop(id(waiter), None) is None:
            return
        self.size -= 1
        if not queue:
            del members[turn.member]
            self.begun.discard(turn.member)
            if not members:
                del self._waiting[turn.service_class]
                self.begun.discard(turn.service_class)

    def next(self, yielding: Collection[str] = (), node: str | None = None) -> Waiting | None:
        """The request whose turn it is; None where none waits but in classes that are `yielding`. `node` has a place: a
        request that was there last may go first."""
        for name in self._yielding.difference(yielding).intersection(self._waiting):
            self._lift("", name)
        self._yielding = frozenset(yielding)
        classes = [name for name in self._waiting if name not in yielding]
        if not classes:
            return None
        name = min(classes, key=self.counter)
        members = self._waiting[name]
        near = min(self._counters[member] for member in members) + self.slack
        first = min(
            (member for member in members if self._counters[member] <= near),
            key=lambda member: (len(members[member]), self._counters[member]),
        )
        oldest = next(iter(members[first].values()))
        if node is not None and oldest.home != node and oldest.passed < PASSES:
            near = self._counters[first] + PATIENCE * UNIT
            for member in sorted((each for each in members if self._counters[each] <= near), key=self.counter):
                for waiter in _first(members[member], LOOKED_AT):
                    if waiter.home == node:
                        oldest.passed += 1
                        return waiter
        return oldest

    def count(self, service_class: str, tenant: str | None = None) -> int:
        """How many wait in the class, or of the tenant's there."""
        members = self._waiting.get(service_class, {})
        if tenant is not None:
            return len(members.get(f"{service_class}|{tenant}", ()))
        return sum(map(len, members.values()))

    def names(self, most: int) -> dict[str, bool]:
        """The names of the counters of those that wait, and whether each has begun to: classes, and those tenants with
        the least counters, `most` in all."""
        members = sorted((member for each in self._waiting.values() for member in each), key=self.counter)
        chosen = [*self._waiting, *(each for each in members if each in self.begun), *members]
        return {name: name in self.begun for name in list(dict.fromkeys(chosen))[:most]}

    def firsts(self) -> list[Waiting]:
        """The oldest request of each tenant, in each class."""
        return [next(iter(queue.values())) for members in self._waiting.values() for queue in members.values()]

    def everybody(self) -> list[Waiting]:
        """All that wait, in no order."""
        return [waiter for members in self._waiting.values() for queue in members.values() for waiter in queue.values()]


LOOKED_AT = 16
"""Requests of one tenant that are looked at for one whose node has a place."""


def _of_tenant(turn: Turn) -> tuple[str, str, int]:
    return turn.service_class, turn.member, turn.of_tenant


def _first(queue: OrderedDict[int, Waiting], most: int) -> list[Waiting]:
    return [waiter for _, waiter in zip(range(most), queue.values(), strict=False)]
