"""How much a profile downloads."""

from workers.catalog.facts import BYTES_PER_PARAMETER, Checkpoint
from workers.profile import Profile

# Tokenizer, config and the download's own bookkeeping beside the weights.
MARGIN = 1.02
BILLION = 1e9


def candidates(profile: Profile) -> tuple[tuple[Checkpoint, str | None], ...]:
    """Checkpoints to look for, best first, each with the quantisation that loading it then needs."""
    wanted = profile.checkpoint
    if wanted.fallback is None:
        return ((wanted, None),)
    other = profile.model.checkpoint(wanted.fallback.precision)
    return ((wanted, None), (other, wanted.fallback.quantization))


def checkpoint_bytes(profile: Profile, checkpoint: Checkpoint) -> int:
    """Bytes of a checkpoint, by its known size or by parameters x bytes per parameter."""
    if checkpoint.size_gb is not None:
        return int(checkpoint.size_gb * BILLION)
    return int(profile.model.parameters_billion * BILLION * BYTES_PER_PARAMETER[checkpoint.precision])


def download_bytes(profile: Profile) -> int:
    """Bytes of disk that must be free before anything is known about the hub: the largest candidate."""
    return int(max(checkpoint_bytes(profile, c) for c, _ in candidates(profile)) * MARGIN)
