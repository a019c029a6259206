"""The routing comparison: its sums, and one short talk through the real gateway."""

import pytest

from loadtest import routing
from loadtest.agents import Heard, Talk


def test_waits_and_hits_are_added_up() -> None:
    heard = Heard(ttft=[0.3, 0.1, 0.2], prompt=100, cached=40)
    assert (heard.quantile(0.5), heard.quantile(0.99), heard.hit_rate) == (0.2, 0.3, 0.4)
    assert Heard().hit_rate == 0.0


@pytest.mark.prove
def test_agents_talk_through_gateways_that_share_a_redis_while_the_fleet_changes() -> None:
    short = Talk(sessions=3, turns=3, system=200, user=50, pause=0.05)
    heard = routing.run(routing.CANDIDATES[0], 2, short, seed=1)
    assert heard.failed == 0
    assert len(heard.ttft) == 9
    assert heard.hit_rate > 0.3
