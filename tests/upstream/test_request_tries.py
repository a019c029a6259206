"""Nodes that die before the first token: of the request, or as others do without it."""

from types import SimpleNamespace
from typing import Any

import pytest

from gateway.core.errors import NodeBusy, NodeFailed, UpstreamCut, UpstreamError, UpstreamTimeout
from gateway.core.resume.node_deaths import NodeDeaths
from gateway.core.upstream.attempts import Attempts
from gateway.upstream.failover import RequestTries


def node(name: str) -> Any:
    return SimpleNamespace(name=name)


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
