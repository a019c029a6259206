"""A request that kills nodes, told from those that nodes take along."""

import random
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.errors import NodeLeaving, UpstreamCut, UpstreamError, UpstreamTimeout
from gateway.core.resume.budget import MOST as MOST_BREAKS
from gateway.core.resume.budget import (
    MOST_APART,
    MOST_TOGETHER,
    PASSED,
    PROGRESS,
    SETTLING,
    ResumeDecision,
    Resumes,
)
from gateway.core.resume.node_deaths import MOST, STALLED_TOGETHER, TOGETHER, WINDOW, NodeDeath, NodeDeaths

GO_ON, KILLER, LIMIT = ResumeDecision.GO_ON, ResumeDecision.GIVE_UP_KILLER, ResumeDecision.GIVE_UP_LIMIT


@dataclass
class Answer:
    """An answer at its own count of tokens."""

    deaths: NodeDeaths
    limit: int = 2
    tokens: int = 0
    resumes: Resumes = field(init=False)

    def __post_init__(self) -> None:
        self.resumes = Resumes(self.limit, self.deaths, self.deaths.number())

    def breaks(self, node: str, made: int, now: float, kind: type[UpstreamError] = UpstreamCut) -> ResumeDecision:
        self.tokens += made
        return self.resumes.judge(kind("x"), node, self.tokens, now)


def die(
    node: str, now: float, *answers: tuple[Answer, int], kind: type[UpstreamError] = UpstreamCut
) -> list[ResumeDecision]:
    """A node dies: each answer has made so many tokens there. What is decided when all have broken off."""
    for number, (answer, made) in enumerate(answers):
        answer.breaks(node, made, now + number * 1e-3, kind)
    decisions = [answer.resumes.decide(now + SETTLING) for answer, _ in answers]
    for (answer, _), decision in zip(answers, decisions, strict=True):
        if decision is not GO_ON:
            answer.resumes.convict(now + SETTLING)
    return decisions


def answers(many: int) -> list[Answer]:
    deaths = NodeDeaths()
    return [Answer(deaths) for _ in range(many)]


def test_a_killer_takes_two_nodes_and_its_innocents_go_on() -> None:
    """Those that got on at the first node are at the second when it dies at once."""
    killer, *others = answers(30)
    assert die("A", 0.0, (killer, 0), *((other, 100) for other in others)) == [GO_ON] * 30
    assert die("B", 1.5, *((other, 3) for other in others), (killer, 0)) == [GO_ON] * 29 + [KILLER]
    assert die("C", 9.0, *((other, 50) for other in others)) == [GO_ON] * 29


def test_the_order_in_which_answers_break_decides_nothing() -> None:
    """Whoever breaks first cannot know yet that others break, too."""
    killer, *others = answers(4)
    die("A", 0.0, (killer, 0), (others[0], 0), (others[1], 99))
    assert killer.breaks("B", 0, 5.0) is KILLER, "alone, for all that is known"
    others[0].breaks("B", 0, 5.001)
    others[2].breaks("B", 99, 5.002)
    assert killer.resumes.decide(5.0 + SETTLING) is others[0].resumes.decide(5.0 + SETTLING) is GO_ON


def test_of_two_that_were_at_both_deaths_none_is_ended_until_they_part() -> None:
    killer, other, long = answers(3)
    die("A", 0.0, (killer, 0), (other, 0), (long, 99))
    assert die("B", 2.0, (killer, 0), (other, 2), (long, 40)) == [GO_ON] * 3
    assert die("C", 4.0, (killer, 0), (long, 40)) == [KILLER, GO_ON]
    assert die("D", 6.0, (other, 2), (long, 40)) == [GO_ON, GO_ON], "its first two deaths are explained"


def test_only_its_own_answers_break() -> None:
    """Poison that many clients send: nodes live, so it is not said that nodes die without it."""
    poisons = answers(10)
    assert die("A", 0.0, *((poison, 2) for poison in poisons)) == [GO_ON] * 10
    assert [die("B", 0.1, (poison, 2)) for poison in poisons] == [[KILLER]] * 10


@pytest.mark.parametrize(("before", "decision"), [(1.0, GO_ON), (WINDOW - 10, GO_ON), (WINDOW + 1, KILLER)])
def test_nodes_that_lately_died_without_it_acquit_it(before: float, decision: ResumeDecision) -> None:
    suspect, long = answers(2)
    die("Z", 0.0, (long, 99))
    assert die("A", before, (suspect, 0)) == [GO_ON]
    assert die("B", before + 2, (suspect, 0)) == [decision]


