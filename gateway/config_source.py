"""Where the configuration comes from, and what is wrong with it, told for people.

Sources, later over earlier: the YAML file, `FLEETGATE_*` variables (`__` between levels, lists and objects as
JSON), the command line. All mistakes are found at once; each says where it is and what was expected there.
"""

import difflib
import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_settings import EnvSettingsSource, SettingsError

from gateway.config import Config

PREFIX = "FLEETGATE_"

_FOREIGN_VARIABLES = re.compile(
    r"FLEETGATE(_[A-Z0-9_]*)?_(SERVICE_HOST|SERVICE_PORT.*|PORT(_\d+_(TCP|UDP).*)?)|FLEETGATE_PORT|FLEETGATE_WORKER_.*"
)
"""Not ours to judge: what Kubernetes sets for a Service called fleetgate, and the workers' own settings."""

Path_ = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake: `where` it is (file and line, or a variable), the `path` in the tree, and what was `expected`."""

    where: str
    path: str
    expected: str

    def __str__(self) -> str:
        return ": ".join(part for part in (self.where, self.path, self.expected) if part)


class ConfigError(Exception):
    """The configuration cannot be used. `problems` holds everything that is wrong with it."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = problems


def load_config(path: Path | None, overrides: Mapping[str, Any] | None = None) -> Config:
    """The configuration of `path` (none: defaults), the environment and `overrides` (a nested mapping, command line).

    Raises `ConfigError` with every problem found.
    """
    document = _Document.read(path) if path is not None else _Document("the command line", {}, {})
    problems = list(document.problems) + _unknown_variables(os.environ)
    environment: dict[str, Any] = {}
    try:
        environment = EnvSettingsSource(Config)()
    except SettingsError as error:
        problems.append(_bad_variable(error))
    merged = _merge(_merge(document.data, environment), overrides or {})
    try:
        config = Config(**merged)
    except ValidationError as error:
        problems += [_explain(document, environment, dict(item)) for item in error.errors(include_url=False)]
        raise ConfigError(problems) from None
    if problems:
        raise ConfigError(problems)
    return config


@dataclass(frozen=True, slots=True)
class _Document:
    """A YAML file: its data, the line of every path in it, and what is wrong with it as YAML."""

    name: str
    data: dict[str, Any]
    lines: Mapping[Path_, int]
    problems: tuple[Problem, ...] = ()

    @classmethod
    def read(cls, path: Path) -> "_Document":
        name = str(path)
        try:
            text = path.read_text()
        except OSError as error:
            raise ConfigError([Problem(name, "", f"cannot be read: {error.strerror}")]) from None
        except UnicodeDecodeError:
            raise ConfigError([Problem(name, "", "is not UTF-8 text")]) from None
        try:
            root = yaml.compose(text, Loader=yaml.SafeLoader)
            data = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ConfigError([_not_yaml(name, error)]) from None
        if root is None or data is None:
            return cls(name, {}, {})
        if not isinstance(data, dict):
            raise ConfigError([Problem(name, "", "expected a mapping of settings at the top level")])
        lines: dict[Path_, int] = {}
        problems = tuple(_walk(name, root, (), lines))
        return cls(name, {str(key): value for key, value in data.items()}, lines, problems)

    def place(self, path: Path_) -> str:
        """File and line of `path`, or of the closest part of the tree around it."""
        for length in range(len(path), 0, -1):
            if path[:length] in self.lines:
                return f"{self.name}:{self.lines[path[:length]]}"
        return self.name


