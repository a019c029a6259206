"""The budget of bytes, and what JSON takes once it is parsed: never less than it really takes."""

import json
import sys
from itertools import pairwise
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.bodies import MAX_DEPTH, parse_body, parse_steps
from gateway.core.errors import InvalidRequest
from gateway.core.http.json_size import JsonSize, small_size
from gateway.core.memory import STRANGER, Holding, MemoryBudget

TEXTS = st.text(max_size=20) | st.sampled_from(
    ['"', "\\", '\\"', "{[,:", "\\\\", "é", "中", "\U0001f600", "\\u0022", ""]
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(TEXTS, inner, max_size=6),
    max_leaves=40,
)


def held_by(value: Any) -> int:
    """What a parsed value takes, its keys included; what Python shares (small integers, True) as nothing."""
    if isinstance(value, dict):
        inner = sum(sys.getsizeof(key) + held_by(each) for key, each in value.items())
        return sys.getsizeof(value) + inner
    if isinstance(value, list):
        return sys.getsizeof(value) + sum(map(held_by, value))
    return 0 if value is None or isinstance(value, bool) or value in range(-5, 257) else sys.getsizeof(value)


def values_in(value: Any) -> int:
    """As `JsonSize` counts: commas, and opening brackets."""
    if not isinstance(value, dict | list):
        return 0
    inner = list(value.values()) if isinstance(value, dict) else value
    return 1 + max(0, len(inner) - 1) + sum(map(values_in, inner))


@given(VALUES, st.booleans(), st.lists(st.integers(0, 400), max_size=12))
def test_what_stands_outside_of_strings_is_counted_however_it_is_cut(value: Any, ascii: bool, cuts: list[int]) -> None:
    raw = json.dumps(value, ensure_ascii=ascii).encode(errors="surrogatepass")
    size = JsonSize()
    places = sorted({0, len(raw), *(cut for cut in cuts if cut < len(raw))})
    for start, end in pairwise(places):
        size.feed(raw[start:end])
    assert size.values == values_in(value)
    assert size.length == len(raw)


SHAPES: dict[str, bytes] = {
    "text": b'"%b"' % (b"lorem ipsum " * 5000),
    "wide text": b'"%b"' % ("lorem ipsum " * 5000 + "\U0001f600").encode(),
    "one escaped surrogate": b'"%b\\ud83d\\ude00"' % (b"lorem ipsum " * 5000),
    "wider text": b'"%b"' % ("lorem ipsum " * 5000 + "中").encode(),
    "[]": b"[%b]" % b",".join([b"[]"] * 20_000),
    "{}": b"[%b]" % b",".join([b"{}"] * 20_000),
    "objects of one": b"[%b]" % b",".join([b'{"a":1}'] * 20_000),
    "arrays of one": b"[%b]" % b",".join([b"[1]"] * 20_000),
    "messages": b"[%b]" % b",".join([b'{"role":"user","content":"hi"}'] * 20_000),
    "token ids": b"[%b]" % b",".join(b"%d" % (number + 1000) for number in range(20_000)),
    "fractions": b"[%b]" % b",".join([b"1.5"] * 20_000),
    "short strings": b"[%b]" % b",".join(b'"%x"' % number for number in range(20_000)),
    "keys": b"{%b}" % b",".join(b'"%x":1' % number for number in range(20_000)),
    "keys and objects": b"{%b}" % b",".join(b'"%x":{"a":"%x"}' % (number, number) for number in range(20_000)),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_no_shape_takes_more_than_is_held_for_it(shape: str) -> None:
    raw = b'{"model":"m","messages":[],"x":%b}' % SHAPES[shape]
    size = JsonSize()
    size.feed(raw)
    assert held_by(orjson.loads(raw)) + len(raw) <= size.size


def size_of(*pieces: bytes) -> int:
    size = JsonSize()
    for piece in pieces:
        size.feed(piece)
    return size.size


def test_an_escape_is_as_wide_as_its_character() -> None:
    narrow, wide, widest = size_of(b'["abcdef"]'), size_of(rb'["\u4e2d"]'), size_of(rb'["\ud83d"]')
    assert narrow < wide < widest
    assert size_of(rb'["\u00ed"]') == wide
    assert size_of(b'["\\', b'ud83d"]') == size_of(b'["\\u', b'd83d"]') == widest


def test_an_escape_takes_no_width_back() -> None:
    emoji = '["\U0001f600'.encode()
    assert size_of(emoji + rb'\u4e2d"]') == size_of(emoji + b'abcdef"]')


@given(st.dictionaries(st.text(max_size=5), VALUES, max_size=6))
def test_a_small_body_is_never_held_for_less(value: dict[str, Any]) -> None:
    try:
        raw = orjson.dumps(value)
    except TypeError:
        return
    assert held_by(orjson.loads(raw)) <= small_size(raw) + 512  # an empty dict of the shared kind


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 60), st.booleans()), max_size=40))
def test_nobody_holds_more_than_is_left_after_it(steps: list[tuple[str, int, bool]]) -> None:
    budget = MemoryBudget(100)
    held: list[Holding] = []
    for owner, size, give_back in steps:
        if give_back and held:
            held.pop(0).shrink(0)
            continue
        holding = Holding(budget)
        holding.set_owner(owner)
        if holding.acquire(size):
            assert budget.held_by(owner) <= budget.limit - budget.held
            held.append(holding)
    assert budget.held == sum(holding.size for holding in held)
    for holding in held:
        holding.shrink(0)
        holding.shrink(0)  # a second time changes nothing
    assert (budget.held, [budget.held_by(owner) for owner in "abc"]) == (0, [0, 0, 0])


def test_one_owner_takes_half_and_leaves_room_for_the_next() -> None:
    budget = MemoryBudget(100)
    assert budget.acquire("a", budget.most)
    assert not budget.acquire("a", 1)
    assert budget.acquire("b", 25)
    assert not budget.acquire("b", 1)


def test_what_a_stranger_held_goes_to_whoever_it_turns_out_to_be() -> None:
    budget = MemoryBudget(100)
    holding = Holding(budget)
    assert holding.acquire(30)
    assert budget.held_by(STRANGER) == 30
    holding.set_owner("a")
    assert (budget.held_by(STRANGER), budget.held_by("a"), budget.held) == (0, 30, 30)


@given(
    VALUES,
    st.sampled_from([b"%b", b"%b ", b'{"a":1,"a":%b}', b"{%b", b"\xff%b", b'{"x":%b,"y":"\\u0022"}', b'{"x":%b}']),
)
def test_a_body_is_read_in_steps_as_at_once(value: Any, wrap: bytes) -> None:
    try:
        raw = wrap % orjson.dumps(value)
    except TypeError:
        return
    _same(raw)


@pytest.mark.parametrize("depth", [1, MAX_DEPTH - 2, MAX_DEPTH - 1, MAX_DEPTH, MAX_DEPTH + 1, 3000])
def test_depth_is_bounded_in_steps_as_at_once(depth: int) -> None:
    _same(b'{"x":%b%b}' % (b"[" * depth, b"]" * depth))


def _same(raw: bytes) -> None:
    def told(read: Any) -> Any:
        try:
            return read()
        except InvalidRequest as error:
            return error.code, error.message

    assert told(lambda: parse_body(raw)) == told(lambda: list(parse_steps(raw))[-1])
