"""What nodes and APIs cost, by date and kind, and the order of plans."""

import datetime
import itertools

import pytest

from workers.catalog.prices import ApiPrice, GpuPrice, PriceList, load_prices
from workers.cost import CostPlan, RequestShape
from workers.plan import Question, make_plan, ranked
from workers.profile import Profile
from workers.profiles.load import find_profile, load_profiles

RECOMMENDED = "nemotron-3-ultra-8xh200-fp8"
JUNE = Question(prices=load_prices(), day=datetime.date(2026, 6, 30), today=datetime.date(2026, 6, 30))


@pytest.fixture
def profiles() -> list[Profile]:
    return list(load_profiles().values())


def test_on_demand_cost_of_eight_h200() -> None:
    cost = CostPlan("on_demand", "guide", hourly=8 * 4.84, tokens_per_second=700)
    assert cost.hourly == pytest.approx(38.72)
    assert round(cost.monthly) == 28_266
    assert cost.per_million == pytest.approx(15.36, abs=0.006)  # the guide cuts 15.3651 off
    assert cost.break_even(4).tokens_per_month / 1e9 == pytest.approx(7.1, abs=0.05)
    assert cost.break_even(8).tokens_per_month / 1e9 == pytest.approx(3.5, abs=0.05)


def test_spot_cost_of_eight_h200() -> None:
    cost = CostPlan("spot", "guide", hourly=14.56, tokens_per_second=700)
    assert cost.per_million == pytest.approx(5.78, abs=0.005)
    assert cost.break_even(4).tokens_per_month / 1e9 == pytest.approx(2.7, abs=0.05)


def test_prices_of_the_profiles() -> None:
    def costs(name: str) -> list[CostPlan]:
        return [answer.cost for answer in make_plan(find_profile(name), JUNE).costs]

    assert round(costs("nemotron-3-ultra-16xh100-fp8")[0].monthly) == 45_786
    spot = costs("nemotron-3-ultra-8xb200-fp8")[-1]
    assert (spot.kind, round(spot.monthly)) == ("spot", 15_826)
    assert spot.hourly == pytest.approx(21.68)
    assert [round(cost.hourly, 2) for cost in costs(RECOMMENDED)] == [38.72, 14.56]


def row(kind: str, usd: float, date: str) -> GpuPrice:
    return GpuPrice.model_validate(
        {"gpu": "h200", "kind": kind, "usd_per_gpu_hour": usd, "date": date, "source": "test"}
    )


def test_the_newest_price_of_a_kind_that_is_known_on_the_day_is_used() -> None:
    rows = (row("on_demand", 3, "2026-11-02"), row("on_demand", 2, "2026-11-20"), row("on_demand", 9, "2026-01"))
    profile = find_profile(RECOMMENDED)

    def hourly(day: datetime.date) -> list[float]:
        answers = make_plan(profile, Question(prices=PriceList(gpu_hours=rows), day=day, today=day)).costs
        return [answer.cost.hourly for answer in answers]

    assert hourly(datetime.date(2026, 11, 30)) == [16]
    assert hourly(datetime.date(2026, 2, 1)) == [72]
    assert hourly(datetime.date(2025, 12, 31)) == []


def test_an_operators_price_in_the_profile_wins_and_has_its_age() -> None:
    own = find_profile(RECOMMENDED).model_copy(update={"prices": (row("reserved", 3.1, "2026-10-01"),)})
    (answer,) = make_plan(own, Question(prices=load_prices(), today=datetime.date(2026, 11, 30))).costs
    assert (answer.cost.kind, answer.cost.age_days) == ("reserved", 60)
    assert answer.cost.hourly == pytest.approx(24.8)


def test_an_api_is_paid_for_input_cached_input_and_output() -> None:
    api = ApiPrice(name="a", input=0.5, cached=0.1, output=2.5, date="2026-11", source="test")
    shape = RequestShape(input=8000, cached=6000, output=1000)
    # for 1,000 tokens out: 2,000 of input and 6,000 of cached input
    assert shape.api_usd_per_million(api) == pytest.approx(2.5 + 2 * 0.5 + 6 * 0.1)
    without = api.model_copy(update={"cached": None})
    assert shape.api_usd_per_million(without) == pytest.approx(2.5 + 8 * 0.5)
    alone = ApiPrice(name="b", output=4, date="2026-11", source="test")
    assert shape.api_usd_per_million(alone) == 4


def test_the_public_api_of_the_model_is_the_default_to_beat() -> None:
    answer = make_plan(find_profile(RECOMMENDED), Question(prices=load_prices(), day=datetime.date(2026, 11, 30)))
    (point,) = answer.costs[0].break_evens
    assert point.api is not None
    assert (point.api.input, point.api.output) == (0.5, 2.5)
    assert point.api_usd_per_million == pytest.approx(2.5 + 8 * 0.5)


def test_profiles_are_ranked_by_what_fits_then_role_then_dollars_a_token(profiles: list[Profile]) -> None:
    rows = ranked(make_plan(profile, JUNE) for profile in profiles)
    verdicts = [plan.memory.verdict for plan in rows]
    assert verdicts == sorted(verdicts, key=["fits", "tight", "no"].index)
    assert rows[0].profile.role == "recommended"
    fitting = [plan for plan in rows if plan.memory.verdict == "fits"]
    for one, next_one in itertools.pairwise(fitting):
        if one.profile.role == next_one.profile.role and one.costs and next_one.costs:
            assert (one.costs[0].cost.per_million or 1e9) <= (next_one.costs[0].cost.per_million or 1e9)


def test_break_even_beyond_a_nodes_capacity_is_never_reached() -> None:
    cost = CostPlan("on_demand", "guide", hourly=38.72, tokens_per_second=700)
    assert cost.tokens_per_month == pytest.approx(1.84e9, rel=0.001)
    point = cost.break_even(4)
    assert (point.nodes, point.reachable) == (4, False)
    # at the speed it names, the node's capacity is exactly the break-even volume
    faster = CostPlan("on_demand", "guide", 38.72, point.needed_tokens_per_second)
    assert faster.tokens_per_month == pytest.approx(point.tokens_per_month)
    assert faster.per_million == pytest.approx(4)
