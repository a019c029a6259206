"""Reads the configuration from its sources, and explains its problems.

Sources, later over earlier: the YAML file, `FLEETGATE_*` variables (`__` between levels, lists and objects as JSON),
the command line. All problems are found at once; each says where it is and what was expected there.
"""

import json
import os
import re
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from operator import attrgetter
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import EnvSettingsSource, SettingsError

from gateway.config.cross_checks import cross_problems
from gateway.config.deprecated import RENAMED, Deprecation
from gateway.config.document import ConfigError, ConfigProblem, Document, spell
from gateway.config.doubts import Doubt, find_doubts
from gateway.config.expectations import expected_at, section_of
from gateway.config.options import option_of
from gateway.config.salvage import salvage
from gateway.config.tree import Config
from gateway.config.types import Secret
from gateway.config.unknown_names import PREFIX, unknown_settings, unknown_variables
from gateway.core.setting_names import Renaming, TreePath, use_new_names

_SECRET_SOURCES = {"env", "file", "value"}


class LoadedConfig(NamedTuple):
    """A configuration, and the settings in it that stand under deprecated names."""

    config: Config
    deprecated: list[Deprecation]


def load_config(path: Path | None, overrides: Mapping[str, Any] | None = None) -> Config:
    """The configuration of `path` (none: defaults), the environment and `overrides` (a nested mapping, command line).

    Raises `ConfigError` with every problem found.
    """
    return load_with_deprecations(path, overrides).config


def load_with_deprecations(path: Path | None, overrides: Mapping[str, Any] | None = None) -> LoadedConfig:
    """As `load_config`, and which of its settings stand under deprecated names."""
    document = _document(path)
    problems = list(document.problems) + unknown_settings(document) + unknown_variables(os.environ)
    environment: dict[str, Any] = {}
    try:
        environment = _Environment(Config)()
    except SettingsError as error:
        problems.append(_bad_variable(error))
    sources = _Sources(document, environment, overrides or {})
    problems += sources.set_twice()
    merged = _merge(_merge(sources.document.data, sources.environment), overrides or {})
    known = {name: value for name, value in merged.items() if name in Config.model_fields}
    try:
        config = Config(**known)
    except ValidationError as error:
        problems += [_explain(sources, dict(item)) for item in error.errors(include_url=False)]
        problems += [_problem(sources, path, expected) for path, expected in cross_problems(known)]
        readable = salvage(known)
        doubts = [] if readable is None else _placed(sources, find_doubts(readable, time.time()))
        raise ConfigError(sorted(dict.fromkeys(problems), key=attrgetter("line")), doubts) from None
    if problems:
        doubts = _placed(sources, find_doubts(config, time.time()))
        raise ConfigError(sorted(problems, key=attrgetter("line")), doubts)
    return LoadedConfig(config, list(sources.deprecated()))


class _Environment(EnvSettingsSource):
    """`FLEETGATE_*` variables. Sections and lists are JSON; a secret is taken as it is, unless it is a JSON object."""

    def decode_complex_value(self, field_name: str, field: FieldInfo, value: Any) -> Any:
        if section_of(field.annotation) is Secret and not str(value).lstrip().startswith("{"):
            return value
        return super().decode_complex_value(field_name, field, value)


def _merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        under = merged.get(key)
        if isinstance(under, dict) and isinstance(value, Mapping) and not _is_secret_source(value):
            merged[key] = _merge(under, value)
        else:  # also a secret, which has one source
            merged[key] = value
    return merged


def _is_secret_source(value: Mapping[str, Any]) -> bool:
    """Whether `value` is where a secret comes from, such as `{env: NAME}`. An empty mapping sets nothing."""
    return bool(value) and value.keys() <= _SECRET_SOURCES


