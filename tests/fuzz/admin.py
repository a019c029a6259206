"""Requests to the admin listener for fuzzing: each of its routes, with what people and programs get wrong."""

import json
import random
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import quote

HALF = "\ud800"
_TEXTS = (
    "", " ", "\t", "\n", "\x00", "\x7f", "a b", "a/b", "a%2Fb", "..", "../keys", ".", "?", "#", "//", "é", "x" * 5000,
    HALF, "acme", "in-file", "key_0000000000000000", "nan", "null", "-1", "0", "{}", "a\r\nb: c", "+", "%", "%zz",
)  # fmt: skip
_TIMES = (
    "0001-01-01", "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "9999-12-31", "1969-12-31", "2027-02-30",
    "2027-01-31T12:00:00Z", "2099-12-31", "soon", "1e999", "99999999999999999999", "2027", "2020-01-01T00:00", "",
)  # fmt: skip
_RAW = (
    "NaN", "Infinity", "-Infinity", "1e999", "-1", "0", "1", "0.5", "1" * 30, "1" * 5000, "true", "null", '""', '"x"',
    r'"\ud800"', r'"\u0000"', "[]", "{}", "[[1]]", '{"a": 1, "a": 2}', "[" * 2000, "1 2", '"', "[null]", '[""]', "[1]",
)  # fmt: skip
"""Values as JSON text, some of which is none."""

_NAMES = (
    "name", "tenant", "label", "models", "expires", "limits", "per_model", "thinking", "output", "cache_salt", "node",
    "deadline", "grace_seconds", "who", "event", "what", "subject", "detail", HALF, "", "__class__",
)  # fmt: skip
_LIMITS = ("requests_per_minute", "concurrent_requests", "usd_per_day", "burst_seconds", "nope")
_QUERIES = ("since", "until", "tenant", "limit", "per", "by", "model", "x")
_TYPES = ("application/json", "application/json; charset=utf-16", "text/plain", "application/x-www-form-urlencoded")


class Drawn(NamedTuple):
    """A request as it goes out; `path` is escaped already."""

    method: str
    path: str
    body: bytes | None
    type: str


def routes_of(schema: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Method and path of each route in an OpenAPI schema."""
    return sorted((method.upper(), path) for path, methods in schema["paths"].items() for method in methods)


def draw(rng: random.Random, routes: Sequence[tuple[str, str]]) -> Drawn:
    """One of `routes`, filled in."""
    method, template = rng.choice(routes)
    path = "/".join(_part(rng) if part.startswith("{") else part for part in template.split("/"))
    if rng.random() < 0.4:
        pairs = [
            f"{rng.choice(_QUERIES)}={_escaped(rng, rng.choice(_TEXTS + _TIMES))}" for _ in range(rng.randint(1, 3))
        ]
        path += "?" + "&".join(pairs)
    if method in ("GET", "HEAD", "OPTIONS"):
        return Drawn(method, path, None, "")
    kind = rng.choice(_TYPES) if rng.random() < 0.1 else _TYPES[0]
    return Drawn(method, path, None if rng.random() < 0.05 else _body(rng, template), kind)


def _part(rng: random.Random) -> str:
    return _escaped(rng, rng.choice(_TEXTS))


def _escaped(rng: random.Random, text: str) -> str:
    raw = text.encode("utf-8", "surrogatepass")
    return quote(raw, safe="/%" if rng.random() < 0.3 else "")


def _body(rng: random.Random, template: str) -> bytes:
    if rng.random() < 0.15:
        return rng.choice(_RAW).encode()
    members = _likely(rng, template) if rng.random() < 0.8 else []
    for _ in range(rng.randint(0, 2)):
        members.insert(rng.randint(0, len(members)), (rng.choice(_NAMES), _value(rng)))
    if members and rng.random() < 0.1:
        members.append(rng.choice(members))
    return ("{" + ", ".join(f"{json.dumps(name)}: {value}" for name, value in members) + "}").encode()


def _likely(rng: random.Random, template: str) -> list[tuple[str, str]]:
    if "drain" in template:
        return [("node", json.dumps(rng.choice(("node-1:8000", "", *_TEXTS))))]
    if "rotate" in template:
        return [("grace_seconds", rng.choice(_RAW))]
    name = json.dumps(rng.choice(("acme", f"t{rng.randint(0, 99)}", *_TEXTS)) if rng.random() < 0.7 else "t1")
    if "block" in template:
        return [rng.choice((("tenant", name), ("key", json.dumps(f"key_{rng.getrandbits(64):016x}"))))]
    if rng.random() < 0.2:
        return [("tenant" if "keys" in template else "name", name)]
    members = [] if template.endswith("}") else [("tenant" if "keys" in template else "name", name)]
    if rng.random() < 0.5:
        members.append(("limits", f"{{{json.dumps(rng.choice(_LIMITS))}: {rng.choice(_RAW)}}}"))
    if rng.random() < 0.3:
        members.append(("expires", json.dumps(rng.choice(_TIMES))))
    if rng.random() < 0.3:
        members.append(("models", json.dumps([rng.choice(("big", "b", "nope", *_TEXTS))])))
    return members


def _value(rng: random.Random) -> str:
    return rng.choice(_RAW) if rng.random() < 0.5 else json.dumps(rng.choice(_TEXTS + _TIMES))
