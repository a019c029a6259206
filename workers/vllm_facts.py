"""What a vLLM version lacks that a node behind this gateway would use, and the driver that its image asks for.

Read in the wheels of 0.22.0 and 0.32.0, in vLLM's threads, and tried on their CPU builds where a GPU plays no part.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from workers.profile import Profile
from workers.versions import at_least

COMPATIBILITY_SWITCH = "VLLM_ENABLE_CUDA_COMPATIBILITY"
COMPATIBLE_DRIVER = "550"
"""The oldest driver branch for which the image's own compatibility libraries are known to serve CUDA 13."""

DEFAULT_CUDA = "13.0"
"""The CUDA of vllm/vllm-openai from v0.22.0 on (torch built for cu130), unless the tag names another."""


@dataclass(frozen=True, slots=True)
class Lack:
    """Something that 0.22.0 lacks, and what that means. `concerns` says for which profiles.

    `since` is the oldest version that is known to have it.
    """

    since: str
    what: str
    concerns: Callable[[Profile], bool]


def _thinks(profile: Profile) -> bool:
    return profile.reasoning_parser is not None


def _guesses(profile: Profile) -> bool:
    return profile.speculation is not None


def _may_quantise(profile: Profile) -> bool:
    return profile.checkpoint.fallback is not None


def _has_gpus(profile: Profile) -> bool:
    return profile.hardware.gpu.family != "cpu"


def _bounds_its_queue(profile: Profile) -> bool:
    return profile.scheduling.max_queued_requests is not None or profile.scheduling.max_queued_tokens is not None


LACKS = (
    Lack("0.28.0", "thinking budgets on Model Runner V2 (400 instead); VLLM_USE_V2_MODEL_RUNNER=0 helps", _thinks),
    Lack("0.32.0", "thinking budgets on /v1/messages; the gateway serves them over chat", _thinks),
    Lack("0.32.0", "reasoning_tokens in usage; the gateway counts token ids", _thinks),
    Lack("0.30.0", "bounds of its own queue; the gateway's max_concurrency bounds it", _bounds_its_queue),
    Lack("0.26.0", "whole JSON from structured output with thinking and MTP (vllm 44993)", _guesses),
    Lack("0.32.0", "FP8 at load without a second copy of experts' weights, +258 GB (vllm 44489)", _may_quantise),
    Lack("0.24.0", "repetition_detection, which ends a thought that loops", _thinks),
    Lack("0.32.0", "vllm preload, which keeps weights in memory over a restart", _has_gpus),
)


def lacks_of(version: str, profile: Profile) -> Iterator[str]:
    """What the version lacks of what the profile or the gateway would use."""
    return (lack.what for lack in LACKS if lack.concerns(profile) and not at_least(version, lack.since))


def image_version(image: str) -> str | None:
    """The vLLM version in an image's tag; None where it names none, such as `latest` or a digest."""
    found = re.search(r":v?(\d+\.\d+(?:\.\d+)?)[^/]*$", image)
    return found.group(1) if found else None


def image_cuda(image: str) -> str:
    """The CUDA version of an image, by a tag such as v0.32.0-cu129, else the default."""
    found = re.search(r":[^/]*\bcu(\d{2})(\d)\b", image)
    return f"{found.group(1)}.{found.group(2)}" if found else DEFAULT_CUDA


def image_driver(image: str) -> str:
    """The oldest driver branch that serves the image's CUDA without its compatibility libraries."""
    return "580" if at_least(image_cuda(image), "13.0") else "525.60"
