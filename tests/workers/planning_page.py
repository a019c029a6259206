"""The plans that docs/planning.md shows, as the command prints them.

python -m tests.workers.planning_page    writes them anew, after a profile or a figure was changed
"""

import re
import shlex
from pathlib import Path

from typer.testing import CliRunner

from workers.cli import app

PAGE = Path(__file__).parents[2] / "docs" / "planning.md"
BLOCK = re.compile(r"```console\n\$ fleetgate-worker (?P<command>plan [^\n]*)\n(?P<output>.*?)```", re.DOTALL)


def printed(command: str) -> str:
    """What the command prints, without blanks at the ends of lines."""
    output = CliRunner().invoke(app, shlex.split(command)).output
    return "\n".join(line.rstrip() for line in output.strip("\n").splitlines()) + "\n"


def renewed(page: str) -> str:
    """The page with the output of each of its plans as it is now."""
    return BLOCK.sub(lambda m: f"```console\n$ fleetgate-worker {m['command']}\n{printed(m['command'])}```", page)


if __name__ == "__main__":
    PAGE.write_text(renewed(PAGE.read_text()))
