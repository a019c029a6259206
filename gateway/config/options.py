"""The options of `fleetgate serve` that are settings, for messages about them."""

from collections.abc import Mapping
from typing import Any

from gateway.core.setting_names import TreePath

OPTIONS: Mapping[TreePath, str] = {
    ("nodes",): "--node",
    ("listen", "host"): "--host",
    ("listen", "port"): "--port",
    ("admin", "port"): "--admin-port",
    ("workers",): "--workers",
    ("log", "format"): "--log-format",
    ("no_auth",): "--no-auth",
}


def option_of(overrides: Mapping[str, Any], path: TreePath) -> str | None:
    """The option that has set `path`, or what is around it, if one has: `overrides` are those of the command line."""
    for setting, option in OPTIONS.items():
        if path[: len(setting)] == setting and _is_in(overrides, setting):
            return option
    return None


def _is_in(overrides: Mapping[str, Any], setting: TreePath) -> bool:
    tree: Any = overrides
    for part in setting:
        if not isinstance(tree, Mapping) or part not in tree:
            return False
        tree = tree[part]
    return True