def _walk(name: str, node: yaml.Node, path: Path_, lines: dict[Path_, int]) -> Iterator[Problem]:
    """Note the line of every path; yield the keys that stand twice in one mapping (YAML readers keep the last)."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            child = (*path, str(key.value))
            line = key.start_mark.line + 1
            if child in lines:
                yield Problem(f"{name}:{line}", spell(child), f"is already set in line {lines[child]}")
            lines[child] = line
            yield from _walk(name, value, child, lines)
    elif isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            lines[(*path, index)] = item.start_mark.line + 1
            yield from _walk(name, item, (*path, index), lines)


def _not_yaml(name: str, error: yaml.YAMLError) -> Problem:
    mark = getattr(error, "problem_mark", None)
    where = name if mark is None else f"{name}:{mark.line + 1}"
    return Problem(where, "", f"is not YAML: {getattr(error, 'problem', None) or error}")


def _merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        under = merged.get(key)
        merged[key] = _merge(under, value) if isinstance(under, dict) and isinstance(value, Mapping) else value
    return merged


def spell(path: Path_) -> str:
    """`("nodes", 0, "url")` as `nodes[0].url`."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def _explain(document: _Document, environment: Mapping[str, Any], error: dict[str, Any]) -> Problem:
    path: Path_ = error["loc"]
    expected = _expected(path, error)
    if path and path[0] in environment and not (path in document.lines and len(path) == 1):
        variable = _variable(path)
        if variable is not None:
            return Problem(f"the variable {variable}", spell(path), expected)
    return Problem(document.place(path), spell(path), expected)


def _variable(path: Path_) -> str | None:
    """The environment variable that sets `path` or a part of the tree around it."""
    names = {name.upper(): name for name in os.environ}
    for length in range(len(path), 0, -1):
        spelled = PREFIX + "__".join(str(part) for part in path[:length]).upper()
        if spelled in names:
            return names[spelled]
    return None


def _expected(path: Path_, error: dict[str, Any]) -> str:
    context = error.get("ctx", {})
    match error["type"]:
        case "extra_forbidden":
            return "is not a setting" + _did_you_mean(str(path[-1]), _settings_at(path[:-1]))
        case "missing":
            return "is missing"
        case "value_error":
            return str(context.get("error", error["msg"]))
        case "string_pattern_mismatch":
            return f"must match {context.get('pattern')}"
        case "literal_error":
            return f"expected {context.get('expected')}"
        case _:
            return "expected: " + str(error["msg"]).removeprefix("Input should be ")


def _did_you_mean(word: str, known: list[str]) -> str:
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    if close:
        return f": did you mean {close[0]!r}?"
    return f"; known here: {', '.join(known)}" if known else ""


def _settings_at(path: Path_) -> list[str]:
    """The names of the settings at a place in the tree."""
    model: type[BaseModel] | None = Config
    for part in path:
        if isinstance(part, str) and model is not None:
            found = model.model_fields.get(part)
            model = _section(found.annotation) if found is not None else None
    return list(model.model_fields) if model is not None else []


def _section(annotation: Any) -> type[BaseModel] | None:
    """The section inside an annotation such as `Tls | None` or `tuple[NodeConfig, ...]`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for argument in get_args(annotation):
        found = _section(argument)
        if found is not None:
            return found
    return None


def _unknown_variables(environment: Mapping[str, str]) -> list[Problem]:
    """Variables that look like settings and are none: a typo in one would go unnoticed otherwise."""
    problems = []
    for variable in sorted(environment):
        if not variable.startswith(PREFIX) or _FOREIGN_VARIABLES.fullmatch(variable):
            continue
        setting = variable.removeprefix(PREFIX).lower().partition("__")[0]
        known = _settings_at(())
        if setting not in known:  # deeper levels are judged with the rest of the tree
            problems.append(Problem(f"the variable {variable}", "", "sets nothing" + _did_you_mean(setting, known)))
    return problems


def _bad_variable(error: SettingsError) -> Problem:
    cause = error.__cause__
    detail = f" ({cause.msg})" if isinstance(cause, json.JSONDecodeError) else ""
    found = re.search(r'field "(\w+)"', str(error))
    variable = f"the variable {PREFIX}{found.group(1).upper()}" if found else "a FLEETGATE_ variable"
    return Problem(variable, "", f"lists and objects are written as JSON{detail}")
