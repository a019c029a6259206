"""The answer to "does it fit, what does it carry, what does it cost", for a profile or for a machine in
mind.
"""

import datetime
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from workers.architecture import Architecture
from workers.catalog.facts import Precision, find_gpu, find_model
from workers.catalog.prices import ApiPrice, Price, PriceKind, PriceList, age_days, newest_apis, newest_by_kind
from workers.cost import BreakEven, CostPlan, RequestShape
from workers.errors import ConfigError
from workers.node_shape import Hardware, Parallel, check_tensor_size
from workers.plan_advice import advice
from workers.profile import Profile
from workers.vram import MemoryPlan, plan_memory

GPUS_PER_MACHINE = 8
SINGLE_NODE_UTILIZATION = 0.90
TIGHT_UTILIZATION = 0.88


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked of a profile. None means the profile's own value; prices in US dollars per GPU hour.

    `api_prices` None: those of the list. `day` is the day whose prices are used, `today` the one their age is counted
    to. `by_parameters`: the memory rule of the deployment guide, which knows no checkpoints.
    """

    context: int | None = None
    sequences: int | None = None
    usd_per_gpu_hour: float | None = None
    price_kind: PriceKind | None = None
    tokens_per_second: float | None = None
    api_prices: tuple[ApiPrice, ...] | None = None
    shape: RequestShape = field(default_factory=RequestShape)
    architecture: Architecture | None = None
    by_parameters: bool = False
    prices: PriceList = field(default_factory=PriceList)
    day: datetime.date = field(default_factory=datetime.date.today)
    today: datetime.date = field(default_factory=datetime.date.today)


@dataclass(frozen=True, slots=True)
class CostAnswer:
    """A cost with its break-even points."""

    cost: CostPlan
    break_evens: tuple[BreakEven, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything `plan` says about one profile. `advice` holds what to change; empty where nothing has to."""

    profile: Profile
    memory: MemoryPlan
    costs: tuple[CostAnswer, ...]
    advice: tuple[str, ...]


def make_plan(profile: Profile, question: Question, others: Iterable[Profile] = ()) -> Plan:
    """Answer `question` for `profile`; `others` are the profiles that advice may name. Raises ConfigError where the
    model's real config.json does not allow the profile's tensor parallelism.
    """
    if question.architecture is not None:
        _check_size(question.architecture, profile.parallel.tensor, profile.hardware.gpus_per_node)
    memory = plan_memory(profile, question.context, question.sequences, question.architecture, question.by_parameters)
    fitting = [] if memory.verdict == "fits" else fitting_profiles(profile, others, question)
    told = advice(profile, memory, [p.name for p in fitting])
    return Plan(profile, memory, _costs(profile, question), tuple(told))


def machine_profile(base: Profile, gpu: str, count: int, precision: Precision) -> Profile:
    """A profile for a machine in mind: `base` moved to `count` GPUs of one kind at one precision.

    Up to 8 GPUs are one machine; more are machines of 8 joined by pipeline stages over Ray. Raises
    ConfigError for counts that no machine has, or over which the model's layers cannot be cut.
    """
    nodes, gpus = _machines(count)
    _check_size(base.model.architecture(), gpus, gpus)
    tight = nodes > 1 or (precision == "nvfp4" and not find_gpu(gpu).fp4_compute and gpu == "h100")
    return base.model_copy(
        update={
            "name": f"{count}x{gpu}-{precision}",
            "title": f"{base.model.title} on {count}x {gpu.upper()}, {precision.upper()} (not a profile)",
            "role": "on-paper",
            "source": "the memory rule",
            "notes": (),
            "precision": precision,
            "hardware": Hardware(gpu=find_gpu(gpu), gpus_per_node=gpus, nodes=nodes),
            "parallel": Parallel(tensor=gpus, pipeline=nodes, backend="ray" if nodes > 1 else None),
            "gpu_memory_utilization": TIGHT_UTILIZATION if tight else SINGLE_NODE_UTILIZATION,
            "prices": (),
            "throughput": (),
        }
    )


