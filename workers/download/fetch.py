"""Brings a checkpoint that was found: holds it against folder and disk, tries on while bytes come, proves it."""

import contextlib
import random
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tenacity import RetryCallState, Retrying, retry_if_exception_type

from workers.checkpoint import MARKER, check_checkpoint, read_marker, write_marker
from workers.download.hashes import MANIFEST, find_wrong, write_manifest
from workers.download.source import INCOMING, Found, Interrupted, Source
from workers.download_plan import disk_bytes
from workers.errors import DownloadFailed
from workers.units import GB

POLL_SECONDS = 0.5
FIRST_SECONDS, LAST_SECONDS = 0.2, 60.0
LOOK_UP_TRIES = 4
HUB_CACHE = ".cache/huggingface/download"
"""Where the hub's library keeps the beginnings of files, below the model's folder."""

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Job:
    """Where a checkpoint goes, and how: `workers` files at once; given up after `tries` in a row that brought nothing;
    with `verify` every file is held against its hash, else where the index shows that one is not right."""

    folder: Path
    workers: int = 8
    tries: int = 12
    verify: bool = False


@dataclass(frozen=True, slots=True)
class Report:
    """Who is told: `say` takes lines for a person, `fetched` the bytes on disk now and then, `hashed` those of each
    piece that was hashed."""

    say: Say
    fetched: Callable[[int], None]
    hashed: Callable[[int], None]


def find(source: Source, tries: int, say: Say) -> Found:
    """Look the checkpoint up, a few times where nobody answers. Raises DownloadFailed."""
    with _said_in_the_end():
        for attempt in _tries(Patience(min(tries, LOOK_UP_TRIES), lambda: 0, say)):
            with attempt:
                found = source.find()
    return found


def check_folder(found: Found, folder: Path) -> None:
    """Raises DownloadFailed if `folder` is none, or holds another checkpoint, which would be overwritten."""
    if folder.exists() and not folder.is_dir():
        raise DownloadFailed(f"--model-dir {folder} is a file: give a folder")
    marker = read_marker(folder)
    if marker is None:
        return
    other = found.marker.repository if found.marker is not None else f"{found.title}, which has no note of what it is"
    if marker.repository != other:
        raise DownloadFailed(f"{folder} holds {marker.repository}, not {other}: give another --model-dir, or delete it")


def check_space(found: Found, folder: Path) -> None:
    """Raises DownloadFailed if what is still to come does not fit on the folder's disk."""
    needed = disk_bytes(found.total, present_bytes(found, folder))
    free = free_bytes(folder)
    if needed > free:
        raise DownloadFailed(
            f"{found.title} still needs {needed / GB:,.1f} GB, {folder} has {free / GB:,.1f} GB free: "
            "attach a larger disk, or give --model-dir on one"
        )


def free_bytes(folder: Path) -> int:
    """Bytes free on the disk that `folder` is on, or will be."""
    return shutil.disk_usage(next(f for f in (folder.absolute(), *folder.absolute().parents) if f.exists())).free


def present_bytes(found: Found, folder: Path) -> int:
    """Bytes fetched so far: of wanted files, and of files that are on their way."""
    whole = sum(min(_size(folder / name) or 0, size) for name, size in found.sizes.items())
    partial = sum(
        _size(file) or 0
        for place in (folder / HUB_CACHE, folder / INCOMING)
        for file in place.rglob("*")
        if place.name == INCOMING or file.name.endswith(".incomplete")
    )
    return min(whole + partial, found.total)


def fetch(source: Source, found: Found, job: Job, report: Report) -> None:
    """Bring all files and prove them complete by sizes and index; those that are there are not brought again.

    A connection that breaks is taken up where it broke, with growing waits. A file whose hash is wrong, as after a
    proxy's page in place of its bytes, is deleted and brought again. Raises DownloadFailed.
    """
    if job.verify and not found.digests:
        raise DownloadFailed(f"{found.title} tells no hash of any file: there is nothing to verify by")
    try:
        job.folder.mkdir(parents=True, exist_ok=True)
        _forget_other(found, job.folder)
        _bring(source, found, job, report)
        with contextlib.suppress(OSError):
            shutil.rmtree(job.folder / INCOMING)
        write_manifest(job.folder, found.digests)
        if found.marker is not None:
            write_marker(job.folder, found.marker)
    except OSError as error:
        raise DownloadFailed(f"cannot write to {job.folder}: {error}") from error


