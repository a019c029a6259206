"""Trees of settings, one merged into another.

Mappings are merged member by member. A list of mappings that have a `name` is merged by it: a known one in its place, a
new one at the end. Anything else replaces what is there.
"""

from typing import Any


def merge(below: Any, above: Any) -> Any:
    """`above` over `below`."""
    if isinstance(below, dict) and isinstance(above, dict):
        return {
            **below,
            **{name: merge(below[name], value) if name in below else value for name, value in above.items()},
        }
    if is_named(below) and is_named(above):
        known = {item["name"]: item for item in below}
        new = {item["name"]: item for item in above}
        kept = [merge(item, new[name]) if name in new else item for name, item in known.items()]
        return kept + [item for name, item in new.items() if name not in known]
    return above


def is_named(value: Any) -> bool:
    """Whether `value` is a list of mappings with a name each."""
    return isinstance(value, list) and all(
        isinstance(item, dict) and isinstance(item.get("name"), str) for item in value
    )
