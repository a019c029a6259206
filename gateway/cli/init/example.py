"""The example file (fleetgate.example.yaml), which has every setting with its default and what it does: `fleetgate
init` takes its comments from there, and has no words of its own for a setting.
"""

import re
from pathlib import Path
from typing import NamedTuple

from gateway.config import tree

_TOP = re.compile(r"(?:# )?([a-z_]+):(?:\s|$)")


class ExampleSetting(NamedTuple):
    """A setting as the example shows it: its value, and the lines of its comment."""

    value: str
    comment: tuple[str, ...]


def example_text() -> str:
    """The whole file: from the package, or where it lies in a checkout."""
    installed = Path(tree.__file__).with_name("example.yaml")
    return (installed if installed.exists() else Path(tree.__file__).parents[2] / "fleetgate.example.yaml").read_text()


class Example:
    """The example by sections, those at the top of the file."""

    def __init__(self, text: str) -> None:
        self._about: dict[str, list[str]] = {}
        self._lines: dict[str, list[str]] = {}
        pending: list[str] = []
        section = ""
        for line in text.splitlines():
            found = _TOP.match(line)
            if found is not None and found[1] in tree.Config.model_fields:
                section = found[1]
                self._about.setdefault(section, pending)
                self._lines.setdefault(section, [])
                pending = []
            elif not line:
                section, pending = "", []
            if section:
                self._lines[section].append(line)
            else:
                pending = [*pending, line] if line else []

    def about(self, section: str) -> list[str]:
        """The comment above a section."""
        return self._about[section]

    def setting(self, section: str, name: str, last: bool = False) -> ExampleSetting:
        """A setting of a section: of those with a comment beside them the first, or the last. Raises KeyError."""
        bare = re.compile(rf"[# ]*(?:- )?{name}: *(?P<value>[^#]*?) *")
        explained = re.compile(rf"{bare.pattern}(?P<mark># )(?P<words>.*)")
        lines = self._lines[section]
        places = [(at, found) for at, line in enumerate(lines) if (found := explained.fullmatch(line))]
        for at, found in places[-1:] if last else places[:1]:
            comment = (found["words"], *self._continued(section, at + 1, found.start("mark")))
            return ExampleSetting(found["value"], comment)
        for found in filter(None, map(bare.fullmatch, reversed(lines))):
            return ExampleSetting(found["value"], ())
        raise KeyError(f"{section}: {name}")

    def _continued(self, section: str, start: int, column: int) -> list[str]:
        """The lines below that hold nothing but a comment in the same column."""
        words = []
        for line in self._lines[section][start:]:
            if line[column : column + 1] != "#" or line[:column].strip("# "):
                break
            words.append(line[column + 1 :].strip())
        return words
