"""The shapes of replies. A reply of another shape is refused where it is read, so that callers can rely on the shape.

The shapes of scripts are given where the scripts are read; those of plain commands are here. redis-py returns hashes
and streams as lists or as dictionaries, depending on the protocol.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

Shape = Callable[[Any, Sequence[Any]], bool]
"""Whether a reply is one to a command: `EVALSHA sha n key ... arg ...`, or a plain one."""


def anything(reply: Any, command: Sequence[Any]) -> bool:
    return True


def integer(reply: Any, command: Sequence[Any]) -> bool:
    return type(reply) is int


def text(reply: Any, command: Sequence[Any]) -> bool:
    return reply is None or type(reply) is bytes


def texts(reply: Any, command: Sequence[Any]) -> bool:
    return isinstance(reply, list | set) and set(map(type, reply)) <= {bytes}


def integers(count: int) -> Shape:
    """A list of `count` integers."""

    def shape(reply: Any, command: Sequence[Any]) -> bool:
        return type(reply) is list and len(reply) == count and set(map(type, reply)) <= {int}

    return shape


def _fields(reply: Any, command: Sequence[Any]) -> bool:
    """One value for each field: `HMGET key field ...`."""
    return type(reply) is list and len(reply) == len(command) - 2 and set(map(type, reply)) <= {bytes, type(None)}


def _hash(reply: Any, command: Sequence[Any]) -> bool:
    if isinstance(reply, dict):
        return texts([*reply, *reply.values()], ())
    return texts(reply, ()) and isinstance(reply, list) and len(reply) % 2 == 0


def _scan(reply: Any, command: Sequence[Any]) -> bool:
    if not isinstance(reply, list | tuple) or len(reply) != 2:
        return False
    cursor = reply[0]
    return (type(cursor) is int or (type(cursor) is bytes and cursor.isdigit())) and _hash(reply[1], ())


def _stream(reply: Any, command: Sequence[Any]) -> bool:
    return isinstance(reply, list) and all(map(_is_entry, reply))


def _is_entry(entry: Any) -> bool:
    """Whether it is an id that begins with a time, and fields."""
    if not isinstance(entry, list | tuple) or len(entry) != 2 or type(entry[0]) is not bytes:
        return False
    return entry[0].partition(b"-")[0].isdigit() and _hash(entry[1], ())


COMMANDS: Mapping[str, Shape] = {
    "GET": text,
    "HGET": text,
    "HGETALL": _hash,
    "HINCRBY": integer,
    "HMGET": _fields,
    "HSCAN": _scan,
    "HSET": integer,
    "HDEL": integer,
    "SMEMBERS": texts,
    "XADD": text,
    "XREVRANGE": _stream,
    "ZRANGEBYSCORE": texts,
}


def pairs_of(reply: Any) -> dict[bytes, bytes]:
    """A hash, or a stream's entry, as a dictionary."""
    return reply if isinstance(reply, dict) else dict(zip(reply[::2], reply[1::2], strict=True))


def shape_of(command: Sequence[Any]) -> Shape:
    """That of a plain command's reply."""
    return COMMANDS.get(str(command[0]), anything)
