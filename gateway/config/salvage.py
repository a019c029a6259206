"""What can be read of a configuration with mistakes, so that warnings about the rest are told in the same round."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from gateway.config.cross_checks import cross_problems
from gateway.config.tree import Config
from gateway.core.setting_names import TreePath

ROUNDS = 20


def salvage(tree: Mapping[str, Any]) -> Config | None:
    """A configuration of `tree` without its mistakes; None where nothing can be made of it. What is left keeps its
    place in its list."""
    rest: dict[str, Any] = {**_copied(tree), "no_auth": True}
    met: Counter[TreePath] = Counter()
    paths = {path for path, _ in cross_problems(tree)}
    for _ in range(ROUNDS):
        for path in paths:
            _take_out(rest, path, met[path])
            met[path] += 1
        try:
            return Config(**rest)
        except ValidationError as error:
            paths = {(*each["loc"], *each.get("ctx", {}).get("at", ())) for each in error.errors(include_url=False)}
    return None


def _take_out(tree: dict[str, Any], path: TreePath, above: int) -> None:
    """Remove the setting at `path`, or what is closest around it without moving others to other places; `above`: as
    many levels higher, for one that is required. A wrong hash is replaced by one that nobody has, a name that is given
    twice by another."""
    at: Any = tree
    places: list[tuple[dict[str, Any], str]] = []
    for part in path:
        if isinstance(at, dict) and isinstance(part, str):
            places.append((at, part))
            at = at.get(part)
        elif isinstance(at, list) and isinstance(part, int) and part < len(at):
            at = at[part]
        else:
            break
    if not places:
        return
    settings, name = places[max(0, len(places) - 1 - above)]
    if above == 0 and name == "sha256":
        settings[name] = f"{id(settings):064x}"
    elif above == 0 and isinstance(path[-1], int) and isinstance(at, dict) and "name" in at:
        at["name"] = f"given-twice-{path[-1]}"
    else:
        settings.pop(name, None)


def _copied(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _copied(item) for name, item in value.items()}
    return [_copied(item) for item in value] if isinstance(value, list) else value
