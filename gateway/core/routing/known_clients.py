"""What known clients write into their requests that changes although the conversation stays the same, and the headers
by which they tell their agents apart.

A line is added for what was seen in a client's own requests, with the version that was seen
(`tests/routing/sessions` holds their shapes). A pattern matches the client's own words only.
"""

import re
from typing import NamedTuple

ATTRIBUTION = "x-anthropic-billing-header"
"""The beginning of the block that Claude Code puts in front of the system prompt. Its hashes differ from request to
request, so vLLM (0.32, `entrypoints/anthropic/serving.py`) leaves it out of the prompt, and so does chat for messages.
"""

SESSION_HEADERS = (
    "x-claude-code-session-id",  # Claude Code 2.1.197: the same for all its agents
    "session-id",  # Codex 0.171.0: the same for all its agents
    "session_id",  # Codex before that
    "x-session-affinity",  # OpenCode 1.18.33: each agent has its own
    "x-opencode-session",  # OpenCode, towards its maker's own gateway
    "x-session-id",  # OpenCode 1.18.33, and whoever builds a client
)
"""Headers that name a session, in the order in which they are looked for."""

AGENT_HEADERS = (
    b"x-claude-code-agent-id",  # Claude Code 2.1.197: a sub-agent's; requests of the main agent have none
    b"x-codex-window-id",  # Codex 0.171.0: THREAD:WINDOW. A sub-agent is a thread, and a compaction opens a window
)
"""Headers that name one agent of a session. Codex sends one `prompt_cache_key` for all of them."""


class ChangingText(NamedTuple):
    """A text within system prompt or first user message that changes within a session."""

    client: str
    pattern: re.Pattern[bytes]


CHANGING = (
    ChangingText("Claude Code 2.1.197", re.compile(rb"Today's date is [0-9]{4}-[0-9]{2}-[0-9]{2}")),
    ChangingText("Codex 0.171.0", re.compile(rb"<current_date>[^<]{1,40}")),
    ChangingText("OpenCode 1.18.33", re.compile(rb"Today's date: [A-Z][a-z]{2} [A-Z][a-z]{2} [0-9]{2} [0-9]{4}")),
)
"""Dates: a session that goes on over midnight, or the next day, has the longest part of its prompt in its node's cache
all the same."""

_MARK = b"date"
"""Stands in each of `CHANGING`, and not in most other texts."""


def lasting(text: bytes) -> bytes:
    """`text` without what is known to change within a session."""
    if _MARK in text:
        for changing in CHANGING:
            text = changing.pattern.sub(b"", text)
    return text


def behind_attribution(text: str) -> str:
    """What follows Claude Code's attribution in a text that begins with it: it is one line, and mostly all there is."""
    return text.partition("\n")[2]
