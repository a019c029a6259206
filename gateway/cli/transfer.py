"""`fleetgate export` and `fleetgate import`: tenants, keys, blocks and usage as a file."""

import contextlib
import os
import re
import stat
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Annotated, Any

import typer

from gateway.cli.admin_client import AdminClient, AdminClientError, path_of
from gateway.cli.options import LOCAL, AdminToken, AdminUrl, asking, misused
from gateway.cli.terminal import tell
from gateway.cli.times import moment_of
from gateway.core.access.export_format import MAX_LINE, ExportError, read_export
from gateway.core.json_text import dump, load_object

PAGE, PAGE_BYTES = 200, 500_000
"""Records, and bytes, of one request: the admin listener takes 200 and a mebibyte."""

SHOWN = 20
"""Changes of one kind that are listed one by one."""


def export_records(
    file: Annotated[Path, typer.Argument(help="The file to write; - for the standard output.")],
    usage: Annotated[bool, typer.Option("--usage/--no-usage", help="Whether usage is written, too.")] = True,
    since: Annotated[str | None, typer.Option(help="Usage from then on: 24h, 7d or 2026-11-01.")] = None,
    admin: AdminUrl = LOCAL,
    token: AdminToken = None,
) -> None:
    """Write tenants, keys (their hashes), blocks and usage of the gateway's Redis to a file, for `fleetgate import`."""
    try:
        start = None if since is None else moment_of(since, datetime.now(UTC)).isoformat()
    except ValueError as error:
        raise misused(str(error)) from None
    with asking(admin, token) as control:
        pages = control.pages("/admin/export", usage=usage, since=start)
        if str(file) == "-":
            _print(pages)
            return
        try:
            records, unreadable = _save(pages, file)
        except OSError as error:
            raise AdminClientError(f"{file} cannot be written: {error.strerror}") from None
    tell(f"{file}: {_counted(records)}")
    _tell_unreadable(unreadable)


def import_records(
    file: Annotated[Path, typer.Argument(help="What `fleetgate export` has written.", exists=True, dir_okay=False)],
    merge: Annotated[bool, typer.Option("--merge", help="Add what is not there; what differs stays.")] = False,
    replace: Annotated[
        bool, typer.Option("--replace", help="Make tenants and keys as in the file; those that it has not are deleted.")
    ] = False,
    usage: Annotated[bool, typer.Option("--usage/--no-usage", help="Whether usage is taken in, too.")] = True,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would change, and change nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")] = False,
    admin: AdminUrl = LOCAL,
    token: AdminToken = None,
) -> None:
    """Take in tenants, keys, blocks and usage. All of the file is checked before anything is changed."""
    if merge == replace:
        raise misused("give one of --merge and --replace")
    with asking(admin, token) as control:
        importer = _Import(control, file, "replace" if replace else "merge", usage)
        importer.check()
        extra = importer.not_in_file() if replace else []
        importer.tell(extra)
        if dry_run:
            tell("nothing was changed (--dry-run)")
            return
        if (importer.writes or extra) and not yes:
            typer.confirm("Go on?", abort=True)
        importer.write()
        for kind, subject in extra:  # deleting comes last
            control.ask("DELETE", path_of("admin", f"{kind}s", subject))
    tell("imported" if importer.writes or extra else "nothing to change")


