"""The flags that a node on this machine was really started with, read from its process (Linux)."""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from workers.speed_flags import NEUTRAL, NEUTRAL_VARIABLES, VARIABLES

LISTENING = "0A"
SECRET_ENDINGS = ("-key", "-token", "-password", "-secret", "-keyfile")
SECRET_WORDS = ("KEY", "TOKEN", "PASSWORD", "SECRET")

FLAG = re.compile(r"--?[A-Za-z]")
PYTHONS = ("-P", "-m", "-c")
SHORT = {
    "-dcp": "--decode-context-parallel-size",
    "-dp": "--data-parallel-size",
    "-ep": "--enable-expert-parallel",
    "-n": "--nnodes",
    "-pp": "--pipeline-parallel-size",
    "-q": "--quantization",
    "-r": "--node-rank",
    "-sc": "--speculative-config",
    "-tp": "--tensor-parallel-size",
}
"""vLLM's short names, as of 0.32."""


@dataclass(frozen=True, slots=True)
class Launched:
    """Flags (None: a switch) and variables that decide a vLLM's speed. Secrets, names and ports are left out."""

    flags: Mapping[str, str | None]
    environment: Mapping[str, str]


def read_launched(url: str, proc: Path = Path("/proc")) -> Launched | None:
    """Of the vLLM that listens on the URL's port; None where it cannot be read, or is none."""
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    inodes = set(_listening(proc, port))
    for folder in sorted(proc.glob("[0-9]*"), key=lambda f: int(f.name)) if inodes else ():
        if _holds(folder, inodes):
            words = _words(folder / "cmdline")
            flags = flags_in(words)
            # A server that has renamed its process tells no flags any more.
            if flags and any(Path(word).name == "vllm" or word.startswith("vllm.") for word in words):
                return Launched(flags, _environment(folder / "environ"))
    return None


def flags_in(words: Sequence[str]) -> dict[str, str | None]:
    """The flags of a command line: `--x y`, `--x=y`, `-x y`, switches. Several values are joined by blanks.

    Python's own flags, names, ports and secrets are left out.
    """
    found: dict[str, str | None] = {}
    name = ""
    for word in words:
        if FLAG.match(word):
            name, equals, value = word.partition("=")
            name = SHORT.get(name, name.replace("_", "-"))
            found[name] = value if equals else None
        elif name:
            before = found[name]
            found[name] = word if before is None else f"{before} {word}"
    left = {*NEUTRAL, *PYTHONS}
    return {flag: value for flag, value in found.items() if flag not in left and not flag.endswith(SECRET_ENDINGS)}


def _words(file: Path) -> list[str]:
    try:
        return [word.decode(errors="replace") for word in file.read_bytes().split(b"\0") if word]
    except OSError:
        return []


def _environment(file: Path) -> dict[str, str]:
    try:
        entries = [entry.decode(errors="replace").partition("=") for entry in file.read_bytes().split(b"\0")]
    except OSError:
        return {}
    return {name: value for name, _, value in entries if _decides(name)}


def _decides(name: str) -> bool:
    known = name.startswith(VARIABLES) and name not in NEUTRAL_VARIABLES
    return known and not any(word in name for word in SECRET_WORDS)


def _listening(proc: Path, port: int) -> Iterator[str]:
    for table in ("tcp", "tcp6"):
        try:
            lines = (proc / "net" / table).read_text().splitlines()[1:]
        except OSError:
            continue
        for fields in (line.split() for line in lines):
            if len(fields) > 9 and fields[3] == LISTENING and int(fields[1].rpartition(":")[2], 16) == port:
                yield fields[9]


def _holds(folder: Path, inodes: set[str]) -> bool:
    with suppress(OSError):
        for entry in (folder / "fd").iterdir():
            with suppress(OSError):
                target = str(entry.readlink())
                if target.startswith("socket:[") and target[8:-1] in inodes:
                    return True
    return False
