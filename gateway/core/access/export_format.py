"""The format of an export: JSON Lines, a header first and an end last.

    {"kind": "fleetgate-export", "version": 1, "at": "2026-11-30T23:00:00Z"}
    {"kind": "block", "subject": "tenant:acme", "who": "ada@10.0.0.5", "at": s, "reason": "a key leaked"}
    {"kind": "tenant", "name": "acme", "record": {"settings": {...}, "created": s, "changed": s}}
    {"kind": "key", "id": "key_...", "record": {"digest": hex, "tenant": "acme", "settings": {...}, ...}}
    {"kind": "usage", "per": "day", "at": s, "tenant": "acme", "model": "m", "key": "key_...", "sums": {...}}
    {"kind": "end", "records": 4, "unreadable": 0}

A key is its SHA-256, never the key itself. Records stand as they are kept, so that nothing is lost that this version
does not know. Times (`s`) are seconds since 1970. A file without its end was cut off.
"""

from collections.abc import Iterable, Iterator
from typing import Any

from gateway.core.json_text import dump, load_exact_object

HEADER = "fleetgate-export"
VERSION = 1
KINDS = ("block", "tenant", "key", "usage")
"""In the order in which they are imported: a block holds before its key opens anything."""

MAX_LINE = 1_000_000
"""Bytes of a line: with it, the request that imports it stays below a mebibyte."""

_IDENTITY = {"block": "subject", "tenant": "name", "key": "id"}


class ExportError(ValueError):
    """A file that is no whole export; the text says why and, where there is one, in which line."""


def header_line(at: str) -> bytes:
    """`at`: when, in ISO 8601."""
    return line_of({"kind": HEADER, "version": VERSION, "at": at})


def end_line(records: int, unreadable: int) -> bytes:
    """`unreadable`: what stands in Redis and is no record, so that it is not in the export."""
    return line_of({"kind": "end", "records": records, "unreadable": unreadable})


def failed_line(reason: str) -> bytes:
    """The last line where no more could be read."""
    return line_of({"kind": "failed", "detail": reason})


def line_of(entry: dict[str, Any]) -> bytes:
    return dump(entry) + b"\n"


def read_export(lines: Iterable[bytes]) -> Iterator[dict[str, Any]]:
    """The records of an export, as they come. The file is whole if this ends without an `ExportError`."""
    number, records, ended = 0, 0, False
    seen: set[tuple[str, str]] = set()
    for number, line in enumerate(lines, 1):
        entry = _entry(number, line)
        kind = entry.get("kind")
        if number == 1:
            _check_header(entry)
        elif ended:
            raise ExportError(f"line {number}: something stands behind the end")
        elif kind == "end":
            ended = True
            if entry.get("records") != records:
                raise ExportError(f"line {number}: the end counts {entry.get('records')} records, not {records}")
        elif kind == "failed":
            raise ExportError(f"the export failed: {entry.get('detail')}")
        elif kind not in KINDS:
            raise ExportError(f"line {number}: unknown kind {kind!r:.40}; known: {', '.join(KINDS)}")
        else:
            records += 1
            _check_once(number, entry, seen)
            yield entry
    if not number:
        raise ExportError("the file is empty")
    if not ended:
        raise ExportError(f"the file was cut off after line {number}: its end is missing; export again")


def _entry(number: int, line: bytes) -> dict[str, Any]:
    if len(line) > MAX_LINE:
        raise ExportError(f"line {number} is longer than {MAX_LINE} bytes")
    entry = load_exact_object(line)
    if entry is None:
        raise ExportError(f"line {number} is no JSON object")
    return entry


def _check_header(entry: dict[str, Any]) -> None:
    if entry.get("kind") != HEADER:
        raise ExportError("line 1 is not the header of an export: the file is not from `fleetgate export`")
    if entry.get("version") != VERSION:
        version = entry.get("version")
        raise ExportError(f"version {version!r:.20} of the format is not known here, but {VERSION}: use that fleetgate")


def _check_once(number: int, entry: dict[str, Any], seen: set[tuple[str, str]]) -> None:
    kind = str(entry["kind"])
    named = _IDENTITY.get(kind)
    if named is None:
        return
    identity = (kind, str(entry.get(named)))
    if identity in seen:
        raise ExportError(f"line {number}: the {kind} {identity[1]} is there twice")
    seen.add(identity)
