"""Nodes that die before the first token: of the request, or as others do without it."""

import asyncio
import random
from typing import Any, cast

import pytest

from gateway.core.dialects import DIALECTS
from gateway.core.errors import NodeBusy, NodeFailed, UpstreamCut, UpstreamError, UpstreamTimeout
from gateway.core.plan import make_plan
from gateway.core.resume.budget import SETTLING, ResumeDecision, Resumes
from gateway.core.resume.node_deaths import NodeDeaths
from gateway.core.telemetry.request_stats import RequestStats
from gateway.core.upstream.attempts import Attempts, RetryRules
from gateway.fleet.fleet import Fleet
from gateway.fleet.node import Lease, Node
from gateway.fleet.node_spec import NodeSpec
from gateway.upstream.failover import Failover, RequestTries


def node(name: str) -> Node:
    made = Node(NodeSpec("http://x:1"))
    made.name = name
    return made


def tries(deaths: NodeDeaths) -> RequestTries:
    return RequestTries(Attempts(3), deaths)


def took_along(deaths: NodeDeaths, name: str, now: float) -> None:
    """An answer that had got on was on the node, too."""
    deaths.record(name, now, deaths.number(), got_on=True)


@pytest.mark.parametrize("errors", [(UpstreamCut, UpstreamCut), (UpstreamCut, NodeFailed), (NodeFailed, NodeFailed)])
def test_what_a_request_was_ended_for_acquits_no_other(errors: tuple[type[UpstreamError], ...]) -> None:
    """However its nodes failed it: the same request may be sent again."""
    deaths = NodeDeaths()
    for sent in range(2):
        request = tries(deaths)
        for number, error in enumerate(errors):
            name, now = f"{sent} {number}", 5.0 * sent + number
            took_along(deaths, name, now)
            assert not request.is_innocent(error("x"), node(name), now)
        request.convict()


def test_one_death_is_no_pattern() -> None:
    deaths = NodeDeaths()
    request, other = tries(deaths), tries(deaths)
    took_along(deaths, "A", 0.0)
    request.is_innocent(UpstreamCut("x"), node("A"), 0.0)
    request.convict()
    assert other.is_innocent(UpstreamCut("x"), node("B"), 2.0)


def test_what_two_requests_may_have_done_is_not_explained_by_the_end_of_one() -> None:
    deaths = NodeDeaths()
    request, twin, other = tries(deaths), tries(deaths), tries(deaths)
    for name, now in (("A", 0.0), ("B", 2.0)):
        took_along(deaths, name, now)
        for each in (request, twin):
            each.is_innocent(UpstreamCut("x"), node(name), now)
    request.convict()
    assert other.is_innocent(UpstreamCut("x"), node("C"), 4.0)
    assert not twin.is_innocent(UpstreamCut("x"), node("C"), 4.0)


async def test_the_end_of_a_request_tells_nothing_before_the_others_have_broken_off() -> None:
    """A node's answers break off one after the other; the first to end cannot know yet who else was there."""
    deaths, failover, now = NodeDeaths(), Failover(Fleet([]), RetryRules(), 3), asyncio.get_running_loop().time()
    request, twin, other = (failover.tries(deaths) for _ in range(3))
    dialect = DIALECTS[0]
    plan = make_plan(dialect.read(b'{"model":"m","messages":[]}'), dialect, "m", None, None)
    lease, stats, unused = Lease(node("B")), RequestStats(), cast(Any, None)
    took_along(deaths, "A", now - 5.0)
    took_along(deaths, "B", now)
    for each in (request, twin):
        each.is_innocent(UpstreamCut("x"), node("A"), now - 5.0)
    request.attempts.doubtful = 1
    assert failover.next_lease(UpstreamCut("x"), lease, plan, request, stats, unused) is None
    await asyncio.sleep(SETTLING / 5)
    twin.is_innocent(UpstreamCut("x"), node("B"), now)
    await asyncio.sleep(2 * SETTLING)
    assert other.is_innocent(UpstreamCut("x"), node("C"), now + 1.0)


@pytest.mark.parametrize("seed", range(10))
def test_plain_requests_that_nodes_take_along_in_turn_convict_no_stream(seed: int) -> None:
    """Two nodes are killed in turn. Of the plain requests some are at two deaths and end with an error each time; one
    stream has just come whenever its node dies."""
    chance, deaths = random.Random(seed), NodeDeaths()
    unlucky = Resumes(2, deaths, deaths.number())
    waiting: list[RequestTries] = []
    for turn in range(20):
        now, name = 2.5 * turn, "AB"[turn % 2]
        took_along(deaths, name, now)
        plain = [*waiting, *(tries(deaths) for _ in range(5))]
        chance.shuffle(plain)
        guilty = [each for each in plain if not each.is_innocent(UpstreamCut("x"), node(name), now)]
        if turn in (8, 9, 10):
            unlucky.judge(UpstreamCut("x"), name, turn - 8, now)
            assert unlucky.decide(now + SETTLING) is ResumeDecision.GO_ON
        for each in plain:
            if len(each.own) > 1 and each in guilty:
                each.convict()
        waiting = [each for each in plain if len(each.own) < 2]


@pytest.mark.parametrize("error", [NodeBusy, UpstreamTimeout])
def test_what_is_no_death_acquits_none(error: type[UpstreamError]) -> None:
    deaths = NodeDeaths()
    took_along(deaths, "A", 0.0)
    request = tries(deaths)
    assert not request.is_innocent(error("x"), node("B"), 1.0) and not request.own


def test_a_node_on_which_the_answer_had_got_on_did_not_die_of_it() -> None:
    """Its answer is asked for anew, as nothing of it had been sent."""
    deaths = NodeDeaths()
    request = tries(deaths)
    death = deaths.record("A", 0.0, request.number, got_on=True)
    assert request.is_innocent(UpstreamCut("x"), node("A"), 0.1)
    assert (death.suspects, death.innocents) == (set(), {request.number})
