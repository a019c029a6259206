"""Runs pip for a person who waits: a sign of life while it works, its last words and a remedy when it fails."""

import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from workers.cache import Say
from workers.parent_death import die_with_parent

HEARTBEAT_SECONDS = 15.0
LAST_LINES = 12


@dataclass(frozen=True, slots=True)
class PipResult:
    """How a run of pip ended, with everything it printed."""

    ok: bool
    output: str

    @property
    def not_found(self) -> bool:
        """pip reached no index that has such a distribution for this interpreter."""
        return not self.ok and "No matching distribution found" in self.output

    @property
    def last_lines(self) -> str:
        """What to show of a failure, indented."""
        lines = [line for line in self.output.splitlines() if line.strip()]
        return "\n".join(f"    {line}" for line in lines[-LAST_LINES:])


def pip(python: Path, arguments: Sequence[str], log: Path, say: Say) -> PipResult:
    """Run `python -m pip ARGUMENTS`, appending its output to `log` and telling every 15 s that it still works."""
    command = [str(python), "-I", "-m", "pip", "--no-input", "--disable-pip-version-check", *arguments]
    started = time.monotonic()
    with log.open("a+", encoding="utf-8", errors="replace") as output:
        start = output.seek(0, 2)
        output.write(f"$ {' '.join(command)}\n")
        output.flush()
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            preexec_fn=die_with_parent(),  # our lock goes with us, so pip must not write on
        )
        try:
            while (code := _wait(process)) is None:
                say(f"  ... {time.monotonic() - started:.0f} s: {_last_line(log)}")
        finally:  # Ctrl-C must not leave pip writing into the directory
            if process.poll() is None:
                process.kill()
                process.wait()
        output.seek(start)
        return PipResult(code == 0, output.read())


def _wait(process: "subprocess.Popen[bytes]") -> int | None:
    try:
        return process.wait(HEARTBEAT_SECONDS)
    except subprocess.TimeoutExpired:
        return None


def _last_line(log: Path) -> str:
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines()]
    return next((line[:100] for line in reversed(lines) if line), "")
