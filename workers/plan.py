"""The answer to "does it fit, what does it carry, what does it cost", for a profile or for a machine in
mind.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from workers.architecture import Architecture
from workers.catalog.facts import Precision, find_gpu, find_model
from workers.cost import BreakEven, CostPlan
from workers.errors import ConfigError
from workers.profile import Hardware, Parallel, Price, Profile
from workers.vram import MemoryPlan, plan_memory

GPUS_PER_MACHINE = 8
SINGLE_NODE_UTILIZATION = 0.90
TIGHT_UTILIZATION = 0.88


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked of a profile. None means the profile's own value; prices in US dollars per GPU hour."""

    context: int | None = None
    sequences: int | None = None
    usd_per_gpu_hour: float | None = None
    tokens_per_second: float | None = None
    api_prices: tuple[float, ...] = (4.0, 8.0)
    architecture: Architecture | None = None


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
    """Answer `question` for `profile`; `others` are the profiles that advice may name."""
    memory = plan_memory(profile, question.context, question.sequences, question.architecture)
    return Plan(profile, memory, _costs(profile, question), tuple(_advice(profile, memory, question, others)))


def machine_profile(base: Profile, gpu: str, count: int, precision: Precision) -> Profile:
    """A profile for a machine in mind: `base` moved to `count` GPUs of one kind at one precision.

    Up to 8 GPUs are one machine; more are machines of 8 joined by pipeline stages over Ray. Raises
    ConfigError for counts that no machine has.
    """
    nodes, gpus = _machines(count)
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


def fitting_profiles(profile: Profile, others: Iterable[Profile]) -> list[Profile]:
    """Profiles of the same model that fit, least memory first."""
    same = [p for p in others if p.model.name == profile.model.name and p.name != profile.name]
    return sorted((p for p in same if plan_memory(p).fits), key=lambda p: p.hardware.memory_gb)


def _machines(count: int) -> tuple[int, int]:
    if count <= GPUS_PER_MACHINE:
        return 1, count
    if count % GPUS_PER_MACHINE:
        raise ConfigError(f"{count} GPUs are not a number of whole machines of {GPUS_PER_MACHINE}")
    return count // GPUS_PER_MACHINE, GPUS_PER_MACHINE


def _costs(profile: Profile, question: Question) -> tuple[CostAnswer, ...]:
    prices: tuple[Price, ...] = profile.prices
    if question.usd_per_gpu_hour is not None:
        given = question.usd_per_gpu_hour
        prices = (Price(kind="on_demand", usd_per_gpu_hour=given, date="now", source="given on the command line"),)
    speed = question.tokens_per_second or _expected_speed(profile)
    plans = [
        CostPlan(p.kind, f"{p.source}, {p.date}", p.usd_per_gpu_hour * profile.hardware.gpus, speed) for p in prices
    ]
    return tuple(CostAnswer(c, tuple(c.break_even(api) for api in question.api_prices)) for c in plans)


def _expected_speed(profile: Profile) -> float | None:
    return profile.throughput[0].middle if profile.throughput else None


def _advice(profile: Profile, memory: MemoryPlan, question: Question, others: Iterable[Profile]) -> Iterable[str]:
    if memory.fits:
        yield from _notes_on_fit(profile, memory)
        return
    yield f"{-memory.headroom_gb:,.0f} GB are missing."
    if memory.room_gb >= 0 and memory.max_sequences > 0:
        yield f"Plan at most {memory.max_sequences} sequences of {memory.context:,} tokens."
    elif memory.room_gb >= 0:
        yield "Shorten the context."
    if profile.precision == "bf16":
        yield "Quantise: FP8 halves the weights, NVFP4 quarters them."
    elif profile.precision == "fp8":
        yield "NVFP4 halves the weights."
    names = [p.name for p in fitting_profiles(profile, others)]
    if names:
        yield "Profiles of this model that fit: " + ", ".join(names) + "."


def _notes_on_fit(profile: Profile, memory: MemoryPlan) -> Iterable[str]:
    bound = profile.scheduling.max_sequences
    if memory.max_sequences < bound:
        yield (
            f"Only {memory.max_sequences} of max_sequences={bound} fit at the full "
            f"{memory.context:,} tokens; beyond that vLLM preempts. Shorter sequences fit in greater number."
        )
    if profile.checkpoint.size_gb and profile.checkpoint.vendor_minimum_gb:
        yield f"The vendor's minimum is {profile.checkpoint.vendor_minimum_gb:,.0f} GB."
