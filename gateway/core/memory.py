"""The bytes that a process holds for its clients: one budget, shared out before anything is kept.

Held are bodies of requests (received and parsed), plain answers that are kept until they are whole, and what clients do
not take of their answers. A request has a `Holding`, taken from before its bytes are kept and released once, whatever
its end.

The shares are dynamic thresholds (Choudhury and Hahne, "Dynamic queue length thresholds for shared-memory packet
switches", 1998): an owner may hold as much as is free after it. One that takes all it can gets half of the budget, n of
them 1 / (n + 1) each, and there is always room for one that comes new.
"""

from typing import Final


class MemoryBudget:
    """`limit` and `held` in bytes. A reload may set another `limit`: what is held stays."""

    __slots__ = ("_by_owner", "held", "limit")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.held = 0
        self._by_owner: dict[str, int] = {}

    @property
    def most(self) -> int:
        """What one owner can have at the most, where nobody else holds anything."""
        return self.limit // 2

    def held_by(self, owner: str) -> int:
        return self._by_owner.get(owner, 0)

    def acquire(self, owner: str, size: int) -> bool:
        """Whether `size` more bytes may be held for `owner`; then they are."""
        mine = self._by_owner.get(owner, 0) + size
        if mine > self.limit - self.held - size:
            return False
        self._by_owner[owner] = mine
        self.held += size
        return True

    def release(self, owner: str, size: int) -> None:
        left = self._by_owner[owner] - size
        if left:
            self._by_owner[owner] = left
        else:
            del self._by_owner[owner]
        self.held -= size

    def transfer(self, size: int, before: str, after: str) -> None:
        """What `before` held is held by `after` from now on, whether there is room in its share or not."""
        self.release(before, size)
        self._by_owner[after] = self._by_owner.get(after, 0) + size
        self.held += size


STRANGER: Final = ""
"""Who has not said yet who it is: all of these share one owner's part."""


class Holding:
    """What one request holds. `owner` is its tenant, once that is known."""

    __slots__ = ("_budget", "owner", "size")

    def __init__(self, budget: MemoryBudget) -> None:
        self._budget = budget
        self.owner = STRANGER
        self.size = 0

    @property
    def most(self) -> int:
        """What one owner can have at the most."""
        return self._budget.most

    def acquire(self, size: int) -> bool:
        """Hold `size` more bytes; False where there is no room: then nothing has changed."""
        if not self._budget.acquire(self.owner, size):
            return False
        self.size += size
        return True

    def shrink(self, size: int) -> None:
        """Hold `size` bytes from now on, where that is less than before."""
        if size < self.size:
            self._budget.release(self.owner, self.size - size)
            self.size = size

    def set_owner(self, owner: str) -> None:
        if self.size:
            self._budget.transfer(self.size, self.owner, owner)
        self.owner = owner
