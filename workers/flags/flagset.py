"""The flags of one vLLM version, and what a profile's flags meet there."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, Literal

from workers.argv import Flag
from workers.errors import ConfigError

CURRENT_VERSION = "0.32.0"
"""The version of the default image, whose flags commands are checked against unless another is named."""

SPECULATION_METHOD = "--speculative-config.method"


@dataclass(frozen=True, slots=True)
class FlagSet:
    """The flags of one version. `switches` also exist as --no-<name>; `choices` where a value is one of a
    list.
    """

    version: str
    origin: str
    flags: frozenset[str]
    switches: frozenset[str]
    choices: Mapping[str, frozenset[str]]

    def knows(self, flag: str) -> bool:
        """Whether the version takes this flag, written out or as the negative of a switch."""
        positive = "--" + flag.removeprefix("--no-")
        return flag in self.flags or (flag.startswith("--no-") and positive in self.switches)

    def refuses(self, flag: str, value: str | None) -> bool:
        """Whether the version knows which values the flag takes, and this is none of them."""
        known = self.choices.get(flag)
        return known is not None and value is not None and value not in known

    def document(self) -> dict[str, Any]:
        """As plain data, sorted, to be recorded."""
        return {
            "version": self.version,
            "origin": self.origin,
            "flags": sorted(self.flags),
            "switches": sorted(self.switches),
            "choices": {flag: sorted(values) for flag, values in sorted(self.choices.items())},
        }


@dataclass(frozen=True, slots=True)
class Verdict:
    """What becomes of one flag: it is there, it is left out (and what that costs), or it cannot be used."""

    flag: Flag
    state: Literal["ok", "left out", "wrong"]
    told: str = ""


def check_flags(wanted: Iterable[Flag], known: FlagSet) -> list[Verdict]:
    """Hold each flag against a version. `left out` only where the flag names what happens without it."""
    return [_check(flag, known) for flag in wanted]


def usable(wanted: Iterable[Flag], known: FlagSet) -> list[Flag]:
    """The flags that this version takes. Raises ConfigError for one that it neither takes nor can do
    without.
    """
    verdicts = check_flags(wanted, known)
    wrong = [f"{v.flag.name}: {v.told}" for v in verdicts if v.state == "wrong"]
    if wrong:
        raise ConfigError(f"vLLM {known.version} cannot run this profile:\n  " + "\n  ".join(wrong))
    return [v.flag for v in verdicts if v.state == "ok"]


def load_recorded(version: str) -> FlagSet:
    """The recorded list of a version. Raises ConfigError with the recorded versions."""
    folder = files("workers.flags") / "recorded"
    source = folder / f"{version}.json"
    if not source.is_file():
        known = sorted(f.name.removesuffix(".json") for f in folder.iterdir() if f.name.endswith(".json"))
        raise ConfigError(f"no recorded flags for vLLM {version}; recorded: {', '.join(known)}")
    return from_document(json.loads(source.read_text()))


def from_document(document: Mapping[str, Any]) -> FlagSet:
    """The inverse of `FlagSet.document`."""
    return FlagSet(
        version=document["version"],
        origin=document["origin"],
        flags=frozenset(document["flags"]),
        switches=frozenset(document["switches"]),
        choices={flag: frozenset(values) for flag, values in document["choices"].items()},
    )


def _check(flag: Flag, known: FlagSet) -> Verdict:
    if not known.knows(flag.name):
        if flag.otherwise:
            return Verdict(flag, "left out", flag.otherwise)
        return Verdict(flag, "wrong", "this version does not have it")
    if known.refuses(flag.name, flag.value):
        return Verdict(flag, "wrong", f"{flag.value!r} is none of {', '.join(sorted(known.choices[flag.name]))}")
    method = _speculation_method(flag)
    if method is not None and known.refuses(SPECULATION_METHOD, method):
        return Verdict(flag, "wrong", f"this version does not know the method {method!r}")
    return Verdict(flag, "ok")


def _speculation_method(flag: Flag) -> str | None:
    if flag.name != "--speculative-config" or flag.value is None:
        return None
    return str(json.loads(flag.value)["method"])
