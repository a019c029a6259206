"""The rules for loops: four layers, field by field; on in reasoning where nobody says anything."""

import pytest

from gateway.core.thinking.loops import USUAL_BOUNDS, LoopBounds, LoopNote, LoopRules, loop_bounds
from gateway.core.thinking.policy import PolicyBook, PolicyLayer
from gateway.core.thinking.resolved import resolve


def test_loops_end_thoughts_where_nobody_says_anything() -> None:
    assert PolicyBook().of(None, "m") is None
    assert loop_bounds(None) == USUAL_BOUNDS == LoopBounds(reasoning=True, answer=False, repeats=3)


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        (LoopRules(reasoning=False), LoopBounds(False, False, 3)),
        (LoopRules(answer=True), LoopBounds(True, True, 3)),
        (LoopRules(repeats=7), LoopBounds(True, False, 7)),
    ],
)
def test_what_a_layer_says(rules: LoopRules, expected: LoopBounds) -> None:
    assert loop_bounds(resolve(LoopRules(), [("gateway", rules)])) == expected
    assert expected.any is (expected.reasoning or expected.answer)


def test_the_closest_layer_wins() -> None:
    gateway = PolicyLayer(loops=LoopRules(reasoning=False, answer=False, repeats=4))
    models = {"m": PolicyLayer(loops=LoopRules(reasoning=True))}
    book = PolicyBook(gateway, models)
    tenant = PolicyLayer(loops=LoopRules(repeats=5), per_model={"m": PolicyLayer(loops=LoopRules(answer=True))})
    for layer, model, expected in (
        (None, "other", LoopBounds(False, False, 4)),
        (None, "m", LoopBounds(True, False, 4)),
        (tenant, "m", LoopBounds(True, True, 5)),
    ):
        terms = book.of(layer, model)
        assert terms is not None and terms.thinking is None and terms.output is None
        assert loop_bounds(terms.loops) == expected
    assert not book.silent and PolicyBook().silent


def test_what_is_told_of_a_loop() -> None:
    note = LoopNote("reasoning", 12, 480)
    assert note.comment() == b": thinking ended after 480 tokens: the same 12 came again and again\n"
    assert note.header() == b"reasoning; period=12; tokens=480"
    assert LoopNote("answer", 4, 60).comment().startswith(b": answer ended after 60 tokens")
