"""Old names of settings: still read from every source, and reported as deprecated.

To rename a setting, add a row to `RENAMED` (of tenants and keys: to `core.setting_names`). Nothing else in the gateway
knows an old name.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from gateway.config.document import ConfigProblem
from gateway.core.setting_names import RENAMED_IN_TENANT, RENAMED_LIMITS, Names

RENAMED: Mapping[str, Names] = {
    "timeouts": {"announce": "shutdown_delay", "plain": "non_streaming", "silence": "node_hang"},
    "health": {"tolerated": "failure_threshold"},
    "routing": {"remember": "affinity_ttl", "crowding": "load_penalty"},
    "limits.default": RENAMED_LIMITS,
    **{f"tenants.*.{section}": names for section, names in RENAMED_IN_TENANT.items()},
    "tenants.*.keys.*.limits": RENAMED_LIMITS,
}
"""Section -> its renamed settings. `*` stands for every item of a list."""


@dataclass(frozen=True, slots=True)
class Deprecation:
    """A setting under an old name: `where` it stands (file and line, or a variable), and what to `use` instead."""

    where: str
    setting: str
    use: str

    def __str__(self) -> str:
        return str(ConfigProblem(self.where, self.setting, f"is deprecated: use {self.use}"))
