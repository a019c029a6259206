"""When gateways go by their groups of models: what Redis says, by the age of its word."""

import itertools

import pytest

from gateway.core.routing.grouping import (
    APART,
    LOOK,
    SETTLED,
    STEP,
    TOGETHER,
    GroupPhase,
    fingerprint,
    may_begin,
    phase_of,
)

FIRST, SECOND, AFTER = 0.5 * STEP, 1.5 * STEP, 2 * STEP


@pytest.mark.parametrize(
    ("before", "now", "seconds", "phase"),
    [
        ("", "own", FIRST, GroupPhase(False, True)),
        ("", "own", SECOND, GroupPhase(True, True)),
        ("", "own", AFTER, APART),
        ("own", "own", 0.0, APART),  # nothing was agreed on before
        ("own", "", FIRST, GroupPhase(True, True)),
        ("own", "", SECOND, GroupPhase(False, True)),
        ("own", "", AFTER, TOGETHER),
        ("", "", 0.0, TOGETHER),
        ("other", "", FIRST, TOGETHER),
        ("", "other", SECOND, TOGETHER),
        ("other", "other", AFTER, TOGETHER),
    ],
)
def test_the_phase(before: str, now: str, seconds: float, phase: GroupPhase) -> None:
    assert phase_of("own", before, now, seconds) == phase


def test_a_gateway_without_groups_has_one() -> None:
    for before, now, seconds in itertools.product(("", "other"), ("", "other"), (0.0, FIRST, SECOND, AFTER)):
        assert phase_of("", before, now, seconds) == TOGETHER


@pytest.mark.parametrize(("before", "now"), [("", "own"), ("own", "")])
def test_gateways_a_step_apart_count_where_the_other_one_chooses(before: str, now: str) -> None:
    """Each reads the time once a second, and may miss a look or two."""
    times = [tenth * STEP / 10 for tenth in range(-10, 40)]
    for early, late in itertools.product(times, times):
        if not 0 <= late - early < STEP:
            continue
        # Until Redis has said so, a gateway is where it was.
        one = phase_of("own", before, now, early) if early >= 0 else phase_of("own", before, before, 1e6)
        other = phase_of("own", before, now, late) if late >= 0 else phase_of("own", before, before, 1e6)
        assert one.apart == other.apart or (one.both and other.both), (early, late)
        for chooser, counter in ((one, other), (other, one)):
            assert counter.both or counter.apart == chooser.apart, (early, late)


@pytest.mark.parametrize("own", ["", "own"])
def test_a_gateway_begins_once_those_with_other_groups_choose_and_count_where_it_does(own: str) -> None:
    """They may be two looks late. `leaving`: the groups that the others go by until then; those of `own` as well, which
    may be left over of gateways that are gone, or be gone by beside it."""
    for leaving, tenth in itertools.product(("other", "own"), range(60)):
        seconds = tenth * STEP / 10
        assert may_begin(own, leaving, leaving, seconds) is (leaving == own)
        if may_begin(own, leaving, "", seconds):
            mine = phase_of(own, leaving, "", seconds)
            for late in (0, LOOK, 2 * LOOK):
                others = phase_of(leaving, leaving, "", seconds - late)
                assert not mine.apart and not others.apart
    assert may_begin(own, "other", "", SETTLED)


def test_a_gateway_begins_at_once_where_nothing_is_in_its_way() -> None:
    for own, before, seconds in itertools.product(("", "own"), ("", "own"), (0.0, FIRST, SECOND, AFTER)):
        assert may_begin(own, "", "", seconds)
        assert not own or may_begin(own, before, own, seconds)


def test_a_fingerprint_is_of_what_is_named_and_not_of_its_order() -> None:
    named = {"a": "one", "b": "two"}
    assert fingerprint({}) == ""
    assert fingerprint(named) == fingerprint(dict(reversed(named.items())))
    others = [{"a": "two", "b": "one"}, {"a": "one"}, {"a": "one", "b": "one"}, {"a": "one", "c": "two"}]
    assert len({fingerprint(each) for each in (named, *others)}) == 5
