"""What one gateway process has found out about a node, as it is sent to the others, and whose turn it is to find out.

Theory. Every process orders all processes that share what they find for each node anew, by a hash of both names
(rendezvous hashing): the first in the order asks the node, the second one where nothing has come of it for a while, and
so on. Nothing has to be claimed or given back, and a process that has died is passed over. The order changes every
`TERM` seconds, at another moment for each node, so that each process reaches each node itself from time to time.
"""

import zlib
from collections.abc import Collection, Iterable
from hashlib import blake2b
from typing import Any, NamedTuple

import orjson

from gateway.core.fleet.node_metrics import MOST, NodeMetrics

TERM = 60.0
"""Seconds for which the order of a node stays."""

MOST_AGE = 60.0
"""Seconds: nothing older is believed."""

_COUNTS = ("running", "waiting", "cache_queries", "cache_hits", "generated", "short_of_room", "ended", "prompts")


class FoundNode(NamedTuple):
    """The node at `url` lived at `at`; it lists the models of the digest `models`. `load`: its metrics, None where they
    are not told. Times are of the sender's clock, or the receiver's once it is read."""

    url: str
    at: float
    models: str
    load: NodeMetrics | None = None


def rank(own: str, names: Collection[str], url: str, now: float) -> int:
    """The place of `own` in the order of `names` for the node at `url`, from 0; `now` in seconds, of a clock that all
    share."""
    term = int((now + _phase(url)) / TERM)
    suffix = f"|{url}|{term}"
    mine = _weight(own, suffix)
    return sum((_weight(name, suffix), name) < (mine, own) for name in names)


def until_next_term(url: str, now: float) -> float:
    """Seconds until the order for the node at `url` changes, unless processes come or go."""
    return TERM - (now + _phase(url)) % TERM


def _phase(url: str) -> float:
    return zlib.crc32(url.encode()) % (1000 * TERM) / 1000


def _weight(name: str, suffix: str) -> bytes:
    return blake2b(f"{name}{suffix}".encode(), digest_size=8).digest()


def spell(found: Iterable[FoundNode], now: float) -> str:
    """The form in which they are sent at `now`: ages in place of times."""
    return orjson.dumps([_spell(each, now) for each in found]).decode()


def _spell(found: FoundNode, now: float) -> list[Any]:
    told: list[Any] = [found.url, round(now - found.at, 3), found.models]
    load = found.load
    if load is not None:
        told += [round(now - load.at, 3), load.kv_use, load.started, *(getattr(load, name) for name in _COUNTS)]
    return told


def read(spelled: bytes, now: float) -> list[FoundNode]:
    """Raises ValueError where another version has written another form. What it has added behind this one is left, and
    so is what is older than `MOST_AGE` at `now`."""
    told = orjson.loads(spelled)
    if not isinstance(told, list):
        raise ValueError("not a list")
    found = [_read(each, now) for each in told]
    return [each for each in found if now - MOST_AGE <= each.at <= now]


def _read(told: Any, now: float) -> FoundNode:
    if not isinstance(told, list) or len(told) < 3:
        raise ValueError("not a node that was found")
    url, age, models, *more = told
    if not isinstance(url, str) or not isinstance(models, str):
        raise ValueError("not a node that was found")
    return FoundNode(url, now - max(0.0, _number(age)), models, _load(more, now) if more else None)


def _load(told: list[Any], now: float) -> NodeMetrics:
    age, kv_use, started, *counts = told
    if len(counts) < len(_COUNTS):
        raise ValueError("not a node's metrics")
    named = {name: _count(value) for name, value in zip(_COUNTS, counts, strict=False)}
    return NodeMetrics(
        at=now - max(0.0, _number(age)),
        kv_use=None if kv_use is None else _number(kv_use),
        started=None if started is None else _number(started),
        **named,
    )


def _number(told: Any) -> float:
    if isinstance(told, bool) or not isinstance(told, int | float) or not -MOST <= told <= MOST:
        raise ValueError("not a number that can be")
    return float(told)


def _count(told: Any) -> int | None:
    return None if told is None else int(_number(told))
