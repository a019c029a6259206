"""Reading a body whose fields have to be understood to be translated: each is named where it is not as it must be."""

from collections.abc import Iterable, Mapping
from typing import Any

from gateway.core.bodies import Body, json_kind
from gateway.core.errors import InvalidRequest

_KINDS: dict[type[Any], str] = {
    str: "a string",
    bool: "true or false",
    int: "an integer",
    dict: "an object",
    list: "an array",
}


def optional(holder: Mapping[str, Any], name: str, kind: type[Any], where: str = "") -> Any:
    """`holder[name]` checked to be of `kind`, None where it is absent or null; `where` is the path of `holder`."""
    value: Any = holder.get(name)
    return value if value is None or type(value) is kind else expect(value, kind, at(where, name))


def required(holder: Mapping[str, Any], name: str, kind: type[Any], where: str = "") -> Any:
    """As `optional`, but absent or null is refused."""
    value: Any = holder.get(name)
    return value if type(value) is kind else expect(value, kind, at(where, name))


def expect(value: Any, kind: type[Any], where: str) -> Any:
    """`value` if it is of `kind`."""
    if type(value) is kind:
        return value
    raise InvalidRequest(
        f"The field {where!r} must be {_KINDS[kind]}, not {json_kind(value)}.", param=where, code="invalid_type"
    )


def at(where: str, name: str | int) -> str:
    """The path of a member: `messages.0.content`."""
    return f"{where}.{name}" if where else str(name)


def objects(items: Iterable[Any], where: str) -> Iterable[tuple[Body, str]]:
    """Each of `items`, an object, with its path."""
    for index, item in enumerate(items):
        path = at(where, index)
        yield expect(item, dict, path), path


def refuse(where: str, why: str) -> InvalidRequest:
    """The error for what cannot be served over chat; `why` says what to send instead."""
    return InvalidRequest(f"The field {where!r} cannot be served here: {why}", param=where, code="not_over_chat")
