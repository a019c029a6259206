"""The plan of a workload on one profile: its nodes, its costs, and what APIs take for the same."""

from collections.abc import Sequence
from dataclasses import dataclass

from workers.catalog.prices import Price, newest_apis
from workers.errors import ConfigError
from workers.plan import Question, prices_of
from workers.profile import Profile
from workers.workload.money import ApiCost, Mix, Preemption, api_costs, mixes_of, preemption_of
from workers.workload.sizing import Sizing, size_fleet
from workers.workload.speed import DecodePoint, node_speed
from workers.workload.workload import Workload

PREEMPTIONS_PER_DAY = 1.0
"""Of one spot node, where nothing is said: clouds publish bands a month and no figure for machines of eight GPUs."""


@dataclass(frozen=True, slots=True)
class WorkloadQuestion:
    """What is asked beside the workload; `prefill` and `decode` replace what is known of the profile's speed, `nodes`
    the number that is needed.
    """

    workload: Workload
    prefill: float | None = None
    decode: tuple[DecodePoint, ...] = ()
    preemptions_per_day: float = PREEMPTIONS_PER_DAY
    nodes: int | None = None


@dataclass(frozen=True, slots=True)
class WorkloadPlan:
    """The answer. `prices` are those that were used, the steady kind first; `mixes` is empty where none is known."""

    sizing: Sizing
    prices: tuple[Price, ...]
    mixes: tuple[Mix, ...]
    preemption: Preemption
    apis: tuple[ApiCost, ...]
    preemptions_per_day: float

    @property
    def first(self) -> Mix | None:
        """The fleet without spot nodes where there is one: what others are compared by."""
        return self.mixes[0] if self.mixes else None


def plan_workload(profile: Profile, asked: WorkloadQuestion, question: Question) -> WorkloadPlan:
    """Size and price the fleet. Raises ConfigError where the workload cannot be served by this profile at all."""
    speed = node_speed(profile, asked.workload, asked.prefill, asked.decode)
    sizing = size_fleet(profile, asked.workload, speed, question.architecture, asked.nodes)
    prices = _prices(profile, question)
    apis = question.api_prices
    if apis is None:
        apis = newest_apis(question.prices.apis, profile.model.name, question.day)
    hourly = prices[0].usd_per_gpu_hour * profile.hardware.gpus if prices else 0.0
    return WorkloadPlan(
        sizing,
        prices,
        mixes_of(sizing, prices, asked.preemptions_per_day),
        preemption_of(sizing, hourly),
        api_costs(sizing, apis),
        asked.preemptions_per_day,
    )


def plan_workloads(
    profiles: Sequence[Profile], asked: WorkloadQuestion, question: Question
) -> tuple[list[WorkloadPlan], list[str]]:
    """Plans for all profiles that can serve the workload, cheapest month first, and why the others cannot."""
    plans, refusals = [], []
    for profile in profiles:
        try:
            plans.append(plan_workload(profile, asked, question))
        except ConfigError as refusal:
            refusals.append(str(refusal))
    return sorted(plans, key=_month), refusals


def _month(plan: WorkloadPlan) -> tuple[float, str]:
    return plan.first.usd if plan.first else float("inf"), plan.sizing.profile.name


def _prices(profile: Profile, question: Question) -> tuple[Price, ...]:
    """One steady price, if any, and the spot one; `question` may name the kind, and give its price."""
    known: dict[str, Price] = {price.kind: price for price in prices_of(profile, question.prices, question.day)}
    kind = question.price_kind
    if question.usd_per_gpu_hour is not None:
        given = Price(
            kind=kind or "on_demand",
            usd_per_gpu_hour=question.usd_per_gpu_hour,
            date=question.today.isoformat(),
            source="given on the command line",
        )
        known[given.kind] = given
    steady = next((known[name] for name in ("on_demand", "reserved") if name in known and kind in (None, name)), None)
    spot = known.get("spot")
    if kind == "spot":
        steady = None
    return tuple(price for price in (steady, spot) if price is not None)
