"""What differs between two configurations: one line a setting, for the log and the audit. Secrets are never shown."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import orjson
from pydantic import BaseModel

from gateway.config.types import Secret
from gateway.core.access.api_keys import key_id

MAX_LISTED = 40
"""Lines of one change; more are counted in the last one."""

MAX_VALUE = 100
"""Characters of one value."""

_NAMED_BY = ("name", "url", "model", "host", "sha256")
"""The settings that name a member of a list, in this order."""


def changes_between(before: BaseModel, after: BaseModel) -> list[str]:
    """The settings that differ, as `timeouts.idle: 120.0 -> 60.0` or `tenants[acme]: added`; bounded."""
    lines = list(_changes("", before, after))
    if len(lines) > MAX_LISTED:
        lines[MAX_LISTED:] = [f"and {len(lines) - MAX_LISTED} more"]
    return lines


def _changes(path: str, before: Any, after: Any) -> Iterator[str]:
    if before == after:
        return
    if isinstance(before, Secret) or isinstance(after, Secret):
        yield f"{path}: {_verb(before, after)}"
    elif isinstance(before, BaseModel) and isinstance(after, BaseModel):
        for name in type(after).model_fields:
            yield from _changes(f"{path}.{name}" if path else name, getattr(before, name), getattr(after, name))
    elif _members(before) is not None and _members(after) is not None:
        yield from _changes_of_members(path, _members(before) or {}, _members(after) or {})
    elif isinstance(before, BaseModel) or isinstance(after, BaseModel):
        yield f"{path}: {_verb(before, after)}"
    else:
        yield f"{path}: {_shown(before)} -> {_shown(after)}"


def _changes_of_members(path: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[str]:
    """Members are told apart by their names, so that one that was put between others is one change."""
    kept = [name for name in before if name in after]
    if kept != [name for name in after if name in before]:
        yield f"{path}: order changed"
    for name in {**before, **after}:
        at = f"{path}[{name}]"
        if name in before and name in after:
            yield from _changes(at, before[name], after[name])
        else:
            yield f"{at}: {'added' if name in after else 'removed'}"


def _members(value: Any) -> Mapping[str, Any] | None:
    """The members of a list of sections or of a mapping, by name; None for any other value."""
    if isinstance(value, Mapping):
        return {str(name): item for name, item in value.items()}
    if isinstance(value, tuple) and all(isinstance(item, BaseModel) for item in value):
        return {_name_of(item, at): item for at, item in enumerate(value)}
    return None


def _name_of(item: BaseModel, at: int) -> str:
    """A key is named by its id: a hash in a log looks like a secret."""
    for field in _NAMED_BY:
        value = getattr(item, field, None)
        if value is not None:
            return key_id(bytes.fromhex(value)) if field == "sha256" else str(value)
    return str(at)


def _verb(before: Any, after: Any) -> str:
    return "added" if before is None else "removed" if after is None else "changed"


def _shown(value: Any) -> str:
    text = str(value) if isinstance(value, Path) else orjson.dumps(value, default=str).decode()
    return text if len(text) <= MAX_VALUE else f"{text[: MAX_VALUE - 3]}..."