@pytest.mark.parametrize("many", [2, 3, 10])
def test_copies_of_a_killer_that_come_to_the_same_nodes_are_ended_together(many: int) -> None:
    """As routing sends them, which looks for their prefix. Each is a reason to acquit the others, for a while."""
    killers = answers(many)
    others = [Answer(killers[0].deaths) for _ in range(20)]
    for number in range(MOST_TOGETHER):
        decisions = die(str(number), 2.0 * number, *((each, 0) for each in killers), *((each, 50) for each in others))
        assert decisions == [KILLER if number == MOST_TOGETHER - 1 else GO_ON] * many + [GO_ON] * 20


@pytest.mark.parametrize("many", [2, 3])
def test_killers_on_nodes_of_their_own_are_ended(many: int) -> None:
    """None of them was at the deaths of the others, which another explains each time."""
    killers = answers(many)
    long = Answer(killers[0].deaths)
    for number in range(MOST_APART):
        for killer, answer in enumerate(killers):
            decision = die(f"{killer} {number}", 2.0 * number, (answer, 0), (long, 50))[0]
            assert decision is (KILLER if number == MOST_APART - 1 else GO_ON)


def test_a_late_killer_that_is_sent_again_takes_no_more_nodes() -> None:
    first, second, long = answers(3)
    for number, answer in enumerate((first, second)):
        names = [f"{number} {name}" for name in "ABC"]
        made = (PROGRESS, 0, PASSED - 1)
        decisions = [
            die(name, 6.0 * number + 2 * turn, (answer, made[turn]), (long, 50))[0] for turn, name in enumerate(names)
        ]
        assert decisions == [GO_ON, GO_ON, KILLER]


@pytest.mark.parametrize("times", [1, 2])
def test_the_only_node_that_dies_of_a_request_is_not_asked_for_ever(times: int) -> None:
    """Others get on between its deaths, as with a killer whose prompt takes long. So it is when it is sent again."""
    long = answers(1)[0]
    for sent in range(times):
        killer = Answer(long.deaths)
        decisions = [die("A", 9.0 * sent + 3 * number, (killer, 0), (long, 50))[0] for number in range(3)]
        assert decisions == [GO_ON, GO_ON, LIMIT]


def test_a_request_that_gets_on_is_no_suspect_any_more() -> None:
    killer, other, long = answers(3)
    die("A", 0.0, (killer, 0), (other, 0), (long, 50))
    die("Z", 1.0, (other, PROGRESS))
    assert die("B", 3.0, (killer, 0), (long, 50))[0] is GO_ON, "Z died without it, and so may A have"
    deaths = NodeDeaths()
    killer, other, long = Answer(deaths), Answer(deaths), Answer(deaths)
    die("A", 0.0, (killer, 0), (other, 0), (long, 50))
    die("B", 2.0, (killer, 0), (other, PROGRESS), (long, 50))
    assert die("B", 2.5, (killer, 0))[0] is KILLER, "the other got on where it died"


def test_the_deaths_before_the_first_token_are_its_own() -> None:
    """They do not acquit the request itself."""
    deaths = NodeDeaths()
    long, number = Answer(deaths), deaths.number()
    long.breaks("A", 50, 0.0)
    before = [deaths.record("A", 0.0, number, got_on=False)]
    killer = Resumes(2, deaths, number, before)
    long.breaks("B", 50, 2.0)
    assert killer.judge(UpstreamCut("x"), "B", 1, 2.0) is KILLER


@pytest.mark.parametrize(("there", "decision"), [(PROGRESS - 1, KILLER), (PROGRESS, GO_ON)])
def test_what_was_made_before_a_drain_was_not_made_on_the_node_that_dies(there: int, decision: ResumeDecision) -> None:
    suspect, long = answers(2)
    assert suspect.resumes.judge(NodeLeaving("x"), "Z", 100, 0.0) is GO_ON
    suspect.tokens = 100
    die("A", 1.0, (suspect, there), (long, 50))
    assert die("B", 3.0, (suspect, 0), (long, 50))[0] is decision


def test_an_answer_that_begins_again_gets_on_from_its_new_beginning() -> None:
    suspect, long = answers(2)
    die("A", 0.0, (suspect, 500), (long, 50))
    suspect.resumes.begin_again(0)
    suspect.tokens = 0
    die("B", 2.0, (suspect, 100))
    assert die("C", 4.0, (suspect, 0))[0] is die("C", 6.0, (suspect, 100))[0] is GO_ON


def test_what_another_killer_did_acquits_none() -> None:
    first, second, long = answers(3)
    die("A", 0.0, (first, 0), (long, 99))
    assert die("B", 2.0, (first, 0), (long, 99)) == [KILLER, GO_ON]
    die("C", 4.0, (second, 0), (long, 99))
    assert die("D", 6.0, (second, 0), (long, 99)) == [KILLER, GO_ON], "as when a client sends it again"


