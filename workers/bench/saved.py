"""Writes what was measured into a profile of one's own, which `plan` reads."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from workers.bench.figures import Figures
from workers.bench.ladder import Rung
from workers.bench.launched import Launched
from workers.errors import ConfigError
from workers.measured import hardware_name, measured_with
from workers.output_file import replaced_whole
from workers.profile import Profile
from workers.profiles.load import PROFILE_PATH, build_profile, load_profile_file
from workers.speed_flags import flags_hash
from workers.throughput import Load, MeasuredWith, Throughput

SUFFIX = "-measured"
GOOD_FAILED = 0.01
"""Share of requests that may fail in a load whose throughput is saved."""
NOT_TOLD = "not told"
WHERE = "the saved profile"


def folder_for(profiles: Sequence[Path]) -> Path:
    """Where one's own profiles are: the first folder that is named, made where it is not there. Raises ConfigError."""
    named = [*profiles, *(Path(each) for each in os.environ.get(PROFILE_PATH, "").split(os.pathsep) if each)]
    if not named:
        raise ConfigError(f"--save needs a folder of your own profiles: --profiles FOLDER, or ${PROFILE_PATH}")
    try:
        named[0].mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"cannot make the folder {named[0]}: {error.strerror}") from error
    return named[0]


def best_rungs(rungs: Sequence[Rung]) -> list[Rung]:
    """Of each workload the load with most output tokens a second, of those that hardly failed; in their order."""
    best: dict[str, Rung] = {}
    for rung in rungs:
        figures, known = rung.figures, best.get(rung.workload)
        if not _is_good(figures):
            continue
        if known is None or figures.tokens_out > known.figures.tokens_out:
            best[rung.workload] = rung
    return list(best.values())


def throughput_of(rung: Rung, measured: MeasuredWith, how: str) -> Throughput:
    """One entry of a profile. `how`: what sent the load."""
    speed = round(rung.figures.tokens_out, 2)
    loop = "closed loop" if rung.figures.users is not None else "open loop"
    return Throughput(
        kind="measured",
        low=speed,
        high=speed,
        workload=f"{rung.told}, {rung.figures.load}",
        source=f"fleetgate-worker bench, {how}, {loop}, {rung.figures.seconds:.0f} s",
        measured_with=measured,
        load=_load_of(rung),
    )


def _load_of(rung: Rung) -> Load | None:
    """What `plan --workload` compares with a workload; None where it is not known how much came from the cache, or in
    an open loop how many answers ran at once.

    The node's own count of hits goes before what was sent twice: blocks of a cache round it down.
    """
    figures, lengths = rung.figures, rung.lengths
    cached = lengths.shared if figures.node.hit_rate is None else min(max(figures.node.hit_rate, 0.0), 1.0)
    users: float | None = figures.users
    if users is None and figures.user_rate:
        users = round(figures.tokens_out / figures.user_rate, 2)  # answers at once, as all tokens come from them
    if cached is None or not users:
        return None
    return Load(
        input=round(lengths.input_tokens), cached=round(cached, 3), output=round(lengths.output_tokens), users=users
    )


def launched_with(profile: Profile, launched: Launched | None, version: str | None, date: str) -> MeasuredWith:
    """What was measured: the node's own flags where its process told them, else those that the profile launches."""
    told = version or NOT_TOLD
    if launched is None:
        return measured_with(profile, told, date)
    return MeasuredWith(
        hardware=hardware_name(profile),
        precision=profile.precision,
        vllm=told,
        date=date,
        flags=dict(launched.flags),
        environment=dict(launched.environment),
        complete=True,
        flags_hash=flags_hash(launched.flags, launched.environment),
    )


def save(profile: Profile, measured: Sequence[Throughput], folder: Path) -> Profile:
    """Write NAME-measured.yaml into `folder` and return the profile as it is read back.

    What an earlier bench wrote there stays behind the new entries, unless workload, version and flags are the same.
    The profile itself is never written to. Raises ConfigError where the file cannot be written.
    """
    name = profile.name.removesuffix(SUFFIX) + SUFFIX
    file = folder / f"{name}.yaml"
    earlier = load_profile_file(file).throughput if file.exists() else profile.throughput
    taken = {_key(each) for each in measured}
    entries = [*measured, *(each for each in earlier if _key(each) not in taken)]
    document = _document(profile, name, entries)
    try:
        with replaced_whole(file) as fresh:
            fresh.write_text(yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=110), encoding="utf-8")
            found = load_profile_file(fresh)
    except OSError as error:
        raise ConfigError(f"cannot write {file}: {error.strerror}; nothing was saved") from error
    return found


def _document(profile: Profile, name: str, entries: Sequence[Throughput]) -> dict[str, Any]:
    """One that extends a built-in profile, with what differs from it; the whole profile where there is none."""
    own = {
        "name": name,
        "title": profile.title.removesuffix(", measured") + ", measured",
        "throughput": [entry.model_dump(mode="json", exclude_defaults=True) for entry in entries],
    }
    whole = {**profile.model_dump(mode="json", exclude_unset=True), **own}
    wanted = build_profile(whole, WHERE)
    short = {"extends": profile.name.removesuffix(SUFFIX), **own}
    try:
        found = build_profile(short, WHERE)
        fields = [each for each in whole if getattr(found, each) != getattr(wanted, each)]
        short |= {each: whole[each] for each in fields}
        return short if build_profile(short, WHERE) == wanted else whole
    except ConfigError:  # it extends no built-in profile
        return whole


def _is_good(figures: Figures) -> bool:
    asked = figures.whole + figures.failed + figures.cut
    return round(figures.tokens_out, 2) > 0 and figures.failed <= GOOD_FAILED * asked


def _key(entry: Throughput) -> tuple[str, str, str]:
    measured = entry.measured_with
    return entry.workload, measured.vllm if measured else "", measured.flags_hash if measured else ""
