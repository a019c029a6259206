"""Has mkdocs read the pages as a forge does: GitHub's anchors, and links that lead out of docs/.

mkdocs loads this file by its path (`hooks` in mkdocs.yml).
"""

import re
from pathlib import Path
from posixpath import normpath, relpath
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

ROOT = Path(__file__).parent.parent.parent
PAGES_BESIDE_DOCS = ("CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")
"""Pages of the repository's root that are pages of the site too."""

LINK = re.compile(r"(?<!\\)(?P<before>\]\()(?P<target>[^()\s#]+)(?P<anchor>#[^()\s]*)?\)")
_CODE = re.compile(r"(^ *```.*?^ *```|`[^`\n]*`)", re.DOTALL | re.MULTILINE)


def slug(heading: str, separator: str = "-") -> str:
    """The anchor that GitHub gives a heading's text."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", separator)


def on_config(config: "MkDocsConfig") -> None:
    config.mdx_configs["toc"]["slugify"] = slug


def on_files(files: "Files", *, config: "MkDocsConfig") -> None:
    """Adds the root's pages, and the files elsewhere to which a page has a link."""
    from mkdocs.structure.files import File

    for name in PAGES_BESIDE_DOCS:
        files.append(File.generated(config, name, content=(ROOT / name).read_text()))
    for page in list(files.documentation_pages()):
        for target in _LeavingDocs(page.src_uri).targets(page.content_string):
            if files.get_file_from_path(target) is None:
                files.append(File.generated(config, target, abs_src_path=str(ROOT / target)))


def on_page_markdown(markdown: str, *, page: "Page", **_: Any) -> str:
    return _LeavingDocs(page.file.src_uri).rewritten(markdown)


class _LeavingDocs:
    """The links of one page, as they stand in the repository and as they stand in the site.

    In the site the content of docs/ and the root's pages lie in one folder; any other file keeps its path in the
    repository.
    """

    def __init__(self, src_uri: str) -> None:
        self._in_repository = src_uri if src_uri in PAGES_BESIDE_DOCS else f"docs/{src_uri}"
        self._in_site = src_uri

    def targets(self, markdown: str) -> set[str]:
        """The files outside of docs/ that the page links, by their path in the repository."""
        found = set()
        for piece in _CODE.split(markdown)[::2]:
            found |= {self._path(match["target"]) for match in LINK.finditer(piece)}
        return {path for path in found if not path.startswith(("docs/", "../")) and (ROOT / path).is_file()}

    def rewritten(self, markdown: str) -> str:
        pieces = _CODE.split(markdown)
        pieces[::2] = [LINK.sub(self._rewrite, piece) for piece in pieces[::2]]
        return "".join(pieces)

    def _path(self, target: str) -> str:
        if re.match(r"[a-z]+:", target):
            return "../"
        return normpath(f"{Path(self._in_repository).parent.as_posix()}/{unquote(target)}")

    def _rewrite(self, match: "re.Match[str]") -> str:
        path = self._path(match["target"])
        if path.startswith("../") or not (ROOT / path).is_file():
            return match[0]
        place = path.removeprefix("docs/")
        return f"]({relpath(place, Path(self._in_site).parent.as_posix())}{match['anchor'] or ''})"
