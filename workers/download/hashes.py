"""Hashes of checkpoint files: what the source tells of them, and whether the files on this disk have them.

The hub tells the SHA-256 of files that it keeps as LFS objects (the weights, the tokenizer), and git's blob id of the
others: the SHA-1 of "blob", a blank, the size in bytes, a zero byte and the file (git-scm.com, Git Objects). The former
are kept beside the weights in the format of sha256sum(1), so that a copy elsewhere can be verified:

    cd MODEL_DIR && sha256sum --check fleetgate-checkpoint.sha256
"""

import hashlib
import re
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from workers.errors import DownloadFailed

MANIFEST = "fleetgate-checkpoint.sha256"
LINE = re.compile(r"([0-9a-f]{64}) [ *](.+)")
CHUNK_BYTES = 1 << 20

Kind = Literal["sha256", "git"]


@dataclass(frozen=True, slots=True)
class Digest:
    """A file's hash in lower-case hex: SHA-256 of its bytes, or git's blob id."""

    kind: Kind
    value: str


def write_manifest(folder: Path, digests: Mapping[str, Digest]) -> None:
    """Note the SHA-256 of each file that has one. Nothing is written where none has."""
    lines = [f"{d.value}  {name}\n" for name, d in sorted(digests.items()) if d.kind == "sha256"]
    if lines:
        (folder / MANIFEST).write_text("".join(lines))


def read_manifest(text: str, where: str) -> dict[str, Digest]:
    """The hashes in the text of a manifest. Raises DownloadFailed for a line that is none."""
    digests = {}
    for number, line in enumerate(text.splitlines(), start=1):
        found = LINE.fullmatch(line)
        if found is None:
            raise DownloadFailed(f"{where}, line {number}: expected a SHA-256 in hex, two blanks and a file's name")
        digests[found.group(2)] = Digest("sha256", found.group(1))
    return digests


def hash_file(file: Path, kind: Kind, progress: Callable[[int], None]) -> str:
    """The file's hash; `progress` is told the bytes of each piece. Raises OSError."""
    with file.open("rb") as stream:
        made = hashlib.sha256()
        if kind == "git":
            made = hashlib.sha1(b"blob %d\0" % file.stat().st_size, usedforsecurity=False)
        while data := stream.read(CHUNK_BYTES):
            made.update(data)
            progress(len(data))
    return made.hexdigest()


def find_wrong(folder: Path, digests: Mapping[str, Digest], workers: int, progress: Callable[[int], None]) -> list[str]:
    """Files that do not have the hash that they should, or cannot be read; `workers` are read at once."""

    def is_wrong(name: str) -> bool:
        try:
            return hash_file(folder / name, digests[name].kind, progress) != digests[name].value
        except OSError:
            return True

    with ThreadPoolExecutor(workers, thread_name_prefix="hash") as pool:
        names = sorted(digests)
        return [name for name, wrong in zip(names, pool.map(is_wrong, names), strict=True) if wrong]
