"""The smallest JSON value that a JSON schema allows."""

from typing import Any

_FORMATS = {
    "date": "2026-01-01",
    "date-time": "2026-01-01T00:00:00Z",
    "time": "00:00:00Z",
    "email": "a@example.com",
    "uri": "https://example.com",
    "uuid": "00000000-0000-0000-0000-000000000000",
}


def minimal_instance(schema: Any, root: Any = None, depth: int = 0) -> Any:
    """A minimal valid instance of `schema` (draft 2020-12 less patterns and conditionals).

    All listed properties are filled where they are required, and all of them where none is required, so that an
    answer is never an empty object by accident.
    """
    root = schema if root is None else root
    if not isinstance(schema, dict) or depth > 32:
        return None
    if "$ref" in schema:
        return minimal_instance(_resolve(str(schema["$ref"]), root), root, depth + 1)
    for key in ("const", "default"):
        if key in schema:
            return schema[key]
    if schema.get("enum"):
        return schema["enum"][0]
    for key in ("anyOf", "oneOf", "allOf"):
        if schema.get(key):
            parts = schema[key] if key == "allOf" else schema[key][:1]
            return minimal_instance(_merged(schema, key, parts, root), root, depth + 1)
    return _typed(schema, root, depth)


def _merged(schema: dict[str, Any], key: str, parts: list[Any], root: Any) -> dict[str, Any]:
    merged = {k: v for k, v in schema.items() if k != key}
    for part in parts:
        found = _resolve(str(part["$ref"]), root) if "$ref" in part else part
        properties = {**merged.get("properties", {}), **found.get("properties", {})}
        required = [*merged.get("required", []), *found.get("required", [])]
        merged = {**merged, **found}
        if properties:
            merged |= {"properties": properties, "required": required}
    return merged


def _resolve(ref: str, root: Any) -> Any:
    found = root
    for step in ref.removeprefix("#").strip("/").split("/"):
        found = found.get(step, {}) if isinstance(found, dict) else {}
    return found


def _typed(schema: dict[str, Any], root: Any, depth: int) -> Any:
    kind = schema.get("type", "object" if "properties" in schema else "string")
    match kind[0] if isinstance(kind, list) else kind:
        case "object":
            return _object(schema, root, depth)
        case "array":
            item = schema.get("items", {"type": "string"})
            return [minimal_instance(item, root, depth + 1)] * max(int(schema.get("minItems", 0)), 0)
        case "integer" | "number":
            return _number(schema)
        case "boolean":
            return False
        case "null":
            return None
        case _:
            return _string(schema)


def _object(schema: dict[str, Any], root: Any, depth: int) -> dict[str, Any]:
    properties = schema.get("properties") or {}
    names = schema.get("required") or list(properties)
    return {n: minimal_instance(properties.get(n, {"type": "string"}), root, depth + 1) for n in names}


def _number(schema: dict[str, Any]) -> float | int:
    low = schema.get("minimum")
    if low is None and "exclusiveMinimum" in schema:
        low = schema["exclusiveMinimum"] + 1
    if low is None:
        high = schema.get("maximum", schema.get("exclusiveMaximum", 2) - 1)
        low = min(1, high)
    step = schema.get("multipleOf")
    return int(-(-low // step) * step) if step else low


def _string(schema: dict[str, Any]) -> str:
    if schema.get("format") in _FORMATS:
        return _FORMATS[schema["format"]]
    least = max(int(schema.get("minLength", 1)), 1)
    return ("word" * (least // 4 + 1))[: max(least, min(4, int(schema.get("maxLength", 4))))]
