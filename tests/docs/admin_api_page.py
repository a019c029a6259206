"""docs/admin-api.md: every route of the admin listener, out of its OpenAPI."""

import textwrap
from collections.abc import Iterator
from typing import Any

from gateway.app import build_app
from gateway.config.tree import Config

HEAD = """# Admin API

Every route of the admin listener, made from its OpenAPI by `make references`. `/openapi.json` on the listener itself is
the same for programs, `/docs` a page to try them on ([access.md](access.md#the-admin-api)).

```sh
curl -H "Authorization: Bearer $FLEETGATE_ADMIN__TOKEN" http://127.0.0.1:9091/admin/nodes
```

The token is `admin.token`, or one of `admin.tokens` ([access.md](access.md#admin-tokens)); `/health` and `/ready` need
none. Every error is a [Problem](#problem). A request body is JSON; its settings are spelled as in the config file
([settings.md](settings.md)).
"""
ERRORS = {"default"}
"""What every route documents: an error."""


def page() -> str:
    """The whole page."""
    schema = build_app(Config()).admin.openapi()
    return "\n".join(_lines(schema))


def _lines(schema: dict[str, Any]) -> Iterator[str]:
    yield HEAD
    routes: dict[str, list[tuple[str, str, dict[str, Any]]]] = {}
    for path, methods in schema["paths"].items():
        for method, route in methods.items():
            routes.setdefault(next(iter(route.get("tags", ())), "health"), []).append((method.upper(), path, route))
    tags = {each["name"]: each.get("description", "") for each in schema.get("tags", ())}
    for tag, found in routes.items():
        yield f"## {tag}"
        yield ""
        if tags.get(tag):
            yield from _prose(tags[tag])
        for method, path, route in found:
            yield f"### {method} {path}"
            yield ""
            yield from _prose(route.get("description") or route["summary"])
            yield from _table(_inputs(route), ("parameter", "in", "value", "meaning"))
            yield from _answers(route)
    yield "## Records"
    yield ""
    for name, record in sorted(schema["components"]["schemas"].items()):
        if "properties" not in record or name in ("HTTPValidationError", "ValidationError"):
            continue
        yield f"### {name}"
        yield ""
        yield from _prose(record.get("description", ""))
        required = record.get("required", ())
        rows: list[tuple[str, ...]] = [
            (f"`{field}`", _type(each), "required" if field in required else "", _text(each))
            for field, each in record["properties"].items()
        ]
        yield from _table(rows, ("field", "value", "", "meaning"))


def _inputs(route: dict[str, Any]) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = [
        (f"`{each['name']}`", each["in"], _type(each["schema"]), _text(each) or _text(each["schema"]))
        for each in route.get("parameters", ())
    ]
    body = route.get("requestBody")
    if body is not None:
        given = body["content"]["application/json"]["schema"]
        rows.append(("body", "JSON" if body.get("required") else "JSON, optional", _type(given), _text(given)))
    return rows


def _answers(route: dict[str, Any]) -> Iterator[str]:
    for status, answer in route["responses"].items():
        if status in ERRORS:
            continue
        kind = _type(answer.get("content", {}).get("application/json", {}).get("schema", {}))
        yield f"Answer: {status}{f', {kind}' if kind else ''}."
        yield ""


def _table(rows: list[tuple[str, ...]], head: tuple[str, ...]) -> Iterator[str]:
    if rows:
        yield f"| {' | '.join(head)} |"
        yield "|" + "---|" * len(head)
        for row in rows:
            yield f"| {' | '.join(cell or '-' for cell in row)} |"
        yield ""


def _prose(text: str) -> Iterator[str]:
    for paragraph in filter(None, text.split("\n\n")):
        yield textwrap.fill(" ".join(paragraph.split()), 120, break_long_words=False, break_on_hyphens=False)
        yield ""


def _text(described: dict[str, Any]) -> str:
    return " ".join(described.get("description", "").split()).replace("|", "\\|")


def _type(schema: dict[str, Any]) -> str:
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(filter(None, map(_type, schema["anyOf"]))))
    if "enum" in schema or "const" in schema:
        return ", ".join(f"`{each}`" for each in schema.get("enum", [schema.get("const")]))
    match schema.get("type"):
        case "array":
            return f"list of {_type(schema.get('items', {})) or 'values'}"
        case "object":
            values = schema.get("additionalProperties")
            return f"object of {_type(values)}" if isinstance(values, dict) and _type(values) else "object"
        case None:
            return ""
        case kind:
            return {"string": "text", "integer": "whole number", "boolean": "true, false"}.get(kind, str(kind))
