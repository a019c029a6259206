"""The versions of what gateways keep in Redis, in one place.

There are two, since what is lost when one moves on is not the same. Every key begins with the installation's name and a
version: `fg1:`.

    what                                        version     a gateway of another version
    limits at work, places, pending prompts     `LIVE`      keeps its own beside these: limits start full, once
    tenants, keys, audit, usage, drains, and    `RECORDS`   reads and writes the same ones, or it would know nobody
    which gateways live

So `LIVE` moves on whenever a script or a key of the first kind changes its meaning. `RECORDS` stays: records may get
more fields, a gateway leaves out those that it does not know and changes no record that has some. Should it ever have
to move on, the new gateway has to bring the records along.
"""

from dataclasses import dataclass

LIVE = 1
RECORDS = 1


@dataclass(frozen=True, slots=True)
class KeySchema:
    """How keys begin. `name` tells installations apart that share a Redis."""

    name: str = "fg"
    live_version: int = LIVE
    records_version: int = RECORDS

    @property
    def live(self) -> str:
        """The beginning of what may be lost."""
        return f"{self.name}{self.live_version}"

    @property
    def records(self) -> str:
        """The beginning of what has to be kept."""
        return f"{self.name}{self.records_version}"
