"""The routing policies: pure functions over facts, so every case is a line."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as some

from gateway.core.routing.decode_speed import DecodeSpeed, answer_costs
from gateway.core.routing.placement import Placement
from gateway.core.routing.prefill_speed import ENOUGH, PrefillSpeed
from gateway.core.routing.selection import (
    EXPECTED_WAIT,
    POLICIES,
    Candidate,
    LastTurn,
    PlacedPrompt,
    PrefillBacklog,
    RandomDraw,
    expected_wait,
    in_cache,
    level,
    rendezvous,
)

PACE = 1 / 8000
A, B, C = (Candidate(name, PACE) for name in "abc")
PROMPT = PlacedPrompt(8000, b"talk")
CALM = RandomDraw(0, 0.0)


def choose(*candidates: Candidate, left: LastTurn | None = None, load_penalty: float = 1.0, **pending: int) -> str:
    backlog = {name: PrefillBacklog(tokens, 2) for name, tokens in pending.items()}
    return expected_wait(candidates, PROMPT, backlog, left, load_penalty).name


def test_the_shorter_backlog_is_chosen_and_rendezvous_decides_between_equals() -> None:
    assert choose(A, B, a=1000) == "b"
    assert choose(A, B, b=1000) == "a"
    assert choose(A, B, C) == choose(C, B, A) == rendezvous([A, B, C], PROMPT.conversation)[0].name


def test_a_conversation_stays_until_the_wait_costs_more_than_its_cache_saves() -> None:
    at_home = LastTurn("a", 6000)
    # Three quarters of the backlog count, since one of two is half done; what is cached saves twice its tokens.
    assert choose(A, B, left=at_home, a=15_900) == "a"
    assert choose(A, B, left=at_home, a=16_100) == "b"


def test_a_cache_that_began_empty_since_is_not_counted_on() -> None:
    restarted = A._replace(warm=30.0)
    assert choose(B, restarted, left=LastTurn("a", 6000, age=29.0), a=100) == "a"
    assert choose(B, restarted, left=LastTurn("a", 6000, age=31.0), a=100) == "b"


def test_a_full_node_is_left_for_an_empty_one_where_nothing_is_pending() -> None:
    full = A._replace(crowd=1.0)
    assert choose(full, B, left=LastTurn("a", 3900)) == "b"
    assert choose(full, B, left=LastTurn("a", 3900), load_penalty=0.5) == "a"


def test_a_long_answer_goes_where_tokens_are_made_faster_and_a_short_one_where_its_prompt_is_cached() -> None:
    at_home, paces = LastTurn("a", 6000), [0.04, 0.02]

    def choose_for(answer: int) -> str:
        costs = answer_costs(paces, [1.0, 1.0], answer)
        nodes = [A._replace(answer=costs[0], crowd=0.5), B._replace(answer=costs[1], crowd=0.5)]
        return choose(*nodes, left=at_home)

    assert choose_for(500) == "a"
    assert choose_for(8000) == "b"


@pytest.mark.parametrize("paces", [[None, None], [0.02, 0.02], [0.02, 0.025, None]])
def test_among_nodes_that_are_about_as_fast_an_answer_costs_nothing(paces: list[float | None]) -> None:
    assert set(answer_costs(paces, [1.0] * len(paces), 8000)) == {0.0}


@given(some.integers(0, 9000), some.integers(1, 9000), some.integers(1, 1000))
def test_a_cache_holds_whole_blocks(left: int, prompt: int, block: int) -> None:
    cached = in_cache(A._replace(block=block), PlacedPrompt(prompt, b"talk"), LastTurn("a", left))
    assert cached % block == 0
    assert min(left, prompt) - block < cached <= min(left, prompt)


@given(some.integers(0, 9000), some.integers(1, 9000))
def test_what_was_written_since_takes_its_place(passed: int, lasting: int) -> None:
    cached = in_cache(A._replace(lasting=lasting), PROMPT, LastTurn("a", 6000, 5.0, passed))
    assert cached == (6000 if passed <= lasting else 0)


def test_the_own_view_counts_what_is_written_into_a_cache() -> None:
    placement, home = Placement(), A._replace(lasting=10_000)
    placement.add(placement.choose(EXPECTED_WAIT, [home], PROMPT, CALM, 0.0), PROMPT, 0.0)
    for tokens, answer, cached in ((4000, 1000, 8000), (1, 5000, 0)):
        other = PlacedPrompt(tokens, b"%d" % tokens, answer)
        placement.add(placement.choose(EXPECTED_WAIT, [home], other, CALM, 1.0), other, 1.0)
        assert placement.choose(EXPECTED_WAIT, [home], PROMPT, CALM, 2.0).cached == cached


def test_the_speed_of_tokens_is_learnt_whatever_the_crowd() -> None:
    empty, full = DecodeSpeed(), DecodeSpeed()
    for _ in range(ENOUGH):
        assert empty.pace is None
        empty.learn(0.0, 1000, 10.0)
        empty.learn(0.0, 10, 9.0)
        full.learn(1.0, 1000, 40.0)
    assert empty.pace == full.pace == pytest.approx(0.04)


def test_a_client_that_reads_slowly_makes_no_node_slow() -> None:
    speed = DecodeSpeed()
    for number in range(200):
        speed.learn(1.0, 1000, 400.0 if number % 4 == 3 else 20.0)
    assert speed.pace is not None
    assert speed.pace < 0.02 * 1.3


def test_a_slow_node_gets_less() -> None:
    assert choose(A._replace(pace=2 * PACE), B, b=20_000) == "b"
    assert choose(A._replace(pace=2 * PACE), B, b=22_000) == "a"


@given(some.binary(max_size=16), some.integers(2, 12))
def test_rendezvous_moves_nobody_when_another_node_leaves(conversation: bytes, count: int) -> None:
    nodes = [Candidate(f"n{i}", PACE) for i in range(count)]
    order = rendezvous(nodes, conversation)
    assert rendezvous(nodes[::-1], conversation) == order
    assert rendezvous([node for node in nodes if node != order[-1]], conversation) == order[:-1]


def test_rendezvous_heeds_weights() -> None:
    nodes = [A, B._replace(weight=3.0)]
    homes = Counter(rendezvous(nodes, b"%d" % i)[0].name for i in range(4000))
    assert 2.5 < homes["b"] / homes["a"] < 3.5


def test_round_robin_takes_turns() -> None:
    chosen = [POLICIES["round_robin"]([A, B, C], PROMPT, RandomDraw(turn, 0.0)).name for turn in range(6)]
    assert chosen == list("abcabc")


def test_least_loaded_counts_places_taken_for_the_weight() -> None:
    busy, strong = A._replace(crowd=0.5), B._replace(crowd=0.8, weight=2.0)
    assert POLICIES["least_loaded"]([busy, strong], PROMPT, CALM).name == "b"
    level_ones = Counter(POLICIES["least_loaded"]([A, B, C], PROMPT, RandomDraw(turn, 0.0)).name for turn in range(9))
    assert set(level_ones.values()) == {3}


@given(some.floats(0, 1, exclude_max=True), some.integers(2, 9))
def test_power_of_two_looks_at_two_different_nodes(draw: float, count: int) -> None:
    nodes = [Candidate(f"n{i}", PACE, crowd=float(i)) for i in range(count)]
    chosen = POLICIES["power_of_two"](nodes, PROMPT, RandomDraw(0, draw)).name
    assert chosen != f"n{count - 1}", "the fullest of all is never the less loaded of two"


def test_power_of_two_looks_at_every_pair() -> None:
    nodes = [Candidate(f"n{i}", PACE, crowd=float(i)) for i in range(4)]
    seen = Counter(POLICIES["power_of_two"](nodes, PROMPT, RandomDraw(0, i / 1200)).name for i in range(1200))
    assert seen == {"n0": 600, "n1": 400, "n2": 200}


@pytest.mark.parametrize("policy", [*POLICIES, EXPECTED_WAIT])
def test_every_policy_serves_with_one_node(policy: str) -> None:
    assert Placement().choose(policy, [A], PROMPT, RandomDraw(7, 0.99), 0.0).node == "a"


def test_what_is_pending_is_taken_back_at_the_first_byte() -> None:
    placement = Placement()
    first = placement.choose(EXPECTED_WAIT, [A, B], PROMPT, CALM, 0.0)
    placement.add(first, PROMPT, 0.0)
    other = PlacedPrompt(100, b"other")
    second = placement.choose(EXPECTED_WAIT, [A, B], other, CALM, 0.0)
    assert second.node != first.node
    placement.add(second, other, 0.0)
    placement.prefilled(second)
    placement.prefilled(first)
    assert placement.pending == {}


def test_a_conversation_is_remembered_for_its_time_and_the_oldest_are_forgotten_first() -> None:
    placement = Placement(affinity_ttl=60.0, limit=2)
    for number, name in enumerate((b"x", b"y", b"z")):
        prompt = PlacedPrompt(1000, name)
        placement.add(placement.choose(EXPECTED_WAIT, [A, B], prompt, CALM, number), prompt, float(number))
    assert placement.left(b"x", 3.0) is None
    assert placement.left(b"z", 62.0) is not None
    assert placement.left(b"z", 62.1) is None


def test_conversations_are_dropped_when_their_time_is_over() -> None:
    """A new one each second for three times the time to live: what is kept is what still counts."""
    placement = Placement(affinity_ttl=60.0)

    def turn(name: bytes, now: float) -> None:
        prompt = PlacedPrompt(1000, name)
        choice = placement.choose(EXPECTED_WAIT, [A, B], prompt, CALM, now)
        placement.add(choice, prompt, now)
        placement.prefilled(choice)

    for second in range(180):
        turn(b"%d" % second, float(second))
        turn(b"goes on", float(second))
        assert placement.remembered <= 62
    assert placement.left(b"119", 179.0) is not None, "nothing goes before its time"
    for second in range(20):
        turn(b"goes on", 1000.0 + second)
    assert placement.remembered == 1, "a few at a time, where all are over at once"
    turn(b"new", 1020.0)
    placement.affinity_ttl = 10.0  # as a reload does
    for second in range(3):
        turn(b"goes on", 1031.0 + second)
    assert placement.remembered == 1


def test_a_hot_conversation_cannot_overload_its_node() -> None:
    """Fifty of one conversation at once, all of its prompt cached at home: they spread as places fill."""
    placement, taken = Placement(), Counter[str]()
    hot = PlacedPrompt(3000, b"hot")
    for _ in range(50):
        candidates = [Candidate(name, PACE, taken[name] / 16) for name in "abcd"]
        choice = placement.choose(EXPECTED_WAIT, candidates, hot, CALM, 0.0)
        placement.add(choice, hot, 0.0)
        placement.prefilled(choice)
        taken[choice.node] += 1
    assert max(taken.values()) <= 16
    assert len(taken) == 4


def test_a_new_node_fills_up() -> None:
    """Two nodes hold all conversations and a backlog; a third comes, empty: work goes there until it waits as long."""
    placement, served = Placement(), Counter[str]()
    for number in range(48):
        prompt = PlacedPrompt(2000 + 1000 * (number // 12), b"%d" % (number % 12))
        nodes = [A, B] if number < 24 else [A, B, C]
        choice = placement.choose(EXPECTED_WAIT, nodes, prompt, CALM, 0.0)
        placement.add(choice, prompt, 0.0)
        served[choice.node] += number >= 24
    assert served["c"] >= 8
    assert served["a"] + served["b"] >= 8, "once they wait alike, conversations stay"


def test_nodes_that_are_about_as_fast_count_as_equal() -> None:
    assert level([None, 1.0, 1.2, 0.9], 5.0) == [1.0, 1.0, 1.0, 1.0]
    assert level([None, 1.0, 1.0, 2.0], 5.0) == [1.0, 1.0, 1.0, 2.0]
    assert level([None, None], 5.0) == [5.0, 5.0]


def test_speed_is_learnt_from_prompts_that_had_the_node_to_themselves() -> None:
    speed = PrefillSpeed()
    for _ in range(ENOUGH):
        assert speed.pace is None
        speed.learn(0, 8000, 1.0)
        speed.learn(4000, 8000, 9.0)
        speed.learn(0, 10, 1.0)
    assert speed.pace == pytest.approx(1 / 8000)
    speed.learn(0, 8000, 60.0)
    assert speed.pace == pytest.approx(1.1 / 8000)


def test_what_is_too_fast_to_be_a_prefill_makes_no_node_better_than_another() -> None:
    quick, quicker = PrefillSpeed(), PrefillSpeed()
    for _ in range(ENOUGH):
        quick.learn(0, 1000, 0.003)
        quicker.learn(0, 1000, 0.001)
    assert quick.pace == quicker.pace
