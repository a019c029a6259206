"""Reads the fields of a body. A field of another type raises `InvalidRequest`, which names its path."""

from collections.abc import Iterable, Mapping
from typing import Any

from gateway.core.bodies import Body
from gateway.core.errors import InvalidRequest
from gateway.core.json_text import json_kind
from gateway.core.lax_numbers import read_count, read_switch

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
    if value is None or type(value) is kind:
        return value
    return expect(value, kind, at(where, name))


def count(holder: Mapping[str, Any], name: str, where: str = "") -> int | None:
    """`holder[name]` as a number in any spelling that nodes read (text, 10.0), None where it is absent or null."""
    value: Any = holder.get(name)
    return None if value is None else read_count(value, at(where, name))


def required_count(holder: Mapping[str, Any], name: str, where: str = "") -> int:
    """As `count`, but absent or null is refused."""
    given = count(holder, name, where)
    return expect(None, int, at(where, name)) if given is None else given


def switch(holder: Mapping[str, Any], name: str, where: str = "") -> bool | None:
    """`holder[name]` as true or false in any spelling that nodes read, None where it is absent or null."""
    value: Any = holder.get(name)
    return None if value is None else read_switch(value, at(where, name))


def required(holder: Mapping[str, Any], name: str, kind: type[Any], where: str = "") -> Any:
    """As `optional`, but absent or null is refused."""
    value: Any = holder.get(name)
    if type(value) is kind:
        return value
    return expect(value, kind, at(where, name))


def expect(value: Any, kind: type[Any], where: str) -> Any:
    """`value`, if it is of `kind`."""
    if type(value) is kind:
        return value
    raise InvalidRequest(
        f"The field {where!r} must be {_KINDS[kind]}, not {json_kind(value)}.", param=where, code="invalid_type"
    )


def at(where: str, name: str | int) -> str:
    """The path of a member: `messages.0.content`."""
    return f"{where}.{name}" if where else str(name)


def objects(items: Iterable[Any], where: str) -> Iterable[tuple[Body, str]]:
    """Each of `items`, which have to be objects, with its path."""
    for index, item in enumerate(items):
        path = at(where, index)
        yield expect(item, dict, path), path


def refuse(where: str, why: str) -> InvalidRequest:
    """The error for a field that chat cannot carry; `why` says what to send instead."""
    return InvalidRequest(f"The field {where!r} is not supported over chat: {why}", param=where, code="not_over_chat")
