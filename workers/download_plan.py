"""How much a profile downloads, and how much disk that needs: one figure for `plan`, `preflight` and `download`."""

from collections.abc import Mapping

from workers.catalog.facts import Checkpoint, Precision
from workers.profile import Profile

MARGIN = 1.05
"""Beside the tensors: tokenizer, code, and the kernels and graphs that vLLM compiles. The 2% of before were eaten up by
what the BF16 tensors of Nemotron 3 Ultra are above 2 bytes a parameter (1,121 against 1,100 GB)."""

BILLION = 1e9

DISK_BYTES_PER_PARAMETER: Mapping[Precision, float] = {"bf16": 2.04, "fp8": 1.02, "nvfp4": 0.641}
"""For checkpoints whose size nobody has told: what those of Nemotron 3 Ultra take on disk (1,121, 560 and 352.3 GB), by
the 550B of its name."""


def candidates(profile: Profile) -> tuple[tuple[Checkpoint, str | None], ...]:
    """Checkpoints to look for, best first, each with the quantisation that loading it then needs."""
    wanted = profile.checkpoint
    same = [wanted.model_copy(update={"repository": name}) for name in (wanted.repository, *wanted.also)]
    found: list[tuple[Checkpoint, str | None]] = [(each, None) for each in same]
    if wanted.fallback is not None:
        found.append((profile.model.checkpoint(wanted.fallback.precision), wanted.fallback.quantization))
    return tuple(found)


def checkpoint_bytes(profile: Profile, checkpoint: Checkpoint) -> int:
    """Bytes of a checkpoint, by its known size, or by its parameters."""
    if checkpoint.size_gb is not None:
        return int(checkpoint.size_gb * BILLION)
    return int(profile.model.parameters_billion * BILLION * DISK_BYTES_PER_PARAMETER[checkpoint.precision])


def disk_bytes(checkpoint: int, present: int = 0) -> int:
    """Bytes of disk that must be free for a checkpoint of which `present` bytes lie there already. Not negative."""
    return max(0, int((checkpoint - present) * MARGIN))


def download_bytes(profile: Profile) -> int:
    """Bytes of disk that must be free before anything is known about the hub: for the largest candidate."""
    if profile.checkpoint.local:
        return 0
    return disk_bytes(max(checkpoint_bytes(profile, c) for c, _ in candidates(profile)))
