"""The two schema versions of the keys in Redis. docs/redis-keys.md lists the keys.

Every key begins with the installation's name and a version: `fg1:`. There are two versions, since they lose different
things when they are raised.

    what                                        version     a gateway of another version
    limits at work, places, pending prompts     `LIVE`      keeps its own beside these: limits start full, once
    tenants, keys, audit, usage, drains, and    `RECORDS`   reads and writes the same ones, or it would know nobody
    which gateways live

`LIVE` is raised whenever a script or a key of the first kind changes its meaning. `RECORDS` stays: records may get more
fields, and a gateway ignores fields that it does not know and changes no record that has some. If it ever has to be
raised, the new gateway has to migrate the records.
"""

from dataclasses import dataclass

LIVE = 1
RECORDS = 1


@dataclass(frozen=True, slots=True)
class KeySchema:
    """The beginnings of keys. `name` distinguishes installations that share a Redis."""

    name: str = "fg"
    live_version: int = LIVE
    records_version: int = RECORDS

    @property
    def live(self) -> str:
        """The beginning of keys that may be lost."""
        return f"{self.name}{self.live_version}"

    @property
    def records(self) -> str:
        """The beginning of keys that have to be kept."""
        return f"{self.name}{self.records_version}"

    def routing(self, group: str) -> str:
        """The beginning of the routing facts of `group`, in one slot of a cluster; empty for the group of all models
        that name none."""
        return f"{self.live}:{{route:{group}}}" if group else f"{self.live}:{{route}}"
