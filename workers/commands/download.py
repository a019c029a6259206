"""`fleetgate-worker download`: bring the checkpoint of a profile onto this machine."""

import os
import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn
from rich.table import Table

from workers.commands.edge import INTERRUPTED, ProfileFolder, ProfileName, told
from workers.download_plan import candidates, disk_bytes
from workers.errors import ConfigError, DownloadFailed, MissingTool
from workers.profile import Profile
from workers.profiles.load import find_profile
from workers.units import GB

if TYPE_CHECKING:
    from workers.download.source import Found, Source

SHOWN = 8
"""Names of files in one line."""


@told
def download(
    name: ProfileName,
    model_dir: Annotated[Path, typer.Option(help="Where the checkpoint goes: a local NVMe disk.")],
    origin: Annotated[
        str | None,
        typer.Option("--from", help="s3://BUCKET/PREFIX, rsync://HOST/MODULE/PATH or a folder; else the hub."),
    ] = None,
    revision: Annotated[str | None, typer.Option(help="A commit, tag or branch; else the profile's.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Look up and check the disk; bring nothing.")] = False,
    verify: Annotated[bool, typer.Option("--verify", help="Hold each file's hash against the source's.")] = False,
    workers: Annotated[int, typer.Option(help="Files fetched, or hashed, at once.", min=1, max=256)] = 8,
    tries: Annotated[int, typer.Option(help="Give up after so many in a row that brought nothing.", min=1)] = 12,
    profiles: ProfileFolder = None,
) -> None:
    """Find, check, fetch and prove. Reads HF_TOKEN and HF_ENDPOINT. Run it again to resume."""
    profile = find_profile(name, profiles or ())
    console = Console(stderr=True, soft_wrap=True, highlight=False, markup=False)
    source = _source(profile, origin, revision, console)
    from workers.download import fetch

    with _ended_at_once(console):
        found = fetch.find(source, tries, console.print)
        if origin is not None:
            _check_copy(profile, revision, found)
        console.print(f"{found.title}: {len(found.sizes)} files, {found.total / GB:,.1f} GB")
        fetch.check_folder(found, model_dir)
        if dry_run:
            _show(found, model_dir)
        fetch.check_space(found, model_dir)
        if dry_run:
            return
        with _progress(console) as bar:
            task = bar.add_task(profile.name, total=found.total)
            hashing = bar.add_task("hashing", total=_hashed_bytes(found), visible=verify)
            report = fetch.Report(
                bar.console.print,
                lambda done: bar.update(task, completed=done),
                lambda count: bar.update(hashing, advance=count, visible=True),
            )
            fetch.fetch(source, found, fetch.Job(model_dir, workers, tries, verify), report)
        console.print(f"complete by its index: {model_dir}")
        if verify:
            _say_verified(found, console)


def _source(profile: Profile, origin: str | None, revision: str | None, console: Console) -> "Source":
    if origin is None:
        try:
            from workers.download.hub import HubSource
        except ImportError as missing:
            raise MissingTool("download needs huggingface_hub: pip install 'fleetgate[worker-tools]'") from missing
        return HubSource(profile, revision, os.environ.get("HF_ENDPOINT"), _token(), console.print)
    from workers.download.folder import FolderSource
    from workers.download.rsync import rsync_source
    from workers.download.s3 import s3_source

    scheme, separator, _ = origin.partition("://")
    if not separator:
        return FolderSource(Path(origin))
    if scheme == "s3":
        return s3_source(origin)
    if scheme == "rsync":
        return rsync_source(origin)
    raise ConfigError(f"--from {origin!r}: use s3://BUCKET/PREFIX, rsync://HOST/MODULE/PATH or a folder")


def _token() -> str | None:
    """The hub's token. A file's last newline is no part of it; anything else odd would stand in an error's text."""
    token = os.environ.get("HF_TOKEN", "").strip()
    if not re.fullmatch(r"[!-~]*", token):
        raise ConfigError("HF_TOKEN holds blanks or characters that no token has")
    return token or None


def _check_copy(profile: Profile, revision: str | None, found: "Found") -> None:
    """A copy that says what it is has to be what the profile serves, at the revision that was asked for."""
    known = [checkpoint.repository for checkpoint, _ in candidates(profile)]
    if found.marker is None:
        if revision is not None:
            raise DownloadFailed(
                f"{found.title} does not say its revision: leave --revision out, or take it on yourself"
            )
        return
    if found.marker.repository not in known:
        raise DownloadFailed(
            f"{found.title} holds {found.marker.repository}; {profile.name} serves {' or '.join(known)}"
        )
    if revision is not None and revision != found.marker.revision:
        raise DownloadFailed(f"{found.title} is revision {found.marker.revision}, not {revision}")


def _show(found: "Found", folder: Path) -> None:
    from workers.download.fetch import free_bytes, present_bytes

    table = Table(box=None, padding=(0, 2))
    table.add_column("file")
    table.add_column("bytes", justify="right")
    table.add_column("hash told")
    for name, size in sorted(found.sizes.items()):
        digest = found.digests.get(name)
        table.add_row(name, f"{size:,}", "" if digest is None else digest.kind)
    console = Console(soft_wrap=True, highlight=False, markup=False)
    console.print(table)
    present = present_bytes(found, folder)
    console.print(
        f"{present / GB:,.1f} GB of {found.total / GB:,.1f} GB are in {folder}; "
        f"{disk_bytes(found.total, present) / GB:,.1f} GB are needed, {free_bytes(folder) / GB:,.1f} GB are free"
    )


def _hashed_bytes(found: "Found") -> int:
    return sum(found.sizes[name] for name in found.digests)


def _say_verified(found: "Found", console: Console) -> None:
    kinds = [(kind, [n for n, d in found.digests.items() if d.kind == kind]) for kind in ("sha256", "git")]
    for kind, names in kinds:
        if names:
            size = sum(found.sizes[name] for name in names) / GB
            told_kind = "SHA-256" if kind == "sha256" else "git's blob id"
            console.print(f"verified by {told_kind}: {len(names)} files, {size:,.1f} GB")
    unknown = sorted(set(found.sizes) - set(found.digests))
    if unknown:
        listed = ", ".join(unknown[:SHOWN]) + (f" and {len(unknown) - SHOWN} more" if len(unknown) > SHOWN else "")
        console.print(f"not verified, as {found.title} tells no hash of them: {listed}")


def _progress(console: Console) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    return Progress(*columns, TimeRemainingColumn(), console=console)


@contextmanager
def _ended_at_once(console: Console) -> Iterator[None]:
    """Ctrl-C ends the process and waits for no file of ten gigabytes: files and pieces stay, and the next run resumes.

    As an exception it would wait for the threads of the pool that it comes up in.
    """

    def end(_number: int, _frame: FrameType | None) -> None:
        console.show_cursor(True)
        console.print("stopped; run the command again to resume")
        os._exit(INTERRUPTED)

    before = signal.signal(signal.SIGINT, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