@pytest.mark.parametrize(("made", "decision"), [(0, KILLER), (PASSED - 1, KILLER), (PASSED, GO_ON)])
def test_a_node_that_died_at_the_same_token_is_no_other_death(made: int, decision: ResumeDecision) -> None:
    """It got on at the first, where it may have been the killer at a late token: unless it passed that token."""
    late, long = answers(2)
    die("A", 0.0, (late, 1000), (long, 99))
    die("B", 2.0, (late, made), (long, 99))
    assert die("C", 4.0, (late, 0), (long, 99))[0] is decision


def test_a_fleet_in_which_no_node_lives_is_not_asked_for_ever() -> None:
    suspect, long = answers(2)
    die("Z", 0.0, (long, 99))
    decisions = [die("AB"[number % 2], 2 + 3.0 * number, (long, 99), (suspect, 1))[1] for number in range(MOST_BREAKS)]
    assert decisions == [GO_ON] * (MOST_BREAKS - 1) + [KILLER]


def test_only_what_breaks_alone_counts_towards_the_limit() -> None:
    suspect, long = answers(2)
    die("Z", 0.0, (long, 99))
    for number in range(5):
        assert die("A", 2.0 + 2 * number, (long, 99), (suspect, 1)) == [GO_ON, GO_ON]
    assert [suspect.breaks("A", 1, 20.0 + 2 * number) for number in range(3)] == [GO_ON, GO_ON, LIMIT]


def stand_still(node: str, now: float, *answers: tuple[Answer, int]) -> list[ResumeDecision]:
    return die(node, now, *answers, kind=UpstreamTimeout)


def test_answers_that_come_to_nodes_that_stand_still_go_on() -> None:
    """Each was alive when it was chosen, and others had got on there; what came later is noticed later."""
    long, moved, other = answers(3)
    stand_still("A", 0.0, (long, 99), (moved, 99), (other, 99))
    for number, node in enumerate("BCDEFG"):
        assert stand_still(node, 10.0 * number, (long, 99)) == [GO_ON]
        assert stand_still(node, 10.0 * number + 5.0, (moved, 0), (other, 0)) == [GO_ON, GO_ON]


def test_an_answer_that_comes_back_to_nodes_that_still_stand_still_goes_on() -> None:
    """Each stall of a node counts once, however often it is asked meanwhile."""
    long, moved, other = answers(3)
    for number in range(2 * MOST_BREAKS):
        stand_still("ABC"[number % 3], 1.5 * number, *([(long, 99)] if number < 3 else []))
        assert stand_still("ABC"[number % 3], 1.5 * number + 0.5, (moved, 0), (other, 0)) == [GO_ON, GO_ON]


def test_nodes_that_stall_before_anything_got_on_there_are_no_reason_to_end_an_answer() -> None:
    """All that moved to them came too late; one that stalls alone ends at its limit."""
    first, second, alone = answers(3)
    for number, node in enumerate("ABCDE"):
        assert stand_still(node, 6.0 * number, (first, 0), (second, 0)) == [GO_ON, GO_ON]
    assert [stand_still(node, 40.0, (alone, 0)) for node in "FGH"] == [[GO_ON], [GO_ON], [LIMIT]]


def test_a_node_that_answers_no_probe_either_is_no_reason_to_end_an_answer() -> None:
    """Whoever was there: nobody had asked the gateway for its probes."""
    answer = answers(1)[0]
    judged = [answer.resumes.judge(UpstreamTimeout("x"), node, 0, 6.0 * n, True) for n, node in enumerate("ABCDEFGH")]
    assert judged == [GO_ON] * (MOST_BREAKS - 1) + [LIMIT]


def test_a_request_that_hangs_nodes_hangs_two() -> None:
    hangs, long = answers(2)
    assert stand_still("A", 0.0, (long, 99), (hangs, 0)) == [GO_ON, GO_ON]
    assert stand_still("B", 10.0, (long, 99), (hangs, 0)) == [GO_ON, KILLER]


def test_stalls_of_one_answer_alone_are_no_death() -> None:
    slow = answers(1)[0]
    decisions = [stand_still(node, 20.0 * number, (slow, 0))[0] for number, node in enumerate("ABC")]
    assert decisions == [GO_ON, GO_ON, LIMIT]


def test_its_own_progress_before_does_not_excuse_a_request() -> None:
    """It got on at a node, and came back to it while that is still the same stall."""
    slow = answers(1)[0]
    decisions = [stand_still("A", 5.0 * number, (slow, made))[0] for number, made in enumerate((99, 0, 0))]
    assert decisions == [GO_ON, GO_ON, LIMIT]


