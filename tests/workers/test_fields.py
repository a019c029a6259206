"""No field that nothing reads: of profiles, catalogue, plans, launches, captures, records and the fake node's settings.

A field counts as read where an attribute of its name is, anywhere in the package. Fields of one name in two classes
are not told apart.
"""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

from workers.registration import json_schema

ROOT = Path(__file__).parents[2]
WORKERS = ROOT / "workers"

FOR_PEOPLE = {
    "Output.argv": "a contributed capture shows which command said what",
    "Output.stderr": "a contributed capture shows why a command failed",
}

FOR_GATEWAYS = {"registration.py"}
"""Its fields are read on the other side: see below."""


def fields_of(file: Path) -> Iterator[str]:
    """CLASS.FIELD of every annotated field."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ClassDef):
            for line in node.body:
                if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name):
                    yield f"{node.name}.{line.target.id}"


def sources() -> list[Path]:
    """What the fake node reads of requests is vLLM's, and some of it is only checked: its settings are ours."""
    fake = WORKERS / "fake"
    return [f for f in WORKERS.rglob("*.py") if fake not in f.parents or f.name == "settings.py"]


def read_attributes() -> set[str]:
    return {
        node.attr
        for file in WORKERS.rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load)
    }


def names_in(file: Path) -> set[str]:
    return {str(node.value) for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Constant)}


def test_every_field_of_a_registration_is_read_by_gateways() -> None:
    """By its name on the wire."""
    fleet = ROOT / "gateway" / "core" / "fleet"
    read = set().union(*(names_in(fleet / name) for name in ("registration.py", "launch_facts.py", "gpus.py")))
    schema = json_schema()
    parts: Any = [schema, *cast("dict[str, Any]", schema["$defs"]).values()]
    assert {name for part in parts for name in part["properties"]} - read == set()


def test_every_field_is_read() -> None:
    fields = {field for file in sources() if file.name not in FOR_GATEWAYS for field in fields_of(file)}
    assert len(fields) > 150
    read = read_attributes()
    assert {field for field in fields if field.split(".")[1] not in read} - FOR_PEOPLE.keys() == set()
    assert FOR_PEOPLE.keys() <= fields