class _Import:
    """One file on its way into a gateway's Redis."""

    def __init__(self, control: AdminClient, file: Path, mode: str, with_usage: bool) -> None:
        self._control = control
        self._file = file
        self._mode = mode
        self._with_usage = with_usage
        self._changes: list[dict[str, Any]] = []
        self._usage: Counter[str] = Counter()
        self._unchanged = 0
        self._named: dict[str, set[str]] = {"tenant": set(), "key": set()}
        self._stamp: tuple[int, ...] | None = None

    @property
    def writes(self) -> bool:
        """Whether anything of the file is to be written."""
        return (
            any(each["action"] != "kept" for each in self._changes) or self._usage["added"] + self._usage["changed"] > 0
        )

    def check(self) -> None:
        """Read the whole file and have all of it checked. Raises `AdminClientError`."""
        problems: list[str] = []
        missing: set[str] = set()
        for page in self._pages():
            for entry in page:
                if entry["kind"] in self._named:
                    self._named[entry["kind"]].add(str(entry.get("name") or entry.get("id")))
            try:
                found = self._send(page, dry_run=True)
            except AdminClientError as error:
                problems += [re.sub(r"^records\.\d+: ", "", line) for line in str(error).splitlines()]
                if len(problems) >= SHOWN:  # more are not shown, and a Redis that is away fails every page
                    break
                continue
            self._changes += found["changes"]
            self._usage.update(found["usage"])
            self._unchanged += found["unchanged"]
            missing.update(found["missing_tenants"])
        else:
            lost = sorted(missing - self._named["tenant"])
            if lost:
                words = "keys belong to tenants that exist neither there nor in the file"
                problems.append(f"{words}: {', '.join(lost[:SHOWN])}")
        if problems:
            raise AdminClientError("\n".join([*problems[:SHOWN], "nothing was imported"]))

    def not_in_file(self) -> list[tuple[str, str]]:
        """Tenants and keys of Redis that the file does not have, keys of such tenants aside."""
        tenants = [each["name"] for each in self._control.get("/admin/tenants") if each["origin"] == "redis"]
        gone = [name for name in tenants if name not in self._named["tenant"]]
        keys = [
            each["id"]
            for each in self._control.get("/admin/keys")
            if each["origin"] == "redis" and each["id"] not in self._named["key"] and each["tenant"] not in gone
        ]
        return [*(("key", id) for id in keys), *(("tenant", name) for name in gone)]

    def tell(self, extra: list[tuple[str, str]]) -> None:
        """Say what would change."""
        changes = [(each["action"], each["kind"], each["subject"], each["fields"]) for each in self._changes]
        changes += [("deleted", kind, subject, []) for kind, subject in extra]
        for action in ("added", "changed", "kept", "deleted"):
            found = [each for each in changes if each[0] == action]
            words = "kept, though the file differs" if action == "kept" else action
            for _, kind, subject, fields in found[:SHOWN]:
                tell(f"{words}: {kind} {subject}" + (f" ({', '.join(fields)})" if fields else ""))
            if len(found) > SHOWN:
                tell(f"{words}: {len(found) - SHOWN} more")
        usage = ", ".join(f"{count} {name}" for name, count in self._usage.items() if count)
        tell(f"unchanged: {self._unchanged}; sums of usage: {usage or 'none'}")

    def write(self) -> None:
        """Write the file's records. Raises `AdminClientError`, which says that the rest can be written later."""
        try:
            for page in self._pages():
                self._send(page, dry_run=False)
        except AdminClientError as error:
            again = "a part may have been written; import again: it goes on, and counts nothing twice"
            raise AdminClientError(f"{error}\n{again}") from None

    def _send(self, page: list[dict[str, Any]], dry_run: bool) -> Any:
        return self._control.post("/admin/import", {"mode": self._mode, "dry_run": dry_run, "records": page})

    def _pages(self) -> Iterator[list[dict[str, Any]]]:
        """The file's records in requests of one kind each: a key comes after its tenant."""
        page: list[dict[str, Any]] = []
        size = 0
        for entry in self._entries():
            if entry["kind"] == "usage" and not self._with_usage:
                continue
            length = len(dump(entry))
            if page and (len(page) == PAGE or size + length > PAGE_BYTES or page[0]["kind"] != entry["kind"]):
                yield page
                page, size = [], 0
            page.append(entry)
            size += length
        if page:
            yield page

    def _entries(self) -> Iterator[dict[str, Any]]:
        try:
            with self._file.open("rb") as file:
                self._check_unchanged(os.fstat(file.fileno()))
                yield from read_export(_lines(file))
                self._check_unchanged(os.fstat(file.fileno()))
        except ExportError as error:
            raise AdminClientError(f"{self._file}: {error}") from None
        except OSError as error:
            raise AdminClientError(f"{self._file} cannot be read: {error.strerror}") from None

    def _check_unchanged(self, now: os.stat_result) -> None:
        """It is read twice: what was shown, and agreed to, is what is written."""
        if not stat.S_ISREG(now.st_mode):
            raise AdminClientError(f"{self._file} is no regular file, and it is read twice: save it first")
        stamp = now.st_dev, now.st_ino, now.st_size, now.st_mtime_ns
        self._stamp = self._stamp or stamp
        if stamp != self._stamp:
            raise AdminClientError(f"{self._file} was changed meanwhile: import again, which shows what is left to do")


def _save(pages: Iterator[bytes], file: Path) -> tuple[Counter[str], int]:
    """Write the file whole, or leave what was there. Only its owner may read it. Returns the records by kind, and how
    many could not be read."""
    handle, beside = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
    try:
        with os.fdopen(handle, "w+b") as out:
            for page in pages:
                out.write(page)
            out.seek(0)
            records = Counter(entry["kind"] for entry in read_export(_lines(out)))
            out.seek(max(0, out.tell() - MAX_LINE))
            end = _end_of(out.read())
            out.flush()
            os.fsync(out.fileno())
        Path(beside).replace(file)
    except ExportError as error:
        raise AdminClientError(f"{error}; {file} was not written") from None
    finally:
        with contextlib.suppress(FileNotFoundError):
            Path(beside).unlink()
    return records, int(end.get("unreadable", 0))


def _print(pages: Iterator[bytes]) -> None:
    """Write to the standard output; fails where the end is missing."""
    last = b""
    for page in pages:
        sys.stdout.buffer.write(page)
        last = (last + page)[-MAX_LINE:]
    end = _end_of(last)
    if end.get("kind") != "end":
        raise AdminClientError(str(end.get("detail", "the export was cut off")))
    _tell_unreadable(int(end.get("unreadable", 0)))


def _end_of(tail: bytes) -> dict[str, Any]:
    """The last line of an export."""
    return load_object(tail.rstrip(b"\n").rpartition(b"\n")[2]) or {}


def _tell_unreadable(records: int) -> None:
    if records:
        tell(f"{records} records of Redis could not be read, and are not in the file", err=True)


def _lines(file: IO[bytes]) -> Iterator[bytes]:
    """One too long comes in pieces, the first of which is refused."""
    return iter(lambda: file.readline(MAX_LINE + 1), b"")


def _counted(records: Counter[str]) -> str:
    named = {"tenant": "tenants", "key": "keys", "block": "blocks", "usage": "sums of usage"}
    return ", ".join(f"{records[kind]} {name}" for kind, name in named.items())
