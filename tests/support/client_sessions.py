"""Recorded requests of real clients: the shapes of their sessions, with made-up words in place of their prompts.

Each file of tests/routing/sessions is what one client sent in print mode to a server that answered with tool calls: a
main agent, its sub-agents, in some of them a compaction. Kept are the headers of sessions and agents, the order of
fields, the first messages, the attribution and the lines with a date; tools are names; ids are made up. So are the
hashes (`cch`) of Claude Code 2.1.90, which leaves zeros there where plain node runs it.
"""

import json
import random
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[1] / "routing" / "sessions"

_MADE_UP = re.compile(r"\{([0-9a-f]{6})\*([0-9]+)\}")
_WORDS = ("river", "stone", "light", "morning", "garden", "letter", "winter", "music", "island", "bridge")


@dataclass(frozen=True, slots=True)
class ClientRequestShape:
    """One request. `agent`: whose it is, in the recording's own words."""

    client: str
    path: str
    agent: str
    headers: dict[str, str]
    body: dict[str, Any]

    @property
    def fields(self) -> dict[bytes, bytes]:
        """Its headers as the gateway has them."""
        return {name.encode(): value.encode() for name, value in self.headers.items()}


def recorded_sessions(change: Callable[[str], str] = str) -> dict[str, list[ClientRequestShape]]:
    """All recordings by their client, in the order in which their requests came; their text after `change`."""
    found = {}
    for file in sorted(FOLDER.glob("*.json")):
        data = json.loads(change(file.read_text()))
        found[data["client"]] = [
            ClientRequestShape(
                data["client"], data["path"], each["agent"], each["headers"], _body(each["body"], each["turns"])
            )
            for each in data["requests"]
        ]
    return found


def _body(shape: dict[str, Any], turns: int) -> dict[str, Any]:
    """A body with made-up words, and as many messages as the recorded one had."""
    body: dict[str, Any] = _spelled_out(shape)
    if "tools" in body:
        body["tools"] = [{"name": name} for name in body["tools"]]
    messages = body.get("messages") or body["input"]
    for number in range(len(messages), turns):
        messages.append({"role": ("user", "assistant")[number % 2], "content": f"turn {number}"})
    return body


def _spelled_out(value: Any) -> Any:
    match value:
        case str():
            return _MADE_UP.sub(lambda found: _words(found[1], int(found[2])), value)
        case list():
            return [_spelled_out(each) for each in value]
        case dict():
            return {name: _spelled_out(each) for name, each in value.items()}
    return value


def _words(seed: str, length: int) -> str:
    return " ".join(random.Random(seed).choices(_WORDS, k=length // 5 + 1))[:length]
