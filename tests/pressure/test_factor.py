"""The rules of the factor: its bounds, its turns, what it does with odd waits and clocks, and that it settles."""

import itertools
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core.pressure.factor import FRESH, GROWS, LONGEST_STEP, SHRINKS, TURN, FactorRules, FactorState, step
from gateway.core.pressure.factor import read as read_state
from gateway.core.pressure.factor import write as write_state

RULES = FactorRules(begin=5.0, end=1.0, full=30.0, hold=5.0, floor=0.25, shrink=0.05, grow=0.02)


@st.composite
def rule_sets(draw: st.DrawFn) -> FactorRules:
    end = draw(st.floats(0, 10))
    begin = end + draw(st.floats(0.01, 20))
    full = begin + draw(st.floats(0.01, 100))
    floor, moves = draw(st.floats(0.05, 1.0)), st.floats(0.001, 1.0)
    return FactorRules(begin, end, full, draw(st.floats(0, 20)), floor, draw(moves), draw(moves))


waits = st.floats(0, 200) | st.sampled_from([0.0, 1e9, math.inf, math.nan, -1.0])
seconds = st.floats(-100, 100) | st.sampled_from([0.0, 1.0, 3600.0, -1e9, 1e9])


def drive(state: FactorState, rules: FactorRules, wait: float, times: int, passed: float = 1.0) -> FactorState:
    for _ in range(times):
        state = step(state, rules, wait, passed)
    return state


@given(rule_sets(), st.lists(st.tuples(waits, seconds), max_size=300))
@settings(max_examples=200)
def test_bounds_and_turns(rules: FactorRules, readings: list[tuple[float, float]]) -> None:
    """The factor stays between its floor and 1, moves as fast as allowed, and two turns are a minute apart in counted
    seconds: a clock that is set counts for `LONGEST_STEP` at the most."""
    state, counted, turned_at, last_move = FRESH, 0.0, -TURN, GROWS
    for wait, passed in readings:
        before, state = state, step(state, rules, wait, passed)
        credit = min(max(passed, 0.0), LONGEST_STEP)
        counted += credit
        assert rules.floor <= state.factor <= 1.0
        moved = state.factor - before.factor
        assert -rules.shrink * credit - 1e-9 <= moved <= rules.grow * credit + 1e-9
        if moved:
            direction = SHRINKS if moved < 0 else GROWS
            if direction != last_move:
                assert counted - turned_at >= TURN - 1e-6
                turned_at, last_move = counted, direction


@given(rule_sets(), st.lists(st.tuples(waits, seconds), max_size=50), waits, waits, st.floats(0, 3))
def test_a_longer_wait_never_leaves_more(
    rules: FactorRules, before: list[tuple[float, float]], one: float, other: float, passed: float
) -> None:
    state = FRESH
    for wait, gone in before:
        state = step(state, rules, wait, gone)
    if math.isnan(one) or math.isnan(other):
        return
    short, long = sorted((one, other))
    assert step(state, rules, long, passed).factor <= step(state, rules, short, passed).factor


@given(rule_sets(), st.lists(st.tuples(waits, seconds), max_size=50))
def test_without_pressure_it_comes_back_to_one(rules: FactorRules, before: list[tuple[float, float]]) -> None:
    state = FRESH
    for wait, passed in before:
        state = step(state, rules, wait, passed)
    needed = TURN + rules.hold + 1 / rules.grow + 3
    assert drive(state, rules, 0.0, math.ceil(needed)).factor == 1.0


def test_it_shrinks_in_proportion_and_holds_between_the_lines() -> None:
    assert drive(FRESH, RULES, 4.9, 100) == FRESH._replace(since_turn=TURN)
    half = drive(FRESH, RULES, 17.5, 100)
    assert half.factor == pytest.approx(0.625)
    assert drive(half, RULES, 14.0, 500).factor == half.factor, "between the lines it stays"
    assert drive(half, RULES, 13.0, 500).factor == pytest.approx(0.64)
    assert drive(FRESH, RULES, 30.0, 100).factor == drive(FRESH, RULES, math.inf, 100).factor == RULES.floor


