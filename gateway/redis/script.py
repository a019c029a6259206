"""Lua scripts, and the errors of calls to Redis."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from gateway.redis.replies import Shape, anything

COUNT_UNTIL = Path(__file__).parent / "lua" / "count_until.lua"
"""What scripts that keep members for a while begin with."""


@dataclass(frozen=True, slots=True)
class Script:
    """A Lua script. `sha` names it in Redis; `fits(reply, command)` checks its replies."""

    name: str
    source: str
    sha: str
    fits: Shape = anything

    @classmethod
    def of(cls, name: str, source: str, fits: Shape = anything) -> "Script":
        return cls(name, source, hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest(), fits)

    @classmethod
    def read(cls, *files: Path, fits: Shape = anything) -> "Script":
        """The script made of `files` one after the other, named after the last one."""
        return cls.of(files[-1].stem, "\n".join(file.read_text() for file in files), fits)


class RedisUnavailable(Exception):
    """Redis did not answer, or refused; the message says why. The caller falls back as documented."""


class RedisRefusesAll(RedisUnavailable):
    """Redis answers, and refuses every call until somebody mends what is wrong with it. `state` completes "Redis is",
    `text` is its own error, `remedy` what to do; none ends with a full stop."""

    def __init__(self, state: str, text: str, remedy: str) -> None:
        super().__init__(state, text, remedy)
        self.state, self.text, self.remedy = state, text, remedy

    def __str__(self) -> str:
        return f"{self.state} ({self.text}): {self.remedy}"


class ScriptFailed(RedisUnavailable):
    """Redis refused this call alone: a right that its user lacks, a key of another type, an error in a script, or a
    reply of another shape. Other calls may succeed, so Redis counts as up; the same call may succeed later."""
