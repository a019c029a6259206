"""A checkpoint on disk: is it complete, and what was it downloaded as.

Completeness follows the safetensors index (`model.safetensors.index.json`): every file that `weight_map`
names is there, the tensors that a file's own header lists end exactly at the file's end (a cut-off download
does not), and all tensors together have the index's `metadata.total_size` bytes.
"""

import json
import struct
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from workers.argv import Weights, local_weights, weights_of
from workers.download_plan import candidates
from workers.errors import ConfigError, DownloadFailed
from workers.profile import Profile
from workers.weight_format import WeightFormat, find_other_model, read_weight_format

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
MARKER = "fleetgate-checkpoint.json"
MAX_HEADER_BYTES = 100_000_000


class Marker(BaseModel):
    """What `download` leaves beside the weights. `argv` and `launch` go by it where config.json tells nothing."""

    model_config = ConfigDict(frozen=True)

    repository: str
    revision: str
    quantization: str | None = None


@dataclass(frozen=True, slots=True)
class Completeness:
    """What was found on disk. `faults` is empty where the checkpoint is complete; sizes in bytes."""

    files: int
    tensor_bytes: int
    expected_bytes: int | None
    faults: tuple[str, ...]


def find_weights(profile: Profile, folder: Path | None) -> Weights:
    """The weights to serve: those in `folder`, held against the profile, or the profile's repository.

    Raises ConfigError where the folder is not there, DownloadFailed where it holds something else than the profile
    serves.
    """
    if folder is None:
        return weights_of(profile)
    if not folder.is_dir():
        raise ConfigError(f"--model-dir {folder} is not there: fleetgate-worker download makes it")
    other = find_other_model(folder, profile.model)
    if other is not None:
        raise DownloadFailed(f"{folder} holds another model than {profile.name} serves: {other}")
    marker, found = read_marker(folder), read_weight_format(folder)
    if found is None:
        return local_weights(folder, _quantization_by_marker(profile, folder, marker))
    return local_weights(folder, _quantization(profile, folder, found))


def _quantization(profile: Profile, folder: Path, found: WeightFormat) -> str | None:
    """What loading has to quantise to, None where the weights are what the profile wants. Raises DownloadFailed."""
    if found.precision == profile.precision:
        return None
    if profile.precision == "fp8" and found.precision == "bf16":
        return "fp8"
    raise DownloadFailed(
        f"{folder} does not hold the {profile.precision} weights of {profile.name}: {found.told}; "
        f"give the right --model-dir, or a profile for {found.precision or 'them'} (fleetgate-worker plan)"
    )


def _quantization_by_marker(profile: Profile, folder: Path, marker: Marker | None) -> str | None:
    """Where config.json tells nothing: what `download` noted. Raises DownloadFailed."""
    if marker is None:
        raise DownloadFailed(
            f"{folder} has no config.json of a model and no {MARKER}: what it holds is not known; "
            f"`fleetgate-worker download {profile.name} --model-dir {folder}` fills it"
        )
    for checkpoint, quantization in candidates(profile):
        if checkpoint.repository == marker.repository:
            return quantization
    known = ", ".join(checkpoint.repository for checkpoint, _ in candidates(profile))
    raise DownloadFailed(f"{folder / MARKER} says {marker.repository}, {profile.name} serves {known}")


UNREADABLE = (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError)
"""What an index or a header that is none is found out by."""


def read_marker(folder: Path) -> Marker | None:
    """What `download` noted in `folder`; None if it was not there. Raises DownloadFailed if
    unreadable.
    """
    file = folder / MARKER
    if not file.exists():
        return None
    try:
        return Marker.model_validate_json(file.read_text())
    except (OSError, ValueError) as error:
        raise DownloadFailed(f"cannot read {file}: {error}") from error


def write_marker(folder: Path, marker: Marker) -> None:
    """Note what was downloaded."""
    (folder / MARKER).write_text(marker.model_dump_json(indent=1) + "\n")


def check_checkpoint(folder: Path) -> Completeness:
    """Hold the files in `folder` against its safetensors index. Reads headers only, so it takes seconds."""
    if not (folder / "config.json").is_file():
        return Completeness(0, 0, None, (f"{folder} has no config.json",))
    try:
        names, expected = _wanted(folder)
    except UNREADABLE as error:
        return Completeness(0, 0, None, (f"no usable {INDEX} in {folder}: {error}",))
    faults: list[str] = []
    total = 0
    for name in names:
        try:
            total += _tensor_bytes(folder / name)
        except UNREADABLE as error:
            faults.append(f"{name}: {error}")
    if not faults and expected is not None and total != expected:
        faults.append(f"tensors have {total:,} bytes, the index says {expected:,}")
    return Completeness(len(names), total, expected, tuple(faults))


def _wanted(folder: Path) -> tuple[list[str], int | None]:
    if not (folder / INDEX).exists() and (folder / SINGLE).exists():
        return [SINGLE], None
    index = json.loads((folder / INDEX).read_text())
    total = index.get("metadata", {}).get("total_size")
    return sorted(set(index["weight_map"].values())), None if total is None else int(total)


def _tensor_bytes(file: Path) -> int:
    """Bytes of a safetensors file's tensors. Raises ValueError if the file is not as long as its header says.

    Format: 8 bytes little-endian header length, a JSON header with each tensor's data_offsets, the data.
    """
    size = file.stat().st_size
    with file.open("rb") as stream:
        head = stream.read(8)
        if len(head) < 8:
            raise ValueError("is cut off inside its header")
        (length,) = struct.unpack("<Q", head)
        if length > min(size, MAX_HEADER_BYTES):
            raise ValueError("is not a safetensors file, or is cut off inside its header")
        header = json.loads(stream.read(length))
    ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
    expected = 8 + length + max(ends, default=0)
    if size != expected:
        raise ValueError(f"has {size:,} bytes, its header says {expected:,}")
    return int(max(ends, default=0))
