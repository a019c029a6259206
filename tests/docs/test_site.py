"""The docs as a site: every page has a place, and reads as it does on a forge."""

import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import markdown
import pytest
import yaml
from markdown_it import MarkdownIt

from tests.docs.site_hooks import PAGES_BESIDE_DOCS, ROOT, on_page_markdown

DOCS = ROOT / "docs"
PAGES = sorted(DOCS.glob("*.md"))
BLOCKS = {"ul", "ol", "li", "table", "tr", "td", "th", "pre", "code", "h1", "h2", "h3", "h4", "p", "strong", "em", "a"}


class _SiteLoader(yaml.SafeLoader):
    """Reads mkdocs.yml, whatever tags it has."""


_SiteLoader.add_multi_constructor("!", lambda loader, suffix, node: None)
CONFIG: dict[str, Any] = yaml.load((ROOT / "mkdocs.yml").read_text(), _SiteLoader)


def in_nav(entry: object) -> Iterator[str]:
    """The files below an entry of `nav`."""
    if isinstance(entry, str):
        yield entry
    for each in entry if isinstance(entry, list) else entry.values() if isinstance(entry, dict) else ():
        yield from in_nav(each)


def test_every_page_has_one_place_in_the_nav() -> None:
    listed = Counter(in_nav(CONFIG["nav"]))
    missing = {page.name for page in PAGES} - listed.keys()
    assert not missing, f"add to `nav` in mkdocs.yml, under the need that leads to it: {sorted(missing)}"
    gone = listed.keys() - {page.name for page in PAGES} - set(PAGES_BESIDE_DOCS)
    assert not gone, f"take out of `nav` in mkdocs.yml: {sorted(gone)}"
    assert [page for page, times in listed.items() if times > 1] == []


def test_the_site_is_built_without_a_warning(tmp_path: Path) -> None:
    """Strictly: a link or an anchor that leads nowhere is a warning, and so a failure."""
    site = tmp_path / "site"
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(site)]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=200)
    assert built.returncode == 0, built.stderr
    for page in PAGES:
        assert (site / ("index.html" if page.stem == "README" else f"{page.stem}/index.html")).is_file()
    assert (site / "fleetgate.example.yaml").read_text() == (ROOT / "fleetgate.example.yaml").read_text()


def test_a_broken_anchor_fails_the_build(tmp_path: Path) -> None:
    """What the test above relies on: `validation` in mkdocs.yml has teeth."""
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "index.md").write_text("# A\n\n[b](#none)\n")
    (tmp_path / "mkdocs.yml").write_text(yaml.safe_dump({"site_name": "x", "validation": CONFIG["validation"]}))
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    built = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=200)
    assert built.returncode != 0
    assert "#none" in built.stderr


class _Tags(HTMLParser):
    def __init__(self, html: str) -> None:
        super().__init__()
        self.found = Counter[str]()
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag in BLOCKS:
            self.found[tag] += 1


FORGE = MarkdownIt("commonmark").enable("table")


def on_a_forge(text: str) -> Counter[str]:
    return _Tags(FORGE.render(text)).found


def on_the_site(text: str) -> Counter[str]:
    names = [each for each in CONFIG["markdown_extensions"] if isinstance(each, str)]
    return _Tags(markdown.markdown(text, extensions=["tables", "fenced_code", *names])).found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_has_the_same_blocks_on_a_forge_and_on_the_site(page: Path) -> None:
    """A list without a blank line before it, an indented fence or a `|` in a table's code are read differently."""
    text = page.read_text()
    assert on_the_site(text) == on_a_forge(text)
    assert "<p>|" not in FORGE.render(text), "rows behind a blank line are no table"


@pytest.mark.parametrize("text", ["a\n- b\n", "- a\n  ```sh\n  b\n  ```\n", "1. a\n   - b\n"])
def test_what_is_read_differently_is_found(text: str) -> None:
    assert on_the_site(text) != on_a_forge(text)


@pytest.mark.parametrize(
    ("page", "text", "rewritten"),
    [
        ("redis.md", "[a](../CHANGELOG.md#x)", "[a](CHANGELOG.md#x)"),
        ("redis.md", "[a](../fleetgate.example.yaml)", "[a](fleetgate.example.yaml)"),
        ("redis.md", "`[a](../CHANGELOG.md)`", "`[a](../CHANGELOG.md)`"),
        ("redis.md", "[a](https://x.example/) [b](limits.md#x) [c](#y)", None),
        ("SECURITY.md", "[a](docs/security.md#threats)", "[a](security.md#threats)"),
    ],
)
def test_links_out_of_docs_lead_to_the_site_s_copy(page: str, text: str, rewritten: str | None) -> None:
    class File:
        src_uri = page

    class Page:
        file = File

    assert on_page_markdown(text, page=Page) == (rewritten or text)  # type: ignore[arg-type]