class _Sources:
    """File and environment under the settings' new names, and how each of them spells a setting. `overrides` are those
    of the command line."""

    def __init__(self, document: Document, environment: dict[str, Any], overrides: Mapping[str, Any]) -> None:
        self._overrides = overrides
        self._in_file = use_new_names(document.data, RENAMED)
        self._in_variables = use_new_names(environment, RENAMED)
        lines = {
            new: document.lines[old]
            for new, old in self._in_file.written.items()
            if old in document.lines and new not in document.lines
        }
        self.document = replace(document, data=self._in_file.data, lines={**document.lines, **lines})
        self.environment = self._in_variables.data

    def locate(self, path: TreePath) -> tuple[str, TreePath]:
        """Where the setting at `path` stands, and its path as it is spelled there.

        An option goes over all else. A variable that sets `path` goes over the file; one that sets something beside it
        does not.
        """
        option = option_of(self._overrides, path)
        if option is not None:
            return f"the option {option}", path
        lines, depth = self.document.lines, _depth(self.environment, path)
        in_document = max((length for length in range(len(path) + 1) if path[:length] in lines), default=0)
        if depth > 0 and (depth == len(path) > 1 or depth > in_document):
            spelled = self._in_variables.spelled(path)
            variable = _variable(spelled)
            if variable is not None:
                return f"the variable {variable}", spelled
        return self.document.place(path), self._in_file.spelled(path)

    def deprecated(self) -> Iterator[Deprecation]:
        """Every setting under an old name. A variable that sets it alone has a new name, too."""
        for new, old in self._in_file.written.items():
            yield Deprecation(self.document.place(old), spell(old), spell(new))
        for new, old in self._in_variables.written.items():
            alone = (_variable(old) or "").upper() == _variable_name(old)
            yield Deprecation(_variable_place(old), spell(old), _variable_name(new) if alone else spell(new))

    def set_twice(self) -> Iterator[ConfigProblem]:
        """Settings under both names: in one source, or in both. What is below a list of the file goes whole where a
        variable sets that list."""
        file, variables = self._in_file, self._in_variables
        for new in file.twice:
            yield _set_twice(self.document.place(file.written[new]), self.document.place(new), file.written[new], new)
        for new in variables.twice:
            yield _set_twice(_variable_place(variables.written[new]), _variable_place(new), variables.written[new], new)
        for new in file.written.keys() ^ variables.written.keys():
            if not any(isinstance(part, int) for part in new) and _is_set(file, new) and _is_set(variables, new):
                in_file = (self.document.place(file.spelled(new)), file.spelled(new))
                in_variable = (_variable_place(variables.spelled(new)), variables.spelled(new))
                (old_place, old), (new_place, _) = (
                    (in_file, in_variable) if new in file.written else (in_variable, in_file)
                )
                yield _set_twice(old_place, new_place, old, new)


def _is_set(source: Renaming, path: TreePath) -> bool:
    tree: Any = source.data
    for part in path:
        if not isinstance(tree, dict) or part not in tree:
            return False
        tree = tree[part]
    return True


def _set_twice(place: str, other: str, old: TreePath, new: TreePath) -> ConfigProblem:
    expected = f"is the deprecated name of {spell(new)}, which is set as well ({other}): keep {spell(new)} only"
    return ConfigProblem(place, spell(old), expected)


def _explain(sources: _Sources, error: dict[str, Any]) -> ConfigProblem:
    path: TreePath = (*error["loc"], *error.get("ctx", {}).get("at", ()))
    return _problem(sources, path, expected_at(path, error))


def _problem(sources: _Sources, path: TreePath, expected: str) -> ConfigProblem:
    place, spelled = sources.locate(path)
    return ConfigProblem(place, spell(spelled), expected)


def doubts_about(
    config: Config, file: Path | None, now: float, overrides: Mapping[str, Any] | None = None
) -> list[ConfigProblem]:
    """What is valid in `config`, which was read from `file` and `overrides`, and hardly meant; `now` in seconds since
    1970."""
    doubts = find_doubts(config, now)
    if not doubts:
        return []
    return _placed(_Sources(_document(file), _Environment(Config)(), overrides or {}), doubts)


def _placed(sources: _Sources, doubts: Iterable[Doubt]) -> list[ConfigProblem]:
    return sorted((_problem(sources, path, words) for path, words in doubts), key=attrgetter("line"))


def place_of(file: Path | None, path: TreePath, overrides: Mapping[str, Any] | None = None) -> str:
    """Where the setting at `path` of a good configuration stands: an option, a variable, or the file and its line."""
    return _Sources(_document(file), _Environment(Config)(), overrides or {}).locate(path)[0]


def _document(file: Path | None) -> Document:
    return Document.read(file) if file is not None else Document("the command line", {}, {})


def _depth(tree: Any, path: TreePath) -> int:
    """How many parts of `path` are in `tree`. A value that is no mapping stands for all that is below it."""
    for length, part in enumerate(path):
        if not isinstance(tree, Mapping):
            return len(path)
        if part not in tree:
            return length
        tree = tree[part]
    return len(path)


def _variable(path: TreePath) -> str | None:
    """The environment variable that sets `path`, or something below it; else one that sets what is around it whole,
    else one that sets something beside it."""
    names = {name.upper(): name for name in os.environ}
    around = [_variable_name(path[:length]) for length in range(len(path), 0, -1)]
    below = [[name for name in sorted(names) if name.startswith(f"{spelled}__")] for spelled in around]
    for name in (around[0], *below[0], *around[1:], *(name for beside in below[1:] for name in beside)):
        if name in names:
            return names[name]
    return None


def _variable_name(path: TreePath) -> str:
    return PREFIX + "__".join(map(str, path)).upper()


def _variable_place(path: TreePath) -> str:
    return f"the variable {_variable(path)}"


def _bad_variable(error: SettingsError) -> ConfigProblem:
    cause = error.__cause__
    detail = f" ({cause.msg})" if isinstance(cause, json.JSONDecodeError) else ""
    found = re.search(r'field "(\w+)"', str(error))
    variable = f"the variable {PREFIX}{found.group(1).upper()}" if found else "a FLEETGATE_ variable"
    return ConfigProblem(variable, "", f"lists and objects are written as JSON{detail}")
