"""The types that a JSON schema allows, and texts as values of them."""

from typing import Any

import pytest

from gateway.core.resume.argument_types import schema_types, typed


@pytest.mark.parametrize(
    ("schema", "types"),
    [
        (None, {"string"}),
        ({}, {"string"}),
        ({"type": "integer"}, {"integer"}),
        ({"type": ["integer", 3]}, {"integer"}),
        ({"enum": [None, True, 1, 1.5]}, {"null", "boolean", "integer", "number"}),
        ({"enum": ["a", [], {}]}, {"string", "array", "object"}),
        ({"type": "object", "oneOf": [{"type": "null"}, 3]}, {"object", "null", "string"}),
        ({"allOf": [{"anyOf": [{"type": "null"}]}]}, {"null"}),
        ({"type": 3, "enum": 3, "oneOf": 3}, {"string"}),
    ],
)
def test_types_of_a_schema(schema: object, types: set[str]) -> None:
    assert schema_types(schema) == types


@pytest.mark.parametrize(
    ("text", "types", "value"),
    [
        ("1", {"integer", "string"}, 1),
        ("1_000", {"integer"}, 1000),
        ("1.5", {"integer", "number"}, 1.5),
        ("1e3", {"number"}, 1000),
        ("1", {"boolean", "null"}, True),
        (" FALSE\n", {"boolean"}, False),
        ("Null", {"null", "string"}, None),
        ("none", {"null"}, "none"),
        ("[1]", {"object"}, [1]),
        ("3", {" VarChar"}, "3"),
        ("3", {"Uint32"}, 3),
        ("3", {"money"}, 3),
        ("9" * 5000, {"integer"}, "9" * 5000),
        ("nan", {"number"}, "nan"),
        ("[NaN]", {"array"}, "[NaN]"),
    ],
)
def test_the_first_type_that_a_text_can_be(text: str, types: set[str], value: Any) -> None:
    found = typed(text, types)
    assert (found, type(found)) == (value, type(value))
