"""Where a checkpoint comes from: what every source tells, and what is taken of it."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath
from typing import Protocol

from workers.checkpoint import MARKER, Marker
from workers.download.hashes import MANIFEST, Digest
from workers.errors import DownloadFailed, WorkerError

# Formats that vLLM does not load, and other people's copies of the weights.
IGNORED = ("*.bin", "*.pth", "*.pt", "*.gguf", "*.onnx", "original/*", "consolidated*", "*.msgpack", "*.h5")
INCOMING = ".incoming"
"""The folder below the model's in which files lie until they are whole."""
ODD = re.compile(r"[\x00-\x1f\x7f\\]")


class Interrupted(WorkerError):
    """The connection broke, or the source is busy: another try may go on from here."""


@dataclass(frozen=True, slots=True)
class Found:
    """A checkpoint that exists. `sizes` maps the files that are wanted to their bytes, `digests` those of them of which
    the source tells a hash. `marker` is what will be noted beside them, None where the source has no such note.
    """

    title: str
    sizes: Mapping[str, int]
    marker: Marker | None = None
    digests: Mapping[str, Digest] = field(default_factory=dict)

    @property
    def total(self) -> int:
        """Bytes of all wanted files."""
        return sum(self.sizes.values())


class Source(Protocol):
    """A place that has checkpoints."""

    def find(self) -> Found:
        """Look the checkpoint up. Raises DownloadFailed where there is none, Interrupted where nobody answers."""

    def fetch(self, found: Found, folder: Path, workers: int) -> None:
        """Bring what is not in `folder` yet, `workers` files at once. Raises Interrupted or DownloadFailed."""


def is_wanted(name: str) -> bool:
    """Whether a file is one that vLLM loads, or tells it how."""
    return not any(fnmatch(name, pattern) for pattern in IGNORED)


def wanted_files(title: str, listed: Mapping[str, int]) -> dict[str, int]:
    """Of the files that a bucket, server or folder lists: those to bring. Raises DownloadFailed.

    Hidden ones are other programs' notes, ours are read apart. A name that leads out of the folder is refused.
    """
    wanted = {}
    for name, size in sorted(listed.items()):
        parts = PurePosixPath(name).parts
        if not parts or PurePosixPath(name).is_absolute() or ".." in parts or ODD.search(name):
            raise DownloadFailed(f"{title} lists {name!r}: such a name is not written")
        if is_wanted(name) and name not in (MARKER, MANIFEST) and not any(part.startswith(".") for part in parts):
            wanted[name] = size
    if not any(name.endswith(".safetensors") for name in wanted):
        raise DownloadFailed(f"{title} holds no checkpoint: {len(listed)} files, none is *.safetensors")
    return wanted
