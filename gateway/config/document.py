"""A configuration file: its data, and the line of every setting, for messages about problems."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from gateway.core.setting_names import TreePath


@dataclass(frozen=True, slots=True)
class ConfigProblem:
    """One problem: `where` it is (file and line, or a variable), its `path` in the tree, and what was `expected`."""

    where: str
    path: str
    expected: str

    @property
    def line(self) -> int:
        """Its line in the file, 0 where unknown. Problems are sorted by it."""
        line = self.where.rpartition(":")[2]
        return int(line) if line.isdigit() else 0

    def __str__(self) -> str:
        line = ": ".join(part for part in (self.where, self.path, self.expected) if part)
        return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in line)


class ConfigError(Exception):
    """The configuration cannot be used, because of `problems`. `doubts`: what beside them is hardly meant."""

    def __init__(self, problems: list[ConfigProblem], doubts: Sequence[ConfigProblem] = ()) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = problems
        self.doubts = doubts


@dataclass(frozen=True, slots=True)
class Document:
    """A YAML file: its data, the line of every path in it, and its problems as YAML."""

    name: str
    data: dict[str, Any]
    lines: Mapping[TreePath, int]
    problems: tuple[ConfigProblem, ...] = ()

    @classmethod
    def read(cls, path: Path) -> "Document":
        name = str(path)
        try:
            text = path.read_text()
        except OSError as error:
            raise ConfigError([ConfigProblem(name, "", f"cannot be read: {error.strerror}")]) from None
        except UnicodeDecodeError:
            raise ConfigError([ConfigProblem(name, "", "is not UTF-8 text")]) from None
        lines: dict[TreePath, int] = {}
        problems: tuple[ConfigProblem, ...] = ()
        try:
            loader = yaml.SafeLoader(text)
            root = loader.get_single_node()
            problems = tuple(_walk(name, root, (), lines))
            data = None if root is None else loader.construct_document(root)
        except yaml.YAMLError as error:
            raise ConfigError([_not_yaml(name, error)]) from None
        except RecursionError:
            raise ConfigError(
                [ConfigProblem(name, "", "is not valid YAML: it nests or refers to itself endlessly")]
            ) from None
        except _UNREADABLE:
            raise ConfigError(list(problems) or [ConfigProblem(name, "", "is not valid YAML")]) from None
        if data is None:
            return cls(name, {}, {})
        if not isinstance(data, dict):
            raise ConfigError([ConfigProblem(name, "", "expected a mapping of settings at the top level")])
        return cls(name, _without_empty(data), lines, problems)

    def place(self, path: TreePath) -> str:
        """File and line of `path`, or of the closest part of the tree around it."""
        for length in range(len(path), 0, -1):
            if path[:length] in self.lines:
                return f"{self.name}:{self.lines[path[:length]]}"
        return self.name


def _walk(name: str, node: yaml.Node | None, path: TreePath, lines: dict[TreePath, int]) -> Iterator[ConfigProblem]:
    """Note the line of every path; yield keys that are twice in one mapping (YAML readers keep the last one), and
    scalars that are not what they look like. These are emptied, so that the rest can be read."""
    if isinstance(node, yaml.ScalarNode):
        expected = _unreadable(node)
        if expected is not None:
            yield ConfigProblem(f"{name}:{node.start_mark.line + 1}", spell(path), expected)
            node.tag, node.value = "tag:yaml.org,2002:null", ""
    elif isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            child = (*path, str(key.value))
            line = key.start_mark.line + 1
            if isinstance(key, yaml.ScalarNode) and _unreadable(key) is not None:
                yield ConfigProblem(f"{name}:{line}", spell(child), "is not a setting")
                key.tag = "tag:yaml.org,2002:str"
            if child in lines:
                yield ConfigProblem(f"{name}:{line}", spell(child), f"is already set in line {lines[child]}")
            lines[child] = line
            yield from _walk(name, value, child, lines)
    elif isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            lines[(*path, index)] = item.start_mark.line + 1
            yield from _walk(name, item, (*path, index), lines)


_UNREADABLE = (ValueError, ArithmeticError, LookupError, AttributeError, TypeError)
"""Errors of PyYAML for a value that does not fit its type. They have no line."""

_EXPECTED_OF = {
    "tag:yaml.org,2002:timestamp": "is not a time: expected 2027-01-31 or 2027-01-31T12:00:00Z",
    "tag:yaml.org,2002:int": "expected a whole number",
    "tag:yaml.org,2002:float": "expected a number",
    "tag:yaml.org,2002:bool": "expected true or false",
}


def _unreadable(node: yaml.ScalarNode) -> str | None:
    """What was expected in place of `node`; None where it can be read."""
    if any("\ud800" <= char <= "\udfff" for char in node.value):
        return "is not text: it has a lone surrogate"
    try:
        yaml.constructor.SafeConstructor().construct_object(node)
    except yaml.YAMLError:  # reported with its line by `safe_load`
        return None
    except _UNREADABLE:
        return _EXPECTED_OF.get(node.tag, f"is not a valid {node.tag.rpartition(':')[2]}")
    return None


_YAML_WORDS = {
    "found character '\\t'": "a tab; indent with spaces",
    "but found '<block mapping start>'": "this line is indented further than its neighbours",
    "but found '<block sequence start>'": "this list is indented further than its neighbours",
    "expected <block end>": "this line is indented otherwise than its neighbours, or lacks their dash",
    "mapping values are not allowed here": "a second colon; put quotes around the value, or indent as above",
    "could not find expected ':'": "a colon is missing behind the setting's name",
    "found undefined alias": "a value that begins with * refers to an anchor, which is not there; put it in quotes",
    "found duplicate anchor": "the same anchor (&) is there twice",
}
"""What PyYAML says, in words for people who do not know its grammar."""


def _not_yaml(name: str, error: yaml.YAMLError) -> ConfigProblem:
    mark = getattr(error, "problem_mark", None)
    where = name if mark is None else f"{name}:{mark.line + 1}"
    told = str(getattr(error, "problem", None) or error)
    words = next((words for part, words in _YAML_WORDS.items() if part in told), told)
    return ConfigProblem(where, "", f"is not valid YAML: {words}")


def _without_empty(data: Mapping[Any, Any]) -> dict[str, Any]:
    """`data` without settings that have no value: all their lines may be comments."""
    return {
        str(key): _without_empty(value) if isinstance(value, dict) else value
        for key, value in data.items()
        if value is not None
    }


def spell(path: TreePath) -> str:
    """`("nodes", 0, "url")` as `nodes[0].url`."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text
