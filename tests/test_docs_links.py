"""Every relative link of a page leads to a file, its anchor to a heading; lines of prose are at most 120 long."""

import re
from pathlib import Path
from urllib.parse import unquote

import pytest

from tests.docs import site_hooks

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = sorted([*DOCS.glob("*.md"), *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md"))])
LINK = re.compile(r"(?<!\\)\]\(([^()\s]+)\)|<(?:img|source)\b[^>]*?\b(?:src|srcset)=\"([^\"]+)\"")
MAX_LINE = 120


def prose(page: Path) -> list[tuple[int, str]]:
    """The lines outside of fenced code, each with its number."""
    lines, is_code = [], False
    for number, line in enumerate(page.read_text().splitlines(), 1):
        if line.lstrip().startswith("```"):
            is_code = not is_code
        elif not is_code:
            lines.append((number, line))
    return lines


def anchors(page: Path) -> set[str]:
    """What GitHub calls the headings of `page`, and what it names itself."""
    found: dict[str, int] = {}
    slugs = set()
    for _, line in prose(page):
        slugs |= set(re.findall(r'<a id="([^"]+)">', line))
        if heading := re.match(r"#{1,6} +(.*?) *#*$", line):
            text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading[1])
            slug = site_hooks.slug(text)
            times = found.get(slug, 0)
            found[slug] = times + 1
            slugs.add(f"{slug}-{times}" if times else slug)
    return slugs


def broken(page: Path) -> list[str]:
    """The links of `page` that lead nowhere."""
    wrong = []
    for number, line in prose(page):
        for match in LINK.finditer(re.sub(r"`[^`]*`", "", line)):
            target = match[1] or match[2]
            if re.match(r"[a-z]+:", target):
                continue
            path, _, anchor = target.partition("#")
            file = (page.parent / unquote(path)).resolve() if path else page
            if not file.exists() or (anchor and anchor not in anchors(file)):
                wrong.append(f"{page.name}:{number}: {target}")
    return wrong


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_resolve(page: Path) -> None:
    assert broken(page) == []


@pytest.mark.parametrize("page", PAGES, ids=lambda each: each.name)
def test_lines_are_short(page: Path) -> None:
    """Tables and fenced code may be wider; of a link only its text counts."""
    shown = [(number, re.sub(r"\]\([^)]*\)", "]", line)) for number, line in prose(page)]
    assert [number for number, line in shown if len(line) > MAX_LINE and not line.startswith("|")] == []


def test_the_readme_is_read_in_one_go() -> None:
    lines = (ROOT / "README.md").read_text().splitlines()
    assert len(lines) < 100
    assert sum(line.startswith("![") for line in lines) == 1


def test_the_index_lists_every_page() -> None:
    index = (DOCS / "README.md").read_text()
    assert {page.name for page in DOCS.glob("*.md")} - {"README.md"} == set(re.findall(r"\]\((\w[\w-]*\.md)\)", index))


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("# A page: of two\n[a](#a-page-of-two) [b](other.md#it) [c](https://x.example/#y)\n", []),
        ("# A\n[a](#b)\n", ["page.md:2: #b"]),
        ("[a](none.md)\n", ["page.md:1: none.md"]),
        ("[a](other.md#none)\n", ["page.md:1: other.md#none"]),
        ('<img alt="x" src="none.svg">\n', ["page.md:1: none.svg"]),
        ("```\n[a](none.md)\n```\n`[b](none.md)`\n", []),
    ],
)
def test_a_broken_link_is_found(tmp_path: Path, text: str, wrong: list[str]) -> None:
    (tmp_path / "other.md").write_text("## It\n")
    page = tmp_path / "page.md"
    page.write_text(text)
    assert broken(page) == wrong
