"""What the gateway image is built with is said once for each place that people set it in."""

import re
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
ARGUMENTS = re.findall(r"(?m)^ARG (\w+)=", (ROOT / "docker" / "gateway.Dockerfile").read_text())


def test_compose_sets_every_build_argument_from_a_variable_of_its_name() -> None:
    services = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]
    wanted = {name: re.compile(rf"\$\{{{name}:?-.*\}}") for name in ARGUMENTS}
    assert set(ARGUMENTS) == {"PYTHON_IMAGE", "COMPILE", "EXTRAS"}
    for service in ("gateway", "gateway-2"):
        given = services[service]["build"]["args"]
        assert given.keys() == wanted.keys()
        assert all(wanted[name].fullmatch(given[name]) for name in wanted)
    assert re.findall(rf"(?m)^({'|'.join(ARGUMENTS)})=", (ROOT / ".env").read_text()) == [
        "COMPILE",
        "EXTRAS",
        "PYTHON_IMAGE",
    ]


def test_the_page_has_every_build_argument() -> None:
    page = (ROOT / "docs" / "install.md").read_text()
    assert set(re.findall(r"(?m)^\| `([A-Z_]+)` \|", page)) == set(ARGUMENTS)


def test_the_page_names_the_extras_of_users() -> None:
    """Those of contributors, and vLLM itself, are left out."""
    page = (ROOT / "docs" / "install.md").read_text().partition("## Extras")[2].partition("\n## ")[0]
    listed = re.search(
        r"\[project.optional-dependencies\]\n(.*?)\n\n", (ROOT / "pyproject.toml").read_text(), re.DOTALL
    )
    assert listed is not None
    extras = set(re.findall(r"(?m)^([a-z0-9-]+) = \[", listed[1]))
    assert set(re.findall(r"(?m)^\| `([a-z0-9-]+)` \|", page)) == extras - {"dev", "docs", "worker"}