def base_profile(profiles: Sequence[Profile], model: str) -> Profile:
    """The first profile of a model (recommended ones first). Raises ConfigError where there is none."""
    wanted = find_model(model).name
    same = [p for p in profiles if p.model.name == wanted]
    if not same:
        raise ConfigError(f"no profile serves {wanted}")
    return min(same, key=lambda p: p.role != "recommended")


def fitting_profiles(profile: Profile, others: Iterable[Profile], question: Question) -> list[Profile]:
    """Profiles of the same model that fit with the 15%, by role and dollars a million tokens."""
    same = [p for p in others if p.model.name == profile.model.name and p.name != profile.name]
    plans = [Plan(p, plan_memory(p), _costs(p, question), ()) for p in same]
    return [plan.profile for plan in ranked(p for p in plans if p.memory.verdict == "fits")]


ROLES = ("recommended", "budget", "vendor", "alternative", "family", "development", "on-paper")
VERDICTS = ("fits", "tight", "no")


def ranked(plans: Iterable[Plan]) -> list[Plan]:
    """Plans by what fits, then by role, then by dollars a million tokens; those without a figure last."""

    def key(plan: Plan) -> tuple[int, int, float, str]:
        role = plan.profile.role
        place = ROLES.index(role) if role in ROLES else len(ROLES)
        return VERDICTS.index(plan.memory.verdict), place, usd_per_million(plan) or float("inf"), plan.profile.name

    return sorted(plans, key=key)


def usd_per_million(plan: Plan) -> float | None:
    """US dollars per million output tokens at the plan's first price; None where price or throughput is unknown."""
    return plan.costs[0].cost.per_million if plan.costs else None


def prices_of(profile: Profile, prices: PriceList, day: datetime.date) -> tuple[Price, ...]:
    """The prices of a profile's GPU on a day, one of a kind, on demand first: the profile's own, else the list's."""
    rows = profile.prices or tuple(row for row in prices.gpu_hours if row.gpu == profile.hardware.gpu.name)
    return newest_by_kind(rows, day)


def _check_size(architecture: Architecture, tensor: int, most: int) -> None:
    try:
        check_tensor_size(architecture, tensor, most)
    except ValueError as fault:
        raise ConfigError(str(fault)) from fault


def _machines(count: int) -> tuple[int, int]:
    if count <= GPUS_PER_MACHINE:
        return 1, count
    if count % GPUS_PER_MACHINE:
        raise ConfigError(f"{count} GPUs are not a number of whole machines of {GPUS_PER_MACHINE}")
    return count // GPUS_PER_MACHINE, GPUS_PER_MACHINE


def _costs(profile: Profile, question: Question) -> tuple[CostAnswer, ...]:
    prices = prices_of(profile, question.prices, question.day)
    if question.price_kind is not None:
        prices = tuple(price for price in prices if price.kind == question.price_kind)
    if question.usd_per_gpu_hour is not None:
        kind, today = question.price_kind or "on_demand", question.today.isoformat()
        given = question.usd_per_gpu_hour
        prices = (Price(kind=kind, usd_per_gpu_hour=given, date=today, source="given on the command line"),)
    apis = question.api_prices
    if apis is None:
        apis = newest_apis(question.prices.apis, profile.model.name, question.day)
    return tuple(_answer(profile, price, apis, question) for price in prices)


def _answer(profile: Profile, price: Price, apis: Sequence[ApiPrice], question: Question) -> CostAnswer:
    cost = CostPlan(
        price.kind,
        price.source,
        price.usd_per_gpu_hour * profile.hardware.gpus,
        question.tokens_per_second or _expected_speed(profile),
        price.date,
        age_days(price.date, question.today),
    )
    return CostAnswer(cost, tuple(cost.break_even(question.shape.api_usd_per_million(api), api) for api in apis))


def _expected_speed(profile: Profile) -> float | None:
    return profile.throughput[0].middle if profile.throughput else None
