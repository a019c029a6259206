"""A checkpoint on disk: is it complete, and what was it downloaded as.

Completeness follows the safetensors index (`model.safetensors.index.json`): every file that `weight_map`
names is there, the tensors that a file's own header lists end exactly at the file's end (a cut-off download
does not), and all tensors together have the index's `metadata.total_size` bytes.
"""

import json
import struct
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from workers.argv import Weights, local_weights, weights_of
from workers.errors import DownloadFailed
from workers.profile import Profile

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
MARKER = "fleetgate-checkpoint.json"
MAX_HEADER_BYTES = 100_000_000


class Marker(BaseModel):
    """What `download` leaves beside the weights, so that `argv` and `launch` know what they are."""

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
    """The weights to serve: those in `folder` as they were downloaded, or the profile's repository."""
    if folder is None:
        return weights_of(profile)
    marker = read_marker(folder)
    return local_weights(folder, marker.quantization if marker else None)


def read_marker(folder: Path) -> Marker | None:
    """What `download` noted in `folder`; None if it was not there. Raises DownloadFailed if
    unreadable.
    """
    file = folder / MARKER
    if not file.exists():
        return None
    try:
        return Marker.model_validate_json(file.read_text())
    except (OSError, ValidationError) as error:
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
    except (OSError, ValueError, KeyError) as error:
        return Completeness(0, 0, None, (f"no usable {INDEX} in {folder}: {error}",))
    faults: list[str] = []
    total = 0
    for name in names:
        try:
            total += _tensor_bytes(folder / name)
        except (OSError, ValueError) as error:
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