@pytest.mark.parametrize("nodes", [2, 3, 8])
@pytest.mark.parametrize("seed", range(3))
def test_streams_outlive_nodes_that_are_killed_in_turn(nodes: int, seed: int) -> None:
    """Two hundred streams that have run for a while, and for six minutes of kills a sixth of those that a node takes
    along has just come to it."""
    chance, deaths = random.Random(seed), NodeDeaths()
    streams = [Answer(deaths) for _ in range(200)]
    at = [chance.randrange(nodes) for _ in streams]
    for turn in range(120):
        now, dies = 3.0 * turn, turn % nodes
        there = [number for number, node in enumerate(at) if node == dies]
        decisions = die(str(dies), now, *((streams[number], _made(chance) if turn else 99) for number in there))
        for number, decision in zip(there, decisions, strict=True):
            assert decision is GO_ON
            at[number] = chance.choice([node for node in range(nodes) if node != dies])
            if chance.random() < 0.3:  # its answer ends, and another begins
                streams[number] = Answer(deaths)


def _made(chance: random.Random) -> int:
    return chance.randrange(PROGRESS) if chance.random() < 0.15 else chance.randrange(PROGRESS, 100)


@pytest.mark.parametrize("seed", range(20))
def test_a_killer_among_many_is_found(seed: int) -> None:
    """Eight nodes, each with 25 streams and some that have just come. It goes from node to node until it is ended."""
    chance, deaths = random.Random(seed), NodeDeaths()
    killer = Answer(deaths)
    streams = [[Answer(deaths) for _ in range(25)] for _ in range(8)]
    left, taken = list(range(8)), 0
    while True:
        dies = left.pop(chance.randrange(len(left)))
        there = [(stream, _made(chance)) for stream in streams[dies]] + [(killer, 0)]
        chance.shuffle(there)
        decisions = die(str(dies), 2.0 * taken, *there)
        taken += 1
        for (stream, _), decision in zip(there, decisions, strict=True):
            if stream is not killer:
                assert decision is GO_ON
                streams[chance.choice(left)].append(stream)
        if decisions[there.index((killer, 0))] is KILLER:
            break
    assert taken <= 4


BREAKS = st.tuples(st.floats(0, 3), st.sampled_from("ABC"), st.integers(0, 5), st.booleans(), st.booleans())


@given(st.lists(BREAKS, max_size=200))
def test_breaks_of_a_node_that_come_together_are_one_death(breaks: list[tuple[float, str, int, bool, bool]]) -> None:
    """Against all breaks in a list. Those of a second behind the first of a node are one death, for a minute; of half a
    minute where it stalled."""
    deaths, now = NodeDeaths(), 0.0
    model: list[tuple[float, str, set[int], set[int], bool]] = []  # suspects, innocents, stalled
    for passed, node, number, got_on, stalled in breaks:
        now += passed
        death = deaths.record(node, now, number, got_on, stalled)
        last = next((each for each in reversed(model) if (each[1], each[4]) == (node, stalled)), None)
        if last is None or now > last[0] + (STALLED_TOGETHER if stalled else TOGETHER):
            last = (now, node, set(), set(), stalled)
            model.append(last)
        if got_on:
            last[2].discard(number)
            last[3].add(number)
        elif number not in last[3]:
            last[2].add(number)
        assert (death.at, death.node_name, death.suspects, death.innocents, death.stalled) == last
        recent = [each for each in model if now <= each[0] + WINDOW and each[3]]
        assert [(each.at, each.node_name) for each in deaths.without(-1, now)] == [each[:2] for each in recent]


def test_what_is_remembered_is_bounded() -> None:
    deaths = NodeDeaths()
    recorded: list[NodeDeath] = [deaths.record(f"node {n}", n * 1e-3, n, True) for n in range(3 * MOST)]
    assert [*deaths.without(-1, 2.0)] == recorded[-MOST:]
    assert deaths.record("node 0", 2.0, 1, True) is not recorded[0]
    assert [*deaths.without(-1, 1e6)] == []


def test_a_request_that_passed_the_token_is_no_suspect_of_the_late_death() -> None:
    late, long = answers(2)
    die("A", 0.0, (late, 1000), (long, 99))
    die("B", 2.0, (late, 0), (long, 99))
    assert die("C", 4.0, (late, PASSED), (long, 99))[0] is GO_ON, "A died without it"


def test_those_that_come_to_nodes_that_stand_still_stay_innocent_of_the_one_before() -> None:
    """It acquits all others."""
    several = answers(4)
    stand_still("A", 0.0, *((each, 99) for each in several))
    other = Answer(several[0].deaths)
    long = Answer(several[0].deaths)
    for number, node in enumerate("BC"):
        stand_still(node, 5.0 + number, (long, 99), *((each, 0) for each in several))
        assert die(f"other {number}", 5.0 + number, (long, 99), (other, 0))[1] is GO_ON
