"""Settings merged into a configuration file of somebody else, without touching the rest of it.

An edit changes the text where the settings stand and nowhere else: comments, order and spelling stay. What it made is
read again and compared with what it should have become; where that differs, nothing is written (`CannotEdit`).
"""

import json
import tomllib
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import yaml

from gateway.cli.connect import json_text, toml_text, yaml_text
from gateway.cli.connect.trees import merge

Format = Literal["json", "yaml", "toml"]


class CannotEdit(Exception):
    """The file cannot be changed without risk for what is in it; says why."""


class _Kind(NamedTuple):
    read: Callable[[str], Any]
    edit: Callable[[str, Any], str]
    write: Callable[[Any], str]


def _as_yaml(settings: Any) -> str:
    return str(yaml.safe_dump(settings, sort_keys=False, allow_unicode=True, width=1000))


_KINDS: Mapping[Format, _Kind] = {
    "json": _Kind(json_text.read, json_text.edit, lambda settings: json.dumps(settings, indent=2) + "\n"),
    "yaml": _Kind(yaml.safe_load, yaml_text.edit, _as_yaml),
    "toml": _Kind(tomllib.loads, toml_text.edit, toml_text.write),
}


def read(text: str, form: Format) -> Any:
    """What a file holds; None where it is empty. Raises `CannotEdit` where it is not valid."""
    if not text.strip():
        return None
    try:
        return _KINDS[form].read(text)
    except (ValueError, yaml.YAMLError, RecursionError) as error:
        raise CannotEdit(f"it is not valid {form.upper()}: {' '.join(str(error).split())}") from None


def merged_text(text: str, settings: Any, form: Format) -> str:
    """The file's text with `settings` in it. Raises `CannotEdit`."""
    kind, before = _KINDS[form], read(text, form)
    if before is None:
        return text + kind.write(settings)
    if type(before) is not type(settings):
        raise CannotEdit("it has a form that is not edited here")
    wanted = merge(before, settings)
    if wanted == before:
        return text
    try:
        after = kind.edit(text, settings)
        made = kind.read(after)
    except (ValueError, LookupError, RecursionError, yaml.YAMLError) as error:
        raise CannotEdit(f"it has a form that is not edited here ({error})") from None
    if made != wanted:
        raise CannotEdit("it has a form that is not edited here")
    return after
