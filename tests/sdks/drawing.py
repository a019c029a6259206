"""Draws random values of the types of an SDK's parameters: TypedDicts, unions, literals, lists, plain values.

The types say what fits where, and not what a text has to look like or how large a number may be. `TEXTS`, `NUMBERS` and
`OBJECTS` know that by a member's name.
"""

import collections.abc
import json
import random
from collections.abc import Callable, Mapping
from functools import cache
from types import UnionType
from typing import Any, Literal, Required, Union, get_args, get_origin

from typing_extensions import get_type_hints, is_typeddict

Body = dict[str, Any]

MOST_DEPTH = 7
"""Below this many levels only what has to be there is drawn."""

WORDS = (
    "Paris",
    "la météo",
    "is it 🌧️?",
    'a "quoted" word',
    "two\nlines",
    "\\ and /",
    "数学",
    "x",
    "</think>",
    "data: x\n\n",
)

SCHEMA: Body = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}
PICTURE = "data:image/png;base64,iVBORw0KGgo="


def words(rng: random.Random) -> str:
    """A text that is not empty."""
    return " ".join(rng.choices(WORDS, k=rng.randint(1, 4)))


TEXTS: dict[str, Callable[[random.Random], str]] = {
    "arguments": lambda rng: json.dumps({"city": words(rng)}, ensure_ascii=rng.random() < 0.5),
    "betas": lambda rng: rng.choice(("context-1m-2025-08-07", "interleaved-thinking-2025-05-14")),
    "call_id": lambda rng: f"call_{rng.randrange(9)}",
    "data": lambda _: "aGVsbG8=",
    "file_data": lambda _: "data:text/plain;base64,aGVsbG8=",
    "file_url": lambda _: "https://example.org/a.txt",
    "id": lambda rng: f"id_{rng.randrange(10**9)}",
    "image_url": lambda rng: rng.choice((PICTURE, "https://example.org/a.png")),
    "name": lambda rng: f"tool_{rng.randrange(10**6)}",
    "namespace": lambda rng: f"space_{rng.randrange(9)}",
    "prompt_cache_key": lambda rng: f"key-{rng.randrange(9)}",
    "server_url": lambda _: "https://example.org/mcp",
    "tool_call_id": lambda rng: f"call_{rng.randrange(9)}",
    "tool_use_id": lambda rng: f"toolu_{rng.randrange(9)}",
    "url": lambda rng: rng.choice((PICTURE, "https://example.org/a.png")),
    "user": lambda rng: f"user-{rng.randrange(9)}",
    "user_profile_id": lambda _: "uprof_1",
    "workspace_id": lambda _: "wrkspc_1",
}

NUMBERS: dict[str, tuple[float, float]] = {
    "best_of": (1, 3),
    "budget_tokens": (1024, 1500),
    "frequency_penalty": (-2, 2),
    "logit_bias": (-100, 100),
    "logprobs": (0, 5),
    "max_completion_tokens": (1, 60),
    "max_output_tokens": (16, 60),
    "max_tokens": (1, 60),
    "n": (1, 3),
    "presence_penalty": (-2, 2),
    "temperature": (0, 2),
    "top_logprobs": (0, 5),
    "top_p": (0.1, 1),
}
USUAL_NUMBERS = (1, 9)

OBJECTS: dict[str, Callable[[random.Random], Body]] = {
    "input": lambda rng: {"city": words(rng)},
    "input_schema": lambda _: SCHEMA,
    "logit_bias": lambda rng: {str(rng.randrange(900)): rng.randint(-100, 100) for _ in range(rng.randint(0, 3))},
    "parameters": lambda _: SCHEMA,
    "schema": lambda _: SCHEMA,
}


class Drawing:
    """Draws values. `likely`: types that are drawn ten times as often as their neighbours in a union. `never`: members
    that are left out, and types by their names."""

    def __init__(self, rng: random.Random, likely: frozenset[str], never: frozenset[str] = frozenset()) -> None:
        self._rng = rng
        self._likely = likely
        self._never = never

    def members(self, kind: Any, share: float, depth: int = 0) -> Body:
        """A TypedDict's members: all that are required, and of the others this share."""
        required, hints = _shape(kind)
        deep = depth >= MOST_DEPTH
        return {
            name: self.value(hint, name, depth + 1)
            for name, hint in hints.items()
            if name in required or (not deep and name not in self._never and self._rng.random() < share)
        }

    def value(self, kind: Any, name: str, depth: int) -> Any:
        """A value of one type, for the member `name`."""
        rng, origin, inner = self._rng, get_origin(kind), get_args(kind)
        if is_typeddict(kind):
            return self.members(kind, 0.3, depth)
        if origin is Literal:
            return rng.choice(inner)
        if _is_union(kind):
            return self.value(self._one_of(inner, depth), name, depth)
        if origin in (list, collections.abc.Iterable, collections.abc.Sequence):
            if depth > MOST_DEPTH:
                return []
            return [self.value(inner[0], name, depth + 1) for _ in range(rng.randint(1, 3))]
        if origin is dict or kind is object:
            made = OBJECTS.get(name)
            return made(rng) if made else {f"key{n}": words(rng) for n in range(rng.randint(0, 2))}
        if kind in (int, float):
            least, most = NUMBERS.get(name, USUAL_NUMBERS)
            return rng.randint(int(least), int(most)) if kind is int else round(rng.uniform(least, most), 2)
        if kind is bool:
            return rng.random() < 0.5
        if kind is str:
            return TEXTS.get(name, words)(rng)
        if kind is type(None):
            return None
        raise TypeError(f"{name}: no value of {kind} is known")

    def _one_of(self, kinds: tuple[Any, ...], depth: int) -> Any:
        """A member of a union; deep down the plainest one."""
        kinds = tuple(
            kind for kind in kinds if _can_be_drawn(kind) and getattr(kind, "__name__", "") not in self._never
        )
        if depth >= MOST_DEPTH:
            return next((kind for kind in kinds if kind in (type(None), str)), kinds[0])
        weights = [self._weight(kind) for kind in kinds]
        return self._rng.choices(kinds, weights)[0]

    def _weight(self, kind: Any) -> float:
        if kind is type(None):
            return 2
        return 10 if not is_typeddict(kind) or kind.__name__ in self._likely else 0.25


@cache
def _shape(kind: Any) -> tuple[frozenset[str], Mapping[str, Any]]:
    """The names of the required members, and all members' types. The SDKs' annotations are texts, of which `TypedDict`
    itself cannot tell what is required."""
    mark: Any = Required
    marked = get_type_hints(kind, include_extras=True)
    required = {name for name, hint in marked.items() if get_origin(hint) is mark}
    return frozenset(required) | kind.__required_keys__, get_type_hints(kind)


def _is_union(kind: Any) -> bool:
    origin: Any = get_origin(kind)
    return origin is Union or origin is UnionType


def _can_be_drawn(kind: Any) -> bool:
    """Not so are the SDKs' own classes, and files: they stand beside what JSON has."""
    origin: Any = get_origin(kind)
    inner = get_args(kind)
    if _is_union(kind):
        return any(map(_can_be_drawn, inner))
    if origin in (list, dict, collections.abc.Iterable, collections.abc.Sequence):
        return _can_be_drawn(inner[-1])
    return is_typeddict(kind) or origin is Literal or kind in (str, int, float, bool, object, type(None))


@cache
def fields_of(kind: Any) -> frozenset[str]:
    """The names of a TypedDict's members."""
    return frozenset(_shape(kind)[1])
