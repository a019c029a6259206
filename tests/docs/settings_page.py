"""docs/settings.md: every setting of the gateway, out of the models that read the file."""

import ast
import inspect
import json
import re
import textwrap
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, get_args

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from gateway.config.tree import Config
from gateway.config.types import Secret
from gateway.wiring.read_at_start import READ_AT_START

UNITS = {
    "Seconds": "s",
    "Bytes": "bytes",
    "Tokens": "tokens",
    "Requests": "requests",
    "US dollars": "USD",
    "Hours": "h",
    "Days": "days",
    "Connections": "connections",
    "Keys": "keys",
    "Changes": "changes",
    "Values": "values",
    "Processes": "processes",
    "Probes": "probes",
    "Nodes": "nodes",
    "Times": "times",
    "Retries": "retries",
    "Resumes": "resumes",
    "Share": "share",
    "Factor": "factor",
    "Weight": "weight",
    "Number": "number",
    "The port": "port",
}
"""How the description of a number begins, and the unit that follows from it."""

PER = {
    "a second": "/s",
    "in a second": "/s",
    "a minute": "/min",
    "an hour": "/h",
    "a day": "/day",
    "a month": "/month",
    "per million tokens": "/1M tokens",
}

HEAD = """# Settings

Every setting of the gateway's file, made from the code by `make references`. [configuration.md](configuration.md) says
how the file is read, [`fleetgate.example.yaml`](../fleetgate.example.yaml) shows a whole one.

A setting's name here is its path in the file; `[]` stands for each entry of a list. Its anchor is that path:
`settings.md#listen.port`. A variable goes over the file. Settings of a list's entries have none: the list is given as
JSON, in the variable of the list. *(start)* marks what is read at start only; all else follows a reload.
"""


@dataclass(frozen=True)
class Setting:
    """One row."""

    path: str
    variable: str | None
    kind: str
    default: str
    unit: str
    meaning: str

    @property
    def anchor(self) -> str:
        return self.path.replace("[]", "")


@dataclass(frozen=True)
class Part:
    """A section of the file and the settings right in it."""

    path: str
    about: str
    settings: list[Setting]


def descriptions(model: type[BaseModel]) -> dict[str, str]:
    """The docstrings under the fields of `model`, inherited ones too. A docstring may stand for one field only."""
    found: dict[str, str] = {}
    for kind in reversed(model.__mro__):
        if not issubclass(kind, BaseModel) or kind is BaseModel or kind.__module__.startswith("pydantic"):
            continue
        body = ast.parse(textwrap.dedent(inspect.getsource(kind))).body[0]
        assert isinstance(body, ast.ClassDef)
        for field, after in zip(body.body, body.body[1:], strict=False):
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
                match after:
                    case ast.Expr(value=ast.Constant(value=str(text))):
                        found[field.target.id] = " ".join(text.split())
    return found


def parts() -> list[Part]:
    """All sections, each where it stands first; those at the top of the file before those below them."""
    schema = Config.model_json_schema()
    seen: dict[type[BaseModel], str] = {}
    waiting: deque[tuple[str, type[BaseModel]]] = deque([("", Config)])
    found: list[Part] = []
    while waiting:
        path, model = waiting.popleft()
        settings = []
        of_model = schema if model is Config else schema["$defs"][model.__name__]
        texts = descriptions(model)
        for name, field in model.model_fields.items():
            at = f"{path}.{name}" if path else name
            if name not in texts:
                raise LookupError(f"{model.__name__}.{name} ({at}) has no docstring that says what it means")
            below = section_of(field.annotation)
            described = of_model["properties"][name]
            if below is not None:
                inner = f"{at}[]" if described.get("type") == "array" else at
                if below not in seen:
                    seen[below] = inner
                    waiting.append((inner, below))
            first = None if below is None else seen[below]
            settings.append(_setting(at, described, texts[name], field, first))
        about = "" if model is Config else " ".join((model.__doc__ or "").split())
        found.append(Part(path, about, settings))
    return sorted(found, key=lambda part: _order([each.path for each in found], part.path))


def _order(paths: list[str], path: str) -> list[int]:
    """Behind the section that it lies in, and before what follows that one."""
    above = [path[:end] for end in (*(m.start() for m in re.finditer(r"[.\[]", path)), len(path))]
    names = [re.sub(r"\[\]", "", each) for each in paths]
    return [names.index(name) for name in dict.fromkeys(re.sub(r"\[\]", "", each) for each in above) if name in names]


