"""Keys set in a text of TOML: bare keys at its top, and tables with a header of their own."""

import contextlib
import json
import re
import tomllib
from typing import Any

_HEADER = re.compile(r"^\s*\[")
_BARE = re.compile(r"[A-Za-z0-9_-]+")


def write(settings: dict[str, Any]) -> str:
    """Settings as a text."""
    return edit("", settings)


def edit(text: str, settings: dict[str, Any]) -> str:
    """`text` with `settings` in it: tables are found by their headers, keys by the lines that begin with them."""
    for name, value in settings.items():
        if not isinstance(value, dict):
            text = _set(text, "", name, value)
    for header, table in _tables(settings, ()):
        if not re.search(rf"^\s*\[\s*{re.escape(header)}\s*\]", text, re.MULTILINE):
            text = f"{text}{'' if text.endswith(chr(10)) or not text else chr(10)}{chr(10) if text else ''}[{header}]\n"
        for name, value in table.items():
            text = _set(text, header, name, value)
    return text


def _tables(tree: dict[str, Any], path: tuple[str, ...]) -> list[tuple[str, dict[str, Any]]]:
    """Header and own keys of each table below the top that has any."""
    found = []
    for name, value in tree.items():
        if isinstance(value, dict):
            here = (*path, name)
            own = {key: inner for key, inner in value.items() if not isinstance(inner, dict)}
            found += [(".".join(map(_key, here)), own)] if own else []
            found += _tables(value, here)
    return found


def _set(text: str, header: str, name: str, value: Any) -> str:
    """One key in the table of that header ("": the top of the file): where it stands, or behind the last line."""
    lines = text.splitlines(keepends=True)
    start = 0
    if header:
        pattern = re.compile(rf"^\s*\[\s*{re.escape(header)}\s*\]")
        start = next(number for number, line in enumerate(lines) if pattern.match(line)) + 1
    end = next((number for number in range(start, len(lines)) if _HEADER.match(lines[number])), len(lines))
    line = f"{_key(name)} = {json.dumps(value, ensure_ascii=False)}"
    for number in range(start, end):
        if re.match(rf"\s*{re.escape(_key(name))}\s*=", lines[number]):
            lines[number] = line + _comment(lines[number]) + ("\r\n" if lines[number].endswith("\r\n") else "\n")
            return "".join(lines)
    while end > start and not lines[end - 1].strip():
        end -= 1
    if end and not lines[end - 1].endswith("\n"):
        lines[end - 1] += "\n"
    gap = "\n" if not header and end == 0 and lines and lines[0].strip() else ""
    lines.insert(end, f"{line}\n{gap}")
    return "".join(lines)


def _comment(line: str) -> str:
    """The comment at the end of a line, with the blanks before it: what stands before that is TOML by itself."""
    line = line.rstrip("\r\n")
    for found in re.finditer(r"\s*#", line):
        with contextlib.suppress(tomllib.TOMLDecodeError):
            tomllib.loads(line[: found.start()])
            return line[found.start() :]
    return ""


def _key(name: str) -> str:
    return name if _BARE.fullmatch(name) else json.dumps(name)
