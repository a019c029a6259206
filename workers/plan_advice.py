"""What to change where a profile does not fit, and what to know where it does."""

from collections.abc import Iterable, Sequence

from workers.profile import Profile
from workers.vram import OVERHEAD, MemoryPlan


def advice(profile: Profile, memory: MemoryPlan, fitting: Sequence[str]) -> Iterable[str]:
    """Sentences for a person; `fitting` names other profiles of the model, best first."""
    yield from _notes_on_offload(profile, memory)
    if memory.verdict == "fits":
        yield from _notes_on_fit(profile, memory)
        return
    if memory.verdict == "tight":
        yield from _notes_on_tight(memory)
    else:
        yield from _what_is_missing(profile, memory)
    if fitting:
        yield "Profiles of this model that fit: " + ", ".join(fitting) + "."


def _notes_on_offload(profile: Profile, memory: MemoryPlan) -> Iterable[str]:
    """What KV offload adds: tokens beside those of the GPUs, and the RAM that each machine needs for it."""
    offload = profile.kv_offload
    if offload is None:
        return
    tokens = profile.offload_bytes / memory.sequence.kv_bytes_per_token
    disk = f", and a disk behind it at {offload.disk} without a bound" if offload.disk else ""
    yield f"KV offload: {offload.ram_gib:g} GiB of RAM keep about {tokens / 1e6:.1f} million tokens more{disk}."
    yield (
        f"With it each machine needs {profile.host_memory_gb:,.0f} GB of RAM and "
        f"{profile.shared_memory_gib:,.0f} GiB of /dev/shm."
    )


def _what_is_missing(profile: Profile, memory: MemoryPlan) -> Iterable[str]:
    if memory.below_minimum:
        yield (
            f"The published minimum is {memory.vendor_minimum_gb:,.0f} GB, and vLLM may use {memory.usable_gb:,.0f} "
            f"of {memory.node_gb:,.0f} GB."
        )
    if memory.headroom_gb < 0:
        yield f"{-memory.headroom_gb:,.0f} GB are missing."
        if memory.room_gb >= 0 and memory.max_sequences > 0:
            yield f"Plan at most {memory.max_sequences} sequences of {memory.context:,} tokens."
        elif memory.room_gb >= 0:
            yield "Shorten the context."
    if profile.precision == "bf16":
        yield "Quantise: FP8 halves the weights, NVFP4 quarters them."
    elif profile.precision == "fp8":
        yield "NVFP4 halves the weights."


def _notes_on_tight(memory: MemoryPlan) -> Iterable[str]:
    if memory.listed is None or memory.nvml_gb is None or memory.nvml_usable_gb is None:
        return
    kept = memory.tensors_gb * (OVERHEAD - 1) / memory.gpus
    yield (
        f"Listed as a node for this checkpoint by {memory.listed.source}. NVML counts {memory.nvml_gb:,.0f} GB, of "
        f"which vLLM may use {memory.nvml_usable_gb:,.0f}; {memory.tensors_gb:,.0f} GB of tensors leave "
        f"{memory.spare_gb_per_gpu:,.1f} GB a GPU for activations, buffers and graphs, where the rule keeps "
        f"{kept:,.1f}. Start with few sequences and a short context."
    )


def _notes_on_fit(profile: Profile, memory: MemoryPlan) -> Iterable[str]:
    bound = profile.max_sequences
    if memory.max_sequences < bound:
        yield (
            f"Only {memory.max_sequences} of max_sequences={bound} fit at the full "
            f"{memory.context:,} tokens; beyond that vLLM preempts. Shorter sequences fit in greater number."
        )
    if profile.checkpoint.size_gb and profile.checkpoint.vendor_minimum_gb:
        yield f"The vendor's minimum is {profile.checkpoint.vendor_minimum_gb:,.0f} GB."
