"""What the catalogue knows of a profile's model and GPU, beside the figures that are planned with."""

from collections.abc import Iterator

from workers.profile import Profile


def facts_told(profile: Profile) -> Iterator[str]:
    """One line about the model, one about its checkpoint where there is something to know, one about precision."""
    model, gpu = profile.model, profile.hardware.gpu
    yield (
        f"Model: {model.title}, {model.parameters_billion:g} B parameters, {model.active_billion:g} B of them active a "
        f"token; licence: {model.license}"
    )
    if profile.checkpoint.note:
        yield f"Checkpoint: {profile.checkpoint.note}"
    computes = {"bf16": True, "fp8": gpu.fp8_compute, "nvfp4": gpu.fp4_compute}
    if not computes.get(profile.precision, True):
        yield (
            f"{gpu.title} has no {profile.precision.upper()} arithmetic: weights are dequantised as they are used, "
            "which saves memory and no time"
        )
