"""The commands of a page, run one after the other in one shell, and what the page says that they print."""

import re
from dataclasses import dataclass

_BLOCKS = re.compile(r"^```sh\n(?P<commands>.*?)^```\n(?:\n```text\n(?P<shown>.*?)^```\n)?", re.DOTALL | re.MULTILINE)
_END = "--- end of step %d ---"


@dataclass(frozen=True)
class Step:
    """One block of commands, and the lines that the page shows as their output."""

    commands: str
    shown: tuple[str, ...]


def steps(page: str) -> list[Step]:
    """All `sh` blocks of a page, each with the `text` block right behind it."""
    return [Step(found["commands"], tuple((found["shown"] or "").splitlines())) for found in _BLOCKS.finditer(page)]


def script(found: list[Step]) -> str:
    """All steps as one script, with marks in its output between them."""
    return "set -e\n" + "".join(f"{step.commands}echo; echo '{_END % at}'\n" for at, step in enumerate(found))


def differences(found: list[Step], output: str) -> list[str]:
    """The lines of the page that a step did not print, in this order. `...` stands for anything within a line."""
    wrong: list[str] = []
    for at, step in enumerate(found):
        printed, mark, output = output.partition(f"{_END % at}\n")
        if not mark:
            return [*wrong, f"step {at} did not end: {step.commands}"]
        lines = iter(printed.replace("\r", "").splitlines())
        for line in step.shown:
            pattern = ".*".join(map(re.escape, line.split("...")))
            if not any(re.fullmatch(pattern, each.rstrip()) for each in lines):
                wrong.append(f"step {at} does not print {line!r}; it prints {printed!r}")
    return wrong
