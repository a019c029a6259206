"""Lua scripts, as Redis knows them."""

import hashlib
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Script:
    """A Lua script by its name. `sha` is how Redis knows it."""

    name: str
    source: str
    sha: str

    @classmethod
    def of(cls, name: str, source: str) -> "Script":
        return cls(name, source, hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest())

    @classmethod
    def read(cls, *files: Path) -> "Script":
        """The script that the files make one after the other; it is called after the last one."""
        return cls.of(files[-1].stem, "\n".join(file.read_text() for file in files))


class Unavailable(Exception):
    """Redis did not answer in time, cannot be reached or cannot write. The message says which."""


class ScriptFailed(Exception):
    """Redis answered with an error that is about the call itself: a mistake in a script, a key of another kind."""
