"""Does a model fit a node, and how many sequences fit beside it.

The rule is the deployment guide's: needed = parameters x bytes per parameter x 1.15 + KV budget, against
the node's memory times the share that vLLM may use. All sizes in decimal GB (10^9 bytes), as GPUs are sold.
Where the size of the checkpoint is known it takes the place of parameters x bytes, because a "4 bit"
checkpoint is more than 4 bits a parameter; the 15% for activations, buffers and fragmentation stay on top
of either.
"""

from dataclasses import dataclass

from workers.architecture import Architecture
from workers.catalog.facts import BYTES_PER_PARAMETER
from workers.profile import Profile

OVERHEAD = 1.15
GB = 1e9


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
    utilization: float
    weights_gb: float
    formula_gb: float
    checkpoint_gb: float | None
    vendor_minimum_gb: float | None
    context: int
    sequences: int
    sequence: SequenceCost

    @property
    def usable_gb(self) -> float:
        """What vLLM may take of the node."""
        return self.node_gb * self.utilization

    @property
    def needed_gb(self) -> float:
        """Weights with the 15%, by the known checkpoint where there is one. This decides."""
        return self.formula_gb if self.checkpoint_gb is None else self.checkpoint_gb * OVERHEAD

    @property
    def room_gb(self) -> float:
        """What is left for sequences. Negative where not even the weights fit."""
        return self.usable_gb - self.needed_gb

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
        """What is left beside everything planned; negative is what is missing."""
        return self.usable_gb - self.total_gb

    @property
    def max_sequences(self) -> int:
        """Sequences of `context` tokens that fit beside the weights."""
        return self.sequences_at(self.context)

    def sequences_at(self, context: int) -> int:
        """Sequences of `context` tokens that fit beside the weights."""
        return max(0, int(self.room_gb * GB // self.sequence.bytes_at(context)))

    @property
    def fits(self) -> bool:
        """Whether weights and the planned sequences (at least one) fit into what vLLM may use."""
        return self.headroom_gb >= 0


def sequence_cost(profile: Profile, architecture: Architecture | None = None) -> SequenceCost:
    """What a sequence takes under this profile's parallelism, cache types, prefix caching and speculation."""
    architecture = architecture or profile.model.architecture()
    tensor = profile.parallel.tensor
    guessed = profile.speculation.tokens if profile.speculation else 0
    return SequenceCost(
        kv_bytes_per_token=architecture.kv_bytes_per_token(profile.kv_cache_dtype, tensor),
        state_bytes=architecture.state_bytes(tensor, profile.ssm_cache_dtype or "float32", guessed),
        state_copies=architecture.state_copies(profile.caching.prefix, guessed) if architecture.has_mamba else 0,
    )


def plan_memory(
    profile: Profile,
    context: int | None = None,
    sequences: int | None = None,
    architecture: Architecture | None = None,
) -> MemoryPlan:
    """Plan a profile's memory at `context` tokens (its max_model_len if None) for `sequences` at once.

    Without `sequences` the profile's own bound is planned, or as many as fit if that is fewer, but at least
    one: vLLM then runs fewer at full length and queues the rest.
    """
    checkpoint = profile.checkpoint
    weights = profile.model.parameters_billion * BYTES_PER_PARAMETER[profile.precision]

    def with_sequences(count: int) -> MemoryPlan:
        return MemoryPlan(
            node_gb=profile.hardware.memory_gb,
            utilization=profile.gpu_memory_utilization,
            weights_gb=weights,
            formula_gb=weights * OVERHEAD,
            checkpoint_gb=checkpoint.size_gb,
            vendor_minimum_gb=checkpoint.vendor_minimum_gb,
            context=context or profile.max_model_len,
            sequences=count,
            sequence=sequence_cost(profile, architecture),
        )

    if sequences is not None:
        return with_sequences(sequences)
    return with_sequences(max(1, min(profile.scheduling.max_sequences, with_sequences(1).max_sequences)))