def _bring(source: Source, found: Found, job: Job, report: Report) -> None:
    patience = Patience(job.tries, lambda: present_bytes(found, job.folder), report.say)
    with _watched(found, job.folder, report.fetched), _said_in_the_end():
        for attempt in _tries(patience):
            with attempt:
                source.fetch(found, job.folder, job.workers)
                _check_sizes(found, job.folder)
                faults = check_checkpoint(job.folder).faults
                if faults or job.verify:
                    _check_hashes(found, job, report)
    if faults:
        raise DownloadFailed(f"the checkpoint is not complete: {faults[0]}; {found.title} has it so")


def _forget_other(found: Found, folder: Path) -> None:
    """A note of another revision is untrue from the first file on that is brought."""
    if read_marker(folder) not in (None, found.marker):
        (folder / MARKER).unlink()
        (folder / MANIFEST).unlink(missing_ok=True)


def _check_hashes(found: Found, job: Job, report: Report) -> None:
    """Delete files that do not have the hash that the source tells. Raises Interrupted where there are any."""
    wrong = find_wrong(job.folder, found.digests, job.workers, report.hashed)
    for name in wrong:
        (job.folder / name).unlink(missing_ok=True)
    if wrong:
        names = ", ".join(wrong[:5]) + (f" and {len(wrong) - 5} more" if len(wrong) > 5 else "")
        raise Interrupted(f"{found.title}: {len(wrong)} files do not have their hash and were deleted: {names}")


class Patience:
    """How long to try on: until `tries` in a row brought no byte. `present` counts the bytes that are there."""

    def __init__(self, tries: int, present: Callable[[], int], say: Say) -> None:
        """Nothing was tried yet."""
        self._tries = tries
        self._present = present
        self._say = say
        self._most = present()
        self._barren = 0

    def note(self, state: RetryCallState) -> None:
        """One try more has failed."""
        now = self._present()
        self._barren = 0 if now > self._most else self._barren + 1
        self._most = max(self._most, now)
        error = state.outcome.exception() if state.outcome else None
        self._say(f"attempt {state.attempt_number} broke off ({error}); trying again")

    def is_over(self, _: RetryCallState) -> bool:
        """Whether trying on is pointless."""
        return self._barren >= self._tries

    def seconds(self, _: RetryCallState) -> float:
        """How long to wait now: not at all where something came, then doubling; spread, so that machines do not ask in
        step."""
        if self._barren == 0:
            return 0.0
        full = min(LAST_SECONDS, FIRST_SECONDS * 2.0 ** (self._barren - 1))
        return full * random.uniform(0.5, 1.0)


def _tries(patience: Patience) -> Retrying:
    return Retrying(
        retry=retry_if_exception_type(Interrupted),
        stop=patience.is_over,
        wait=patience.seconds,
        after=patience.note,
        reraise=True,
    )


@contextlib.contextmanager
def _said_in_the_end() -> Iterator[None]:
    try:
        yield
    except Interrupted as error:
        raise DownloadFailed(f"{error}; run the command again to resume") from error


def _check_sizes(found: Found, folder: Path) -> None:
    """The hub's library returns a folder that is not complete where it cannot reach the hub: that is a break, too."""
    wrong = [name for name, size in found.sizes.items() if _size(folder / name) != size]
    if wrong:
        raise Interrupted(f"{found.title}: {len(wrong)} files are missing or have the wrong size, {wrong[0]} first")


def _size(file: Path) -> int | None:
    try:
        return file.stat().st_size
    except OSError:
        return None  # not there, or moved to its place in this moment


@contextlib.contextmanager
def _watched(found: Found, folder: Path, fetched: Callable[[int], None]) -> Iterator[None]:
    """Tell the progress from the outside, by what lies on disk, so that resumed bytes count as well."""
    done = threading.Event()

    def watch() -> None:
        while not done.wait(POLL_SECONDS):
            fetched(present_bytes(found, folder))

    watcher = threading.Thread(target=watch, name="download-progress", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()
        fetched(present_bytes(found, folder))
