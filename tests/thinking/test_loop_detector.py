"""The detector finds what a plain model of loops finds, at the same token, and nothing else."""

from collections.abc import Sequence
from random import Random

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gateway.core.thinking.loop_detector import GUARD, LONGEST, SHORTEST, LoopDetector


def first_loop(ids: Sequence[int], repeats: int) -> tuple[int, int] | None:
    """By counting, for each period, how long it has held: the number of tokens at which a loop is complete, and its
    period; None where there is none."""
    held = [0] * (LONGEST + 1)
    for made, token in enumerate(ids, 1):
        for period in range(1, LONGEST + 1):
            held[period] = held[period] + 1 if made > period and ids[made - 1 - period] == token else 0
        for period in range(1, LONGEST + 1):
            least = repeats * period + GUARD
            if held[period] + period >= least and not any(held[p] + p >= least for p in range(1, period)):
                if period >= SHORTEST:
                    return made, period
                break
    return None


def found(ids: Sequence[int], events: Sequence[int], repeats: int) -> tuple[int, int] | None:
    """The same by the detector, of ids that come in `events` of so many tokens each, again and again."""
    detector, kept, made, turn = LoopDetector(repeats), bytearray(), 0, 0
    while made < len(ids):
        part = ids[made : made + events[turn % len(events)]]
        turn += 1
        made += len(part)
        kept += b"[" + ",".join(map(str, part)).encode()
        if len(kept) >= detector.next_look and detector.look(kept):
            return made, detector.period
    return None


@st.composite
def answers(draw: st.DrawFn) -> list[int]:
    """Token ids with a repeat in them, whose block may have repeats of its own."""
    rng = Random(draw(st.integers(0, 1 << 32)))
    words = draw(st.sampled_from([2, 3, 10, 1000, 150_000, 9_000_000]))
    least = draw(st.sampled_from([0, 10]))
    period = draw(st.one_of(st.integers(1, 12), st.integers(1, LONGEST + 12)))
    block = [least + rng.randrange(words) for _ in range(period)]
    if draw(st.booleans()):
        size = rng.randint(1, period)
        begin = rng.randint(0, period - size)
        block[begin : begin + size] = [block[begin]] * size
    before = [least + rng.randrange(words) for _ in range(draw(st.integers(0, 300)))]
    length = draw(st.integers(0, 3 * period + 130))
    after = [least + rng.randrange(words) for _ in range(draw(st.integers(0, 40)))]
    return [*before, *(block[at % period] for at in range(length)), *after]


@given(ids=answers(), repeats=st.integers(2, 5))
@settings(max_examples=150, deadline=None)
@example(ids=[1, 1, 1, 1, 2] * 30, repeats=3)
@example(ids=[12] * 500, repeats=3)
@example(ids=[5, 123] * 200, repeats=3)
def test_the_detector_agrees_with_the_model(ids: list[int], repeats: int) -> None:
    expected, got = first_loop(ids, repeats), found(ids, [1], repeats)
    if repeats > 2 and min(ids, default=10) >= 10:
        assert got == expected
    elif repeats > 2 and got is not None:  # ids of one digit may take eight tokens more
        assert expected is not None and expected[0] <= got[0]
        assert first_loop(ids[: got[0]], repeats) is not None
    elif repeats > 2 and expected is not None:
        later = ids[expected[0] : expected[0] + 8]
        assert len(later) < 8 or any(ids[expected[0] + at - expected[1]] != token for at, token in enumerate(later))
    elif got is not None or expected is not None:  # a period is certain once it has come three times
        assert expected is not None
        assert got is None or (got[1] == expected[1] and expected[0] <= got[0])


@given(ids=answers(), events=st.lists(st.integers(1, 9), min_size=1, max_size=7))
@settings(max_examples=150, deadline=None)
def test_however_the_tokens_come_in_events(ids: list[int], events: list[int]) -> None:
    """A loop that is complete within an event is found at its end, where it still holds there."""
    expected, got = first_loop(ids, 3), found(ids, events, 3)
    if got is not None:
        assert expected is not None and expected[0] <= got[0]
        assert first_loop(ids[: got[0]], 3) is not None
    elif expected is not None:
        later = ids[expected[0] : expected[0] + 2 * max(events)]
        goes_on = [ids[expected[0] + at - expected[1]] == token for at, token in enumerate(later)]
        assert not all(goes_on) or len(later) < 2 * max(events)


@pytest.mark.parametrize("words", [150_000, 10], ids=["usual ids", "short ids"])
def test_every_period_is_cut_within_three_of_it_and_64_tokens(words: int) -> None:
    rng = Random(words)
    for period in range(SHORTEST, LONGEST + 1):
        for events in ([1], [3], [1, 5, 2], [8]):
            before = [rng.randrange(words) for _ in range(rng.randint(0, 400))]
            block = [rng.randrange(words) for _ in range(period - 1)]
            block.append(words)  # no other token of it: the period is the smallest one
            got = found(before + block * (5 + 80 // period), events, 3)
            assert got is not None and got[1] == period
            assert got[0] - len(before) <= 3 * period + 64, (period, events)


@pytest.mark.parametrize("period", [1, 2, 3])
def test_a_short_period_is_no_loop(period: int) -> None:
    assert found([900 + at % period for at in range(2000)], [1], 3) is None


def test_a_long_period_is_no_loop() -> None:
    assert found([at % (LONGEST + 1) for at in range(2000)], [1], 3) is None


@pytest.mark.parametrize("repeats", [2, 3, 10, 50])
def test_more_repeats_wait_longer(repeats: int) -> None:
    ids = [500 + at % 20 for at in range(2000)]
    assert found(ids, [1], repeats) == (repeats * 20 + GUARD, 20)


def test_a_loop_with_a_rule_of_dashes_in_it_is_one() -> None:
    block = [*range(1000, 1010), *[45] * 60, 10]
    got = found(block * 6, [1], 3)
    assert got is not None and got[1] == len(block)


def test_looks_are_few_where_nothing_repeats() -> None:
    """One for about 17 ordinary tokens, whatever the length: what is kept is not walked."""
    rng = Random(3)
    detector, kept, looks = LoopDetector(3), bytearray(), 0
    for _ in range(20_000):
        kept += b"[%d" % rng.randrange(1000, 150_000)
        if len(kept) >= detector.next_look:
            looks += 1
            assert not detector.look(kept)
    assert looks <= len(kept) / 96