def test_a_short_peak_turns_nothing() -> None:
    assert drive(FRESH, RULES, 100.0, 4).factor == 1.0
    assert drive(drive(FRESH, RULES, 100.0, 4), RULES, 0.0, 1).asked == 0.0


def test_it_turns_back_after_a_minute_at_the_earliest() -> None:
    shrunk = drive(FRESH, RULES, 100.0, 10)
    assert shrunk.factor < 1.0 and shrunk.direction == SHRINKS
    assert drive(shrunk, RULES, 0.0, 54).factor == shrunk.factor
    assert drive(shrunk, RULES, 0.0, 56).factor > shrunk.factor


def test_clocks_that_are_set_and_pauses_are_one_short_step() -> None:
    shrunk = drive(FRESH, RULES, 100.0, 10)
    for passed in (3600.0, 1e9):
        assert step(shrunk, RULES, 0.0, passed).since_turn == shrunk.since_turn + LONGEST_STEP
    for passed in (-3600.0, 0.0):
        assert step(shrunk, RULES, 100.0, passed) == shrunk
    assert step(shrunk, RULES, math.nan, 1.0).factor == shrunk.factor


def test_a_floor_that_a_reload_raises_is_approached_at_the_usual_pace() -> None:
    low = drive(FRESH, RULES, 100.0, 100)
    raised = FactorRules(floor=0.5)
    states = [low]
    for _ in range(200):
        states.append(step(states[-1], raised, 100.0, 1.0))
    assert states[-1].factor == 0.5
    assert all(0 <= after.factor - before.factor <= 0.021 for before, after in itertools.pairwise(states))


@given(rule_sets(), st.lists(st.tuples(waits, seconds), max_size=30))
def test_a_state_survives_its_text(rules: FactorRules, readings: list[tuple[float, float]]) -> None:
    state = FRESH
    for wait, passed in readings:
        state = step(state, rules, wait, passed)
    assert read_state(write_state(state)) == state


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"1",
        b"null",
        b"0.25",
        b"\xff",
        b'{"factor":"0.25","direction":1,"since_turn":1,"asked":1}',
        b'{"factor":0,"direction":1,"since_turn":1,"asked":1}',
        b'{"factor":1.5,"direction":1,"since_turn":1,"asked":1}',
        b'{"factor":NaN,"direction":1,"since_turn":1,"asked":1}',
        b'{"factor":0.5,"direction":0,"since_turn":1,"asked":1}',
        b'{"factor":0.5,"direction":true,"since_turn":1,"asked":1}',
        b'{"factor":0.5,"direction":1,"since_turn":61,"asked":1}',
        b'{"factor":0.5,"direction":1,"since_turn":1,"asked":-1}',
        b'{"factor":0.5,"direction":1,"since_turn":1}',
        b'{"factor":0.5,"direction":1,"since_turn":1,"asked":1' + b"0" * 400 + b"}",
    ],
)
def test_what_is_no_state_is_none(text: bytes) -> None:
    assert read_state(text) is None


def test_fields_of_a_newer_gateway_are_left_out() -> None:
    text = b'{"factor":0.5,"direction":-1,"since_turn":3,"asked":0,"mood":"good"}'
    assert read_state(text) == FactorState(0.5, SHRINKS, 3.0, 0.0)


@given(st.floats(1.05, 1.6), st.integers(0, 2**32))
@settings(max_examples=20)
def test_it_settles_where_budgets_act_at_once(load: float, seed: int) -> None:
    """A queue that grows by what budgets bring beyond capacity: the wait comes to rest between `begin` and `full`, and
    the factor swings by less than a tenth."""
    state, wait, factors = FRESH, 0.0, []
    for second in range(1800):
        wait = max(0.0, wait + load * state.factor - 1.0)
        state = step(state, RULES, wait, 1.0)
        if second > 900:
            factors.append(state.factor)
    assert RULES.end < wait < RULES.full
    assert max(factors) - min(factors) < 0.1
