"""Finds the flags of the vLLM in question: a recorded version, the installed one, a wheel or a source
folder.
"""

from collections.abc import Sequence
from pathlib import Path

from workers.errors import ConfigError
from workers.flags.flagset import FlagSet, load_recorded
from workers.flags.help import ask_installed
from workers.flags.sources import read_sources

INSTALLED = "installed"


def known_flags(version: str, program: Sequence[str]) -> FlagSet:
    """The flags of `version`; `program` starts vLLM where it is `installed`. Raises ConfigError."""
    if version == INSTALLED:
        return ask_installed(program)
    source = Path(version)
    if source.exists():
        return read_sources(source)
    if len(source.parts) > 1 or source.suffix == ".whl":
        raise ConfigError(f"--vllm {version} is not there: give a version, a wheel or a source folder")
    return load_recorded(version)
