"""Lua scripts, as Redis knows them, and what asking Redis may come to."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from gateway.redis.replies import Shape, anything


@dataclass(frozen=True, slots=True)
class Script:
    """A Lua script by its name. `sha` is how Redis knows it, `fits` whether a reply is one of its."""

    name: str
    source: str
    sha: str
    fits: Shape = anything

    @classmethod
    def of(cls, name: str, source: str, fits: Shape = anything) -> "Script":
        return cls(name, source, hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest(), fits)

    @classmethod
    def read(cls, *files: Path, fits: Shape = anything) -> "Script":
        """The script that the files make one after the other; it is called after the last one."""
        return cls.of(files[-1].stem, "\n".join(file.read_text() for file in files), fits)


class RedisUnavailable(Exception):
    """Redis did not answer, or refused: whoever asked goes by its documented fallback. The message says why."""


class ScriptFailed(RedisUnavailable):
    """Redis answered, and refused this call alone: a right that its user lacks, a key of another type, a mistake in a
    script, a reply of another shape. Others may be served, so Redis counts as up; asking again later may help."""
