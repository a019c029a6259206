"""docs/clients.md shows what was run: its lines stand in the scripts, its versions are the pinned ones."""

import ast
import json
import re
from pathlib import Path

import pytest

from gateway.cli.connect.clients import CLIENTS as CONNECTED
from tests.clients.agents.known import AGENTS
from tests.clients.agents.run import version_of
from tests.clients.run import CLIENTS

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "clients.md").read_text()
FOLDER = ROOT / "tests" / "clients"
SNIPPETS = re.findall(r"<!-- (\S+) -->\n```\w+\n(.*?)```", PAGE, re.DOTALL)


@pytest.mark.parametrize(("script", "snippet"), SNIPPETS, ids=[script for script, _ in SNIPPETS])
def test_the_lines_stand_in_the_script(script: str, snippet: str) -> None:
    """Imports by what they name; the rest paragraph by paragraph, in the same order, at any indentation."""
    text = (FOLDER / "scripts" / script).read_text()
    imports, *paragraphs = re.split(r"\n{2,}", snippet.strip())
    if script.endswith(".py"):
        assert _imported(imports) <= _imported(text)
    else:
        assert f"\n{imports}\n" in text
    at, flat = 0, _without_indentation(text)
    for paragraph in paragraphs:
        at = flat.find(f"\n{_without_indentation(paragraph)}\n", at)
        assert at >= 0, paragraph


def test_every_client_is_on_the_page() -> None:
    """With its lines, and with a row in the table."""
    shown = {Path(script).stem for script, _ in SNIPPETS}
    assert shown == {client.script for client in CLIENTS}
    for client in CLIENTS:
        assert f"| {client.name} " in PAGE


def test_the_versions_are_the_pinned_ones() -> None:
    """The table was made with what `make test-clients` installs."""
    pins = dict(re.findall(r"^([\w-]+)(?:\[\w+\])?==(\S+)$", _requirements(), re.MULTILINE))
    package = json.loads((FOLDER / "package.json").read_text())
    pins |= {f"{name} (npm)": pin for name, pin in package["dependencies"].items()}
    expected = {pin for name, pin in pins.items() if name not in ("mcp", "ai (npm)")}
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in PAGE.splitlines() if line.startswith("| ")]
    names = {client.name for client in CLIENTS}
    assert {row[1] for row in rows if row[0] in names} == expected


def test_every_agent_is_on_the_page() -> None:
    """With a row of the pinned version that names how it asks and where its thinking shows."""
    for agent in AGENTS:
        start = f"| {agent.name} | {version_of(agent)} | {agent.dialect} | yes | {agent.thinking} | yes |"
        assert start in PAGE, start


def test_every_client_that_is_set_up_is_on_the_page() -> None:
    for name in CONNECTED:
        assert f"| `{name}` | " in PAGE


def _imported(code: str) -> set[tuple[str, str]]:
    """Module and name of each import; the name is empty where the module is what is named."""
    found = set()
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.ImportFrom):
            found |= {(node.module or "", alias.name) for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {(alias.name, "") for alias in node.names}
    return found


def _requirements() -> str:
    files = sorted({*FOLDER.glob("requirements-*.txt")} - {FOLDER / "requirements-aider.txt"})
    return "\n".join(path.read_text() for path in files)


def _without_indentation(text: str) -> str:
    return "\n".join(line.strip() for line in text.splitlines())
