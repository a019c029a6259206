"""A measured throughput against a profile: was it measured with what the profile launches."""

from collections.abc import Iterator

from workers.argv import Binding, flags_of, weights_of
from workers.profile import Profile
from workers.speed_flags import DEFAULTS, flags_hash, speed_flags
from workers.throughput import MeasuredWith, Throughput


def measured_with(profile: Profile, vllm: str, date: str) -> MeasuredWith:
    """What a measurement of this profile's node, as it is launched, was measured with.

    `vllm` is the version of the node's `/version`, `date` is YYYY-MM-DD.
    """
    flags = profile_flags(profile)
    return MeasuredWith(
        hardware=hardware_name(profile),
        precision=profile.precision,
        vllm=vllm,
        date=date,
        flags=flags,
        environment=profile.environment,
        complete=True,
        flags_hash=flags_hash(flags, profile.environment),
    )


def profile_flags(profile: Profile) -> dict[str, str | None]:
    """The flags that the profile launches vLLM with, None for a switch."""
    return {flag.name: flag.value for flag in flags_of(profile, weights_of(profile), Binding())}


def hardware_name(profile: Profile) -> str:
    """GPUs of the whole node and their kind, such as `8x h200`."""
    return f"{profile.hardware.gpus}x {profile.hardware.gpu.name}"


def differences(profile: Profile, throughput: Throughput) -> Iterator[str]:
    """What differs between the measurement and the profile, one line a difference; none for an estimate."""
    seen = throughput.measured_with
    if seen is None:
        return
    for name, theirs, ours in (
        ("hardware", seen.hardware, hardware_name(profile)),
        ("precision", seen.precision, profile.precision),
    ):
        if theirs != ours:
            yield f"{name}: measured {theirs}, here {ours}"
    theirs_by_flag = speed_flags(seen.flags, seen.environment)
    ours_by_flag = speed_flags(profile_flags(profile), profile.environment)
    names = theirs_by_flag.keys() | (ours_by_flag.keys() if seen.complete else set())
    for name in sorted(names):
        unset = DEFAULTS.get(name, "not set")
        theirs, ours = theirs_by_flag.get(name, unset), ours_by_flag.get(name, unset)
        if theirs != ours:
            yield f"{name}: measured {theirs}, here {ours}"
    if not seen.complete:
        yield "its other flags are not known"
