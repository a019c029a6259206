"""Reads the flags of an installed vLLM out of its `--help=all`."""

import re
import subprocess
from collections.abc import Sequence

from workers.errors import ConfigError
from workers.flags.flagset import FlagSet

# An option with its value, a switch with its --no- form, a short and a long name with {a,b} choices.
OPTION_LINE = re.compile(r"^ {1,8}(?=-)(?P<options>.*)$")
LONG_FLAG = re.compile(r"--[a-z0-9][a-z0-9.-]*")
CHOICES = re.compile(r"\{(?P<values>[^}]*)\}")
HELP_SECONDS = 300


def read_help(text: str, version: str, origin: str) -> FlagSet:
    """The flags of a help text as argparse prints it."""
    flags: set[str] = set()
    choices: dict[str, frozenset[str]] = {}
    for line in text.splitlines():
        found = OPTION_LINE.match(line)
        if found is None:
            continue
        options, _, _ = found["options"].partition("  ")
        names = LONG_FLAG.findall(CHOICES.sub("", options))
        flags |= set(names)
        values = CHOICES.search(options)
        if values and names:
            choices[names[0]] = frozenset(values["values"].split(","))
    switches = {name for name in flags if "--no-" + name.removeprefix("--") in flags}
    return FlagSet(version, origin, frozenset(flags), frozenset(switches), choices)


def ask_installed(command: Sequence[str]) -> FlagSet:
    """The flags of the vLLM that `command` starts (for instance `vllm serve`).

    Raises ConfigError if it cannot be run. Takes seconds: vLLM imports torch to print its help.
    """
    asked = [*command, "--help=all"]
    try:
        run = subprocess.run(asked, capture_output=True, text=True, timeout=HELP_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ConfigError(
            f"cannot run {' '.join(asked)}: {error}; install vLLM on this machine (its image has it), "
            "or name it with --program"
        ) from error
    known = read_help(run.stdout, "installed", " ".join(command))
    if run.returncode != 0 or not known.flags:
        raise ConfigError(f"{' '.join(asked)} failed ({run.returncode}): {run.stderr.strip()[-400:]}")
    return known
