"""What is expected of a setting: of its value, by pydantic's errors, and of its name, by the tree."""

import difflib
import re
from collections.abc import Mapping
from typing import Any, get_args

from pydantic import BaseModel

from gateway.config.tree import Config
from gateway.config.types import PATTERN_WORDS
from gateway.core.setting_names import TreePath

_MADE_BY = "`printf %s KEY | sha256sum` makes it of a key, `fleetgate keys new` makes both"
_CLEAR_KEY = f"is a clear key, and a file has none: `sha256:` with its SHA-256 belongs here; {_MADE_BY}"
_KEY_NAMES = frozenset(("key", "api_key", "token", "secret", "value", "plain"))


def _is_key(path: TreePath) -> bool:
    """Whether a key itself seems to be given, where its hash belongs."""
    return path[:1] == ("tenants",) and path[-3:-2] == ("keys",) and path[-1] in _KEY_NAMES


def expected_at(path: TreePath, error: dict[str, Any]) -> str:
    """What pydantic's `error` expected of the setting at `path`, in one clause."""
    context = error.get("ctx", {})
    match error["type"]:
        case "extra_forbidden" if _is_key(path):
            return _CLEAR_KEY
        case "extra_forbidden":
            return "is not a setting" + did_you_mean(str(path[-1]), settings_at(path[:-1]))
        case "missing":
            return "is missing"
        case "value_error":
            return str(context.get("error", error["msg"])) + _variable(error.get("input"))
        case "given_twice" | "no_keys" | "not_there":
            return str(error["msg"])
        case "model_type" | "model_attributes_type" if path[:1] == ("tenants",) and path[-2:-1] == ("keys",):
            return "expected a mapping with the key's SHA-256, as `- sha256: ...`: " + _MADE_BY
        case "model_type" | "model_attributes_type" | "dict_type":
            return "expected a mapping of settings" + (_lost_blank(path, error.get("input")) or _entry(path))
        case "string_type":
            return "expected text; put quotes around it"
        case "tuple_type":
            return "expected a list"
        case "too_short":
            return "needs at least one entry"
        case "string_pattern_mismatch":
            return pattern_words(error)
        case "literal_error":
            return f"expected {context.get('expected')}"
        case "int_parsing" | "int_type" | "int_from_float":
            return "expected a whole number"
        case "float_parsing" | "float_type":
            return "expected a number" + _unit(error.get("input"))
        case "bool_parsing" | "bool_type":
            return "expected true or false"
        case _:
            return "expected: " + str(error["msg"]).removeprefix("Input should be ")


def pattern_words(error: Mapping[str, Any]) -> str:
    """The rule that a text breaks, by pydantic's `error` of the type `string_pattern_mismatch`."""
    pattern = str(error.get("ctx", {}).get("pattern"))
    return PATTERN_WORDS.get(pattern, f"must match {pattern}")


def _lost_blank(path: TreePath, given: Any) -> str:
    """A hint where a setting's name and its value were written without a blank between them, which YAML takes for text.
    The value is not repeated: it may be a secret."""
    name, colon, _ = given.partition(":") if isinstance(given, str) else ("", "", "")
    return f": put a blank behind {name + ':'!r}" if colon and name in settings_at(path) else ""


def _entry(path: TreePath) -> str:
    """A hint where an entry of a list is a value alone: the one setting that each entry needs."""
    model = model_at(path) if path and isinstance(path[-1], int) else None
    needed = [] if model is None else [name for name, field in model.model_fields.items() if field.is_required()]
    return f", as `- {needed[0]}: ...`" if needed else ""


_DURATION = re.compile(r"\s*[0-9.]+\s*(s|m|h|d|ms|sec|secs|min|mins|(second|minute|hour|day)s?)\s*", re.IGNORECASE)


def _unit(given: Any) -> str:
    """A hint where a time has a unit."""
    return " of seconds, without a unit" if isinstance(given, str) and _DURATION.fullmatch(given) else ""


def _variable(given: Any) -> str:
    """A hint where a shell's variable was written."""
    return ": ${...} is not replaced by a variable" if isinstance(given, str) and "${" in given else ""


def did_you_mean(word: str, known: list[str]) -> str:
    """The known name that `word` is closest to, else all known names."""
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    if close:
        return f": did you mean {close[0]!r}?"
    return f"; known here: {', '.join(known)}" if known else ""


def settings_at(path: TreePath) -> list[str]:
    """The names of the settings at a place in the tree."""
    model = model_at(path)
    return list(model.model_fields) if model is not None else []


def model_at(path: TreePath) -> type[BaseModel] | None:
    """The section at a place in the tree."""
    model: type[BaseModel] | None = Config
    for part in path:
        if isinstance(part, str) and model is not None:
            found = model.model_fields.get(part)
            model = section_of(found.annotation) if found is not None else None
    return model


def section_of(annotation: Any) -> type[BaseModel] | None:
    """The section inside an annotation such as `Tls | None` or `tuple[NodeConfig, ...]`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for argument in get_args(annotation):
        found = section_of(argument)
        if found is not None:
            return found
    return None
