"""What developers install: each package once, and all that CONTRIBUTING.md runs."""

import re
import tomllib
from collections import Counter
from importlib.util import find_spec
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
GROUPS: dict[str, list[str]] = {"dependencies": PROJECT["dependencies"], **PROJECT["optional-dependencies"]}
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text()


@pytest.mark.parametrize("group", GROUPS)
def test_no_package_is_named_twice(group: str) -> None:
    """Of two ranges the wider one says nothing, and one of them is forgotten when the other is raised."""
    names = Counter(canonicalize_name(Requirement(each).name) for each in GROUPS[group])
    assert [name for name, times in names.items() if times > 1] == []


@pytest.mark.parametrize("module", sorted(set(re.findall(r"python -m ([\w.]+)", CONTRIBUTING))))
def test_what_contributing_runs_is_installed(module: str) -> None:
    assert find_spec(module) is not None


def test_what_builds_a_release_is_named() -> None:
    installed = {canonicalize_name(Requirement(each).name) for each in GROUPS["dev"]}
    assert re.findall(r"`\.venv/bin/python -m (\w+) build`", CONTRIBUTING) == ["hatchling"]
    assert "hatchling" in installed
