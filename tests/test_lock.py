"""The lock files that the gateway image installs from fit pyproject.toml; `make lock` writes them."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parent.parent
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT = PYPROJECT["project"]
EXTRAS = PROJECT["optional-dependencies"]
BASE, EXTENDED, BUILD = "gateway.lock", "gateway-extras.lock", "build.lock"
NEEDED: dict[str, list[str]] = {
    BASE: PROJECT["dependencies"],
    EXTENDED: [*PROJECT["dependencies"], *EXTRAS["tokenizer"], *EXTRAS["worker-tools"], *EXTRAS["otel"]],
    BUILD: [
        *PROJECT["dependencies"],
        *PYPROJECT["build-system"]["requires"],
        *PYPROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["hooks"]["mypyc"]["dependencies"],
    ],
}
FILES = pytest.mark.parametrize("file", NEEDED)

_ENTRY = re.compile(
    r"^(?P<name>[a-z0-9-]+)==(?P<version>\S+)(?: ; [^\\]+)?(?P<hashes>(?: \\\n    --hash=sha256:[0-9a-f]{64})+)$"
)


def locked(file: str) -> dict[str, Version]:
    """Versions by name. Every line has to be understood: an entry with its hashes, or a comment."""
    text = re.sub(r"(?m)^ *#.*\n", "", (ROOT / "docker" / file).read_text())
    entries = re.split(r"\n(?! )", text.rstrip("\n"))
    found: dict[str, Version] = {}
    for entry in entries:
        match = _ENTRY.match(entry)
        assert match is not None, f"{file}: {entry[:80]!r} is no pinned requirement with hashes"
        assert match["name"] not in found
        found[match["name"]] = Version(match["version"])
    return found


@FILES
def test_a_lock_names_every_dependency_within_its_range(file: str) -> None:
    versions = locked(file)
    wrong = []
    for text in NEEDED[file]:
        requirement = Requirement(text)
        version = versions.get(canonicalize_name(requirement.name))
        if version is None or version not in requirement.specifier:
            wrong.append(f"{text}: {version}")
    assert not wrong, f"run `make lock`: {wrong}"


def test_the_lock_files_agree_where_they_name_the_same() -> None:
    """The image is compiled beside the versions that it runs with."""
    base = locked(BASE)
    for file in (EXTENDED, BUILD):
        versions = locked(file)
        assert {name: versions.get(name) for name in base} == base


@FILES
def test_a_lock_holds_no_address(file: str) -> None:
    """Whoever builds says where packages come from; the hashes say that they are the same."""
    assert re.findall(r"(?m)://|^-|^ *--(?!hash=)", (ROOT / "docker" / file).read_text()) == []


def test_the_image_installs_from_the_locks_and_from_nowhere_else() -> None:
    installs = re.findall(r"pip(?: --python \S+)? install[^&]+", (ROOT / "docker" / "gateway.Dockerfile").read_text())
    assert len(installs) == 3
    assert [line for line in installs if "--require-hashes" not in line and "--no-index" not in line] == []
