"""Old names of settings: still read from every source, and reported as deprecated.

`RENAMED` is the whole list. To rename a setting, add a row: nothing else in the gateway knows an old name.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from gateway.config.document import ConfigProblem, TreePath

Names = Mapping[str, str]
"""Old name -> new name, in one section."""

RENAMED: Mapping[str, Names] = {
    "timeouts": {"announce": "shutdown_delay", "plain": "non_streaming", "silence": "node_hang"},
    "health": {"tolerated": "failure_threshold"},
    "routing": {"remember": "affinity_ttl", "crowding": "load_penalty"},
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


def use_new_names(data: Mapping[str, Any]) -> Renaming:
    """`data`, a configuration tree, with every old name replaced. `data` itself stays as it is."""
    tree, written, twice = dict(data), {}, []
    for section, names in RENAMED.items():
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


def rename(settings: Mapping[str, Any], names: Names) -> dict[str, Any]:
    """One section with its names replaced. Where both are set, the new one counts."""
    renamed = {names[name]: value for name, value in settings.items() if name in names}
    return renamed | {name: value for name, value in settings.items() if name not in names}


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
