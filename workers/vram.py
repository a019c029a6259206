"""Does a model fit a node, and how many sequences fit beside it.

The rule is the deployment guide's: needed = parameters x bytes per parameter x 1.15 + KV budget, against
the node's memory times the share that vLLM may use. All sizes in decimal GB (10^9 bytes), as GPUs are sold.
Where the size of the checkpoint is known it takes the place of parameters x bytes, because a "4 bit"
checkpoint is more than 4 bits a parameter; the 15% for activations, buffers and fragmentation stay on top
of either. A published minimum above what vLLM may use refuses the node, too. Each data-parallel replica holds weights
of its own; where experts are spread over replicas it is less.

Where the rule says no and a vendor lists the node nevertheless, the verdict is `tight`: the tensors and at least one
sequence fit into vLLM's share of the memory that NVML counts, and less than 15% is left for everything else.
"""

from dataclasses import dataclass
from typing import Literal

from workers.architecture import Architecture
from workers.catalog.facts import BYTES_PER_PARAMETER, ListedNode
from workers.profile import Profile
from workers.units import GB

OVERHEAD = 1.15

Verdict = Literal["fits", "tight", "no"]


@dataclass(frozen=True, slots=True)
class SequenceCost:
    """Memory of running sequences over the whole node, in bytes."""

    kv_bytes_per_token: int
    state_bytes: int
    state_copies: int

    def bytes_at(self, context: int) -> int:
        """Bytes of one sequence of `context` tokens: its keys and values, and its states, which do not
        grow.
        """
        return self.kv_bytes_per_token * context + self.state_bytes * self.state_copies


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """The memory of a node and what takes it. GB are decimal; `sequences` are planned at `context` tokens
    each.
    """

    node_gb: float
    nvml_gb: float | None
    gpus: int
    utilization: float
    weights_gb: float
    formula_gb: float
    checkpoint_gb: float | None
    vendor_minimum_gb: float | None
    listed: ListedNode | None
    context: int
    sequences: int
    sequence: SequenceCost

    @property
    def usable_gb(self) -> float:
        """What vLLM may take of the node."""
        return self.node_gb * self.utilization

    @property
    def nvml_usable_gb(self) -> float | None:
        """What vLLM takes of the memory that NVML counts; None where that is not known."""
        return None if self.nvml_gb is None else self.nvml_gb * self.utilization

    @property
    def tensors_gb(self) -> float:
        """The weights alone: the known checkpoint, or parameters x bytes."""
        return self.weights_gb if self.checkpoint_gb is None else self.checkpoint_gb

    @property
    def needed_gb(self) -> float:
        """Weights with the 15%, by the known checkpoint where there is one. This decides."""
        return self.formula_gb if self.checkpoint_gb is None else self.checkpoint_gb * OVERHEAD

    @property
    def below_minimum(self) -> bool:
        """Whether the published minimum is above what vLLM may use, on a node that nobody lists."""
        minimum = self.vendor_minimum_gb
        return self.listed is None and minimum is not None and minimum > self.usable_gb

    @property
    def rule_room_gb(self) -> float:
        """What the rule leaves for sequences. Negative where not even the weights with the 15% fit."""
        return self.usable_gb - self.needed_gb

    @property
    def listed_room_gb(self) -> float:
        """What a listed node leaves beside the tensors, by NVML's memory; negative where it is none, or they do not
        fit.
        """
        if self.listed is None or self.nvml_usable_gb is None:
            return -self.tensors_gb
        return self.nvml_usable_gb - self.tensors_gb

    @property
    def by_list(self) -> bool:
        """Whether the rule leaves no room for one sequence, and the list of a vendor does."""
        one = self.sequence.bytes_at(self.context) / GB
        return self.rule_room_gb < one <= self.listed_room_gb

    @property
    def room_gb(self) -> float:
        """What is left for sequences: by the rule, or on a listed node that the rule refuses, beside the tensors."""
        return self.listed_room_gb if self.by_list else self.rule_room_gb

    @property
    def kv_budget_gb(self) -> float:
        """What the planned sequences take at full context."""
        return self.sequences * self.sequence.bytes_at(self.context) / GB

    @property
    def total_gb(self) -> float:
        """Weights with overhead, plus the KV budget."""
        return self.needed_gb + self.kv_budget_gb

    @property
    def headroom_gb(self) -> float:
        """What the rule leaves beside everything planned; negative is what is missing."""
        return self.usable_gb - self.total_gb

    @property
    def spare_gb_per_gpu(self) -> float:
        """What a listed node leaves each GPU for activations, buffers and graphs beside tensors and sequences."""
        return (self.listed_room_gb - self.kv_budget_gb) / self.gpus

    @property
    def max_sequences(self) -> int:
        """Sequences of `context` tokens that fit beside the weights."""
        return self.sequences_at(self.context)

    def sequences_at(self, context: int) -> int:
        """Sequences of `context` tokens that fit beside the weights."""
        return max(0, int(self.room_gb * GB // self.sequence.bytes_at(context)))

    @property
    def verdict(self) -> Verdict:
        """`fits` by the rule and the published minimum; `tight` where only a vendor's list and NVML's memory say so."""
        if self.headroom_gb >= 0 and not self.below_minimum:
            return "fits"
        return "tight" if self.by_list and self.listed_room_gb >= self.kv_budget_gb else "no"

    @property
    def fits(self) -> bool:
        """Whether weights and the planned sequences (at least one) can run, tight nodes included."""
        return self.verdict != "no"


def sequence_cost(profile: Profile, architecture: Architecture | None = None) -> SequenceCost:
    """What a sequence takes under this profile's parallelism, cache types, prefix caching and speculation."""
    architecture = architecture or profile.model.architecture()
    tensor = profile.parallel.tensor
    guessed = profile.speculation.tokens if profile.speculation else 0
    return SequenceCost(
        kv_bytes_per_token=architecture.kv_bytes_per_token(profile.kv_cache_dtype, tensor, guessed > 0),
        state_bytes=architecture.state_bytes(tensor, profile.ssm_cache_dtype or "float32", guessed),
        state_copies=architecture.state_copies(profile.caching.prefix, guessed) if architecture.has_mamba else 0,
    )


def plan_memory(
    profile: Profile,
    context: int | None = None,
    sequences: int | None = None,
    architecture: Architecture | None = None,
    by_parameters: bool = False,
) -> MemoryPlan:
    """Plan a profile's memory at `context` tokens (its max_model_len if None) for `sequences` at once.

    `by_parameters` is the deployment guide's own rule: what is known of the checkpoint and of vendors is left out.
    Without `sequences` the profile's own bound is planned, or as many as fit if that is fewer, but at least
    one: vLLM then runs fewer at full length and queues the rest.
    """
    checkpoint, hardware, replicas = profile.checkpoint, profile.hardware, profile.parallel.data
    weights = profile.model.parameters_billion * BYTES_PER_PARAMETER[profile.precision] * replicas
    size, minimum = (
        None if by_parameters or gb is None else gb * replicas
        for gb in (checkpoint.size_gb, checkpoint.vendor_minimum_gb)
    )
    one_replica = hardware.gpus // replicas

    def with_sequences(count: int) -> MemoryPlan:
        return MemoryPlan(
            node_gb=hardware.memory_gb,
            nvml_gb=None if hardware.gpu.nvml_gb is None else hardware.gpu.nvml_gb * hardware.gpus,
            gpus=hardware.gpus,
            utilization=profile.gpu_memory_utilization,
            weights_gb=weights,
            formula_gb=weights * OVERHEAD,
            checkpoint_gb=size,
            vendor_minimum_gb=minimum,
            listed=None if by_parameters else checkpoint.listed_on(hardware.gpu.name, one_replica),
            context=context or profile.max_model_len,
            sequences=count,
            sequence=sequence_cost(profile, architecture),
        )

    if sequences is not None:
        return with_sequences(sequences)
    return with_sequences(max(1, min(profile.max_sequences, with_sequences(1).max_sequences)))
