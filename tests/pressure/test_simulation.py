"""What docs/pressure.md shows of the simulation: its orderings, in a shorter run, and that a seed is a run."""

from itertools import pairwise
from pathlib import Path

import pytest

from gateway.core.pressure.factor import TURN
from tests.pressure.fleet_model import FleetModel, Scene, arrivals
from tests.pressure.simulation import RULES, WAYS, Outcome, compare, outcome, table

PAGE = (Path(__file__).parents[2] / "docs" / "pressure.md").read_text()
SHORT = Scene(seconds=900.0)
LINE, REFUSALS, ELASTIC, EARLY = (way.name for way in WAYS)


@pytest.fixture(scope="module")
def found() -> dict[str, Outcome]:
    return {name: outcomes[0] for name, outcomes in compare(SHORT, WAYS, [7]).items()}


def test_elastic_thinking_keeps_more_objectives_than_a_line(found: dict[str, Outcome]) -> None:
    for elastic in (found[ELASTIC], found[EARLY]):
        assert elastic.ttft > found[LINE].ttft and elastic.end_to_end > found[LINE].end_to_end


def test_and_than_refusals_while_it_refuses_nobody(found: dict[str, Outcome]) -> None:
    assert found[REFUSALS].refused > 0.05 and found[ELASTIC].refused == found[EARLY].refused == 0
    assert found[ELASTIC].end_to_end > found[REFUSALS].end_to_end
    assert found[EARLY].both > found[ELASTIC].both and found[EARLY].both > found[REFUSALS].both


def test_it_costs_thinking(found: dict[str, Outcome]) -> None:
    assert found[ELASTIC].granted < SHORT.budget == found[LINE].granted
    assert found[ELASTIC].thought < found[LINE].thought and found[ELASTIC].shortened > 0 == found[LINE].shortened


def test_the_factor_turns_once_a_minute_and_comes_back() -> None:
    for way in WAYS[2:]:
        run = FleetModel(SHORT, way, RULES.squeeze, 7).run()
        assert run.turns and all(later - earlier >= TURN for earlier, later in pairwise(run.turns))
        assert outcome(run).turns == 1
        assert min(run.factors) < 0.9 and run.factors[-1] > 0.99


def test_below_capacity_nothing_is_less() -> None:
    calm = outcome(FleetModel(Scene(load=0.6, seconds=600.0), WAYS[2], RULES.squeeze, 7).run())
    assert calm.shortened == 0 and calm.granted == SHORT.budget and calm.both > 0.95


def test_everybody_ends_and_a_seed_is_a_run() -> None:
    one, other = (FleetModel(SHORT, WAYS[3], RULES.squeeze, 3).run() for _ in range(2))
    assert outcome(one) == outcome(other)
    assert all(job.came < job.began < job.ended for job in one.jobs)
    assert [job.came for job in one.jobs] == [job.came for job in arrivals(SHORT, 3)]


def test_the_page_has_the_simulations_table() -> None:
    heads = [line for line in table({}).splitlines() if line.startswith("| way")]
    assert heads[0] in PAGE and all(f"| {way.name} |" in PAGE for way in WAYS)
