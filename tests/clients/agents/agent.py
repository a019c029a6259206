"""One agent: how it is started, what the fake node leads it through, and what tells that it did."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

NOTES = "The bridge is open from nine to five.\n"
"""What stands in the file that an agent is asked to copy."""

DONE = "All copied."


@dataclass(frozen=True, slots=True)
class Run:
    """One start of an agent: `work` is its folder, `prompt` what it is asked; `again`: the conversation goes on;
    `extra`: further words of the command."""

    work: Path
    prompt: str
    again: bool = False
    extra: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Agent:
    """`connect` is its name for `fleetgate connect`, `package` the one whose version is told.

    `turns`: what the node says, turn by turn, so that the agent copies notes.txt to copy.txt in the folder. `requests`:
    the most requests that a session of those turns may take. `goes_on`: whether a conversation can be taken up again.
    `to_stream`: words for an agent that else asks for whole answers.
    `brief`: words with which its prompt fits into the 8,192 tokens of a tiny model; without tools, as that calls none.
    """

    name: str
    connect: str
    package: str
    dialect: str
    thinking: str
    binary: Callable[[], Path]
    command: Callable[[Path, Run], Sequence[str]]
    turns: Callable[[Path], list[Any]]
    requests: int
    shows_thinking: Callable[[str], bool]
    brief: Callable[[Path], Sequence[str]]
    goes_on: bool = True
    stdin: bool = True
    to_stream: Sequence[str] = ()
    environment: Mapping[str, str] = field(default_factory=dict)

    def prompt(self, text: str, turns: list[Any]) -> str:
        """A prompt that has the fake node take these turns."""
        return f"{text} [[turns={json.dumps(turns)}]]"


def events(output: str) -> list[dict[str, Any]]:
    """The lines of an output that are JSON objects."""
    found = []
    for line in output.splitlines():
        if line.startswith("{"):
            try:
                found.append(json.loads(line))
            except ValueError:
                continue
    return found