def section_of(annotation: Any) -> type[BaseModel] | None:
    """The section inside an annotation; a secret is a value."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return None if annotation is Secret else annotation
    return next((found for each in get_args(annotation) if (found := section_of(each)) is not None), None)


def _setting(path: str, described: dict[str, Any], text: str, field: FieldInfo, first: str | None) -> Setting:
    kind = _kind(described)
    if first is not None:
        kind = (
            f"list of [`{first}`](#{_heading(first)})" if first.endswith("[]") else f"[`{first}`](#{_heading(first)})"
        )
    variable = None if "[]" in path else f"FLEETGATE_{path.upper().replace('.', '__')}"
    number = {"integer", "number"} & {each.get("type") for each in described.get("anyOf", [described])}
    unit = _unit(path, text) if number else "-"
    start = any(path == each or path.startswith(f"{each}.") for each in READ_AT_START) or path.endswith(
        (".tokenizer", ".routing_group")
    )
    default = "required" if field.is_required() else _default(field)
    return Setting(path, variable, kind, default, unit, f"{text} *(start)*" if start else text)


def _unit(path: str, text: str) -> str:
    for start, unit in UNITS.items():
        if re.match(rf"{start}\b", text):
            clause = re.split(r"[.;:,]", text)[0]
            return unit + next((PER[words] for words in PER if re.search(rf"\b{words}\b", clause)), "")
    raise LookupError(f"the docstring of {path} has to begin with its unit, one of: {', '.join(UNITS)}")


def _heading(path: str) -> str:
    return re.sub(r"[^\w\- ]", "", path.lower())


def _kind(described: dict[str, Any]) -> str:
    options = [each for each in described.get("anyOf", [described]) if each.get("type") != "null"]
    one = options[0]
    if "$ref" in one:
        return "secret"
    if "enum" in one or "const" in one:
        return ", ".join(f"`{each}`" for each in one.get("enum", [one.get("const")]))
    match one.get("type"):
        case "boolean":
            return "true, false"
        case "integer" | "number" as kind:
            return ("whole number" if kind == "integer" else "number") + _bounds(one)
        case "array":
            return f"list of {_kind(one['items'])}"
        case "object":
            values = one.get("additionalProperties") or next(iter(one["patternProperties"].values()))
            return f"names, each with {_kind(values)}"
        case _:
            return "path" if one.get("format") in ("path", "file-path") else "time" if "format" in one else "text"


def _bounds(one: dict[str, Any]) -> str:
    least, above, most = one.get("minimum"), one.get("exclusiveMinimum"), one.get("maximum")
    words = (
        f", at least {_number(least)}"
        if least is not None
        else f", above {_number(above)}"
        if above is not None
        else ""
    )
    if most is None or most >= 10**12:
        return words
    return (
        words.replace(", at least ", ", ") + f" to {_number(most)}"
        if least is not None
        else f"{words}, up to {_number(most)}"
    )


def _number(value: float) -> str:
    return f"{value:,.15g}" if value != 2**31 - 1 else "2,147,483,647"


def _default(field: FieldInfo) -> str:
    value = field.get_default(call_default_factory=True)
    if value is None:
        return "unset"
    if isinstance(value, BaseModel):
        return "-"
    if value == "":
        return "empty"
    if value in ((), {}):
        return "none"
    if isinstance(value, tuple) and isinstance(value[0], BaseModel):
        return "see [queue.md](queue.md)"
    return f"`{value if isinstance(value, str) else json.dumps(value)}`"


def page() -> str:
    """The whole page."""
    return "\n".join(_lines())


def _lines() -> Iterator[str]:
    yield HEAD
    found = parts()
    headed = {_heading(part.path) for part in found}  # these anchors are headings
    for part in found:
        yield f"## {part.path or 'Top level'}" if "." not in part.path else f"### {part.path}"
        yield ""
        if part.about:
            yield textwrap.fill(part.about, 120)
            yield ""
        yield "| setting | variable | value | default | unit | meaning |"
        yield "|---|---|---|---|---|---|"
        for each in part.settings:
            cells = [each.kind, each.default, each.unit, each.meaning]
            variable = f"`{each.variable}`" if each.variable else "-"
            named = f"`{each.path}`" if each.anchor in headed else f'<a id="{each.anchor}"></a>`{each.path}`'
            yield "| " + " | ".join([named, variable, *(cell.replace("|", "\\|") for cell in cells)]) + " |"
        yield ""
