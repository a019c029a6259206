"""Settings that were renamed: trees of settings from old names to new ones, and of a tenant or a key back again.

Settings of tenants and keys keep their old names in Redis, since older gateways read and change the same records.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

TreePath = tuple[str | int, ...]

Names = Mapping[str, str]
"""Old name -> new name, in one section."""

RENAMED_LIMITS: Names = {"thinking_tokens_per_minute": "reasoning_tokens_per_minute"}

RENAMED_IN_TENANT: Mapping[str, Names] = {"limits": RENAMED_LIMITS, "per_model.*.limits": RENAMED_LIMITS}
"""Section -> its renamed settings, below one tenant or one key. `*` stands for every item of a list."""

_STORED: Mapping[str, Names] = {
    section: {new: old for old, new in names.items()} for section, names in RENAMED_IN_TENANT.items()
}


@dataclass(frozen=True, slots=True)
class Renaming:
    """A source's settings under their new names. `written`: new path -> path as the source spells it; `twice`: the
    new paths that the source sets under both names, of which the new one counts."""

    data: dict[str, Any]
    written: dict[TreePath, TreePath] = field(default_factory=dict)
    twice: tuple[TreePath, ...] = ()

    def spelled(self, path: TreePath) -> TreePath:
        """`path` as the source spells it."""
        for length in range(len(path), 0, -1):
            old = self.written.get(path[:length])
            if old is not None:
                return old + path[length:]
        return path


def use_new_names(data: Mapping[str, Any], renamed: Mapping[str, Names]) -> Renaming:
    """`data`, a tree of settings, with every old name replaced. `data` itself stays as it is."""
    tree, written, twice = dict(data), {}, []
    for section, names in renamed.items():
        for path, settings in _sections(tree, section.split("."), ()):
            for old, new in names.items():
                if old not in settings:
                    continue
                value = settings.pop(old)
                written[(*path, new)] = (*path, old)
                if new in settings:
                    twice.append((*path, new))
                else:
                    settings[new] = value
    return Renaming(tree, written, tuple(twice))


def use_stored_names(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of a tenant or a key under the names that every gateway on the same Redis knows: the old ones."""
    return use_new_names(settings, _STORED).data


def _sections(tree: Any, pattern: list[str], path: TreePath) -> Iterator[tuple[TreePath, dict[str, Any]]]:
    """The mappings at `pattern` in `tree`. Each of them, and all that lead to it, are replaced by copies first."""
    if not pattern:
        if isinstance(tree, dict):
            yield path, tree
        return
    keys: list[Any] = []
    if isinstance(tree, list) and pattern[0] == "*":
        keys = list(range(len(tree)))
    elif isinstance(tree, dict) and pattern[0] in tree:
        keys = [pattern[0]]
    for key in keys:
        if isinstance(tree[key], dict | list):
            tree[key] = tree[key].copy()
            yield from _sections(tree[key], pattern[1:], (*path, key))
