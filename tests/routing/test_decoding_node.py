"""The decoding node of the replay: what it does does not depend on how often it is looked at."""

import random
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as some

from tests.support.decoding.node import NEVER, DecodingNode, Sequence
from tests.support.decoding.speeds import H200, NodeSpeed
from tests.support.replay import BLOCK

TIGHT = NodeSpeed(sequences=4, kv=4000, chunk=512, per_kv_token=1e-7)


def run(speed: NodeSpeed, asked: list[tuple[float, int, int]], looks: list[float]) -> tuple[dict[int, float], int]:
    """When each answer ended, and how often one was preempted."""
    node, ends = DecodingNode("node", speed), {}
    coming = sorted((at, number) for number, (at, _, _) in enumerate(asked))
    looks = sorted(looks)
    while coming or node.next < NEVER:
        when = min([node.next, *[at for at, _ in coming[:1]], *looks[:1]])
        if looks and looks[0] <= when:
            node.advance(looks.pop(0))
        elif coming and coming[0][0] <= when:
            at, number = coming.pop(0)
            prompt = asked[number][1]
            blocks = tuple(range(number * 100, number * 100 + prompt // BLOCK))
            node.add(Sequence(number, prompt, asked[number][2], blocks), at)
        else:
            for event in node.happen():
                if not event.first:
                    ends[event.sequence.number] = event.at
        assert node.held <= speed.kv or len(node.decoding) + len(node.prefilling) <= 1
        assert len(node.decoding) + len(node.prefilling) <= speed.sequences
    assert node.held == 0
    return ends, node.preempted


requests = some.lists(some.tuples(some.floats(0, 20), some.integers(1, 1500), some.integers(1, 1500)), max_size=12)


@given(requests, some.lists(some.floats(0, 60), max_size=12))
def test_every_answer_ends_and_a_look_changes_nothing(asked: list[tuple[float, int, int]], looks: list[float]) -> None:
    seen, _ = run(TIGHT, asked, looks)
    unseen, _ = run(TIGHT, asked, [])
    assert seen.keys() == unseen.keys() == set(range(len(asked)))
    assert all(seen[number] == pytest.approx(unseen[number], abs=0.5) for number in seen)


def test_a_full_cache_preempts_the_one_that_came_last() -> None:
    _, preempted = run(TIGHT, [(0.0, 1000, 1500), (0.1, 1000, 1500), (0.2, 1000, 1500)], [])
    assert preempted > 0
    alone, none = run(TIGHT, [(0.0, 1000, 1500)], [])
    assert none == 0
    assert alone[0] > 1500 * TIGHT.step(1)


def test_ten_conversations_get_the_rate_that_was_measured() -> None:
    ends, _ = run(H200, [(0.0, 1, 2000)] * 10, [])
    assert 2000 / ends[0] == pytest.approx(58.7, rel=0.02)


def test_the_oldest_of_the_cache_goes_first() -> None:
    node, dice = DecodingNode("node", TIGHT), random.Random(1)
    prompts = [tuple(dice.randrange(1 << 30) for _ in range(2)) for _ in range(8)]
    for number, blocks in enumerate(prompts):
        node.add(Sequence(number, 2 * BLOCK, 5, blocks), node.clock)
        while node.next < NEVER:
            node.happen()
    hits = [node.hit(blocks) for blocks in prompts]
    assert hits[0] == 0
    assert hits[-1] == 2
    assert all(before <= after for before, after in pairwise(hits))
