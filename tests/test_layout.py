"""One law of rooms, one word a thing.

`core/AREA` holds an area's rules, `gateway/AREA` its I/O, `tests/AREA` its tests.
"""

import ast
import re
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).parent.parent
GATEWAY = ROOT / "gateway"
PAGE = (ROOT / "docs" / "architecture.md").read_text()

RULES_ONLY = {"budgets", "dialects", "http", "thinking"}
"""Areas of `core` that need no I/O of their own."""

MOST_LOOSE = 6
"""Modules directly in gateway/: the composition root and the way of a request."""

FOREIGN = {"Any", "TypeError", "Upgrade"}
"""Capitalised names on the page that are no classes of the gateway."""


def packages(folder: Path) -> set[str]:
    return {path.parent.name for path in folder.glob("*/__init__.py")}


def class_names() -> dict[str, list[str]]:
    """Where each class of the gateway is defined, by its name without underscores."""
    found = defaultdict(list)
    for file in sorted(GATEWAY.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ClassDef):
                found[node.name.lstrip("_")].append(f"{file.relative_to(ROOT)}:{node.lineno}")
    return found


def test_no_class_name_stands_for_two_things() -> None:
    assert {name: places for name, places in class_names().items() if len(places) > 1} == {}


def test_classes_named_by_the_architecture_page_exist() -> None:
    named = set(re.findall(r"`([A-Z][a-z]\w+)(?:\.\w+)*`", PAGE)) - FOREIGN
    assert named - class_names().keys() == set()


def test_paths_named_by_the_architecture_page_exist() -> None:
    named = set(re.findall(r"`((?:[a-z_]+/)+(?:\w+\.(?:py|md|lua))?)`", PAGE))
    places = [ROOT, GATEWAY, ROOT / "docs"]
    named = {path for path in named if "AREA" not in path}
    assert {path for path in named if not any((place / path).exists() for place in places)} == set()


def test_few_modules_are_loose() -> None:
    loose = {path.name for path in GATEWAY.glob("*.py")} - {"__init__.py"}
    assert len(loose) <= MOST_LOOSE, sorted(loose)


def test_rules_and_io_of_an_area_bear_one_word() -> None:
    assert packages(GATEWAY / "core") - packages(GATEWAY) == RULES_ONLY


def test_every_area_has_its_tests() -> None:
    areas = packages(GATEWAY) | packages(GATEWAY / "core")
    assert areas - packages(ROOT / "tests") == set()


def test_every_package_stands_on_the_architecture_page() -> None:
    layout = PAGE.split("## Layout")[1].split("\n## ")[0]
    named = set(re.findall(r"^ +(\w+)/", layout, re.MULTILINE))
    assert (packages(GATEWAY) | packages(GATEWAY / "core")) - named == set()
