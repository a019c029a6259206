"""Fetches a profile's checkpoint: finds which one exists, checks the disk, resumes, and proves that it is complete."""

import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils.tqdm import disable_progress_bars
from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from workers.checkpoint import Marker, check_checkpoint, read_marker, write_marker
from workers.download_plan import candidates, disk_bytes
from workers.errors import DownloadFailed
from workers.profile import Profile

# Formats that vLLM does not load, and other people's copies of the weights.
IGNORED = ("*.bin", "*.pth", "*.pt", "*.gguf", "*.onnx", "original/*", "consolidated*", "*.msgpack", "*.h5")
ATTEMPTS = 6
GB = 1e9
POLL_SECONDS = 0.5

TRANSPORT: type[Exception] = next(kind for kind in HfHubHTTPError.__mro__ if kind.__name__ == "HTTPError")
"""What the library's HTTP client raises where a connection fails: httpx's up to version 1, from 2 on httpx2's."""

Say = Callable[[str], None]
# Called now and then with bytes on disk and bytes wanted.
Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Hub:
    """Which hub, and as whom. None leaves the library's defaults."""

    endpoint: str | None = None
    token: str | None = None


@dataclass(frozen=True, slots=True)
class Found:
    """A repository that exists, pinned to a commit. `sizes` maps the files that are wanted to their bytes."""

    repository: str
    commit: str
    quantization: str | None
    sizes: dict[str, int]

    @property
    def total(self) -> int:
        """Bytes of all wanted files."""
        return sum(self.sizes.values())


def find_repository(profile: Profile, revision: str | None, hub: Hub, say: Say) -> Found:
    """The first of the profile's checkpoints that exists. Raises DownloadFailed where none does.

    A repository that may be missing and is, is told together with what is taken instead.
    """
    if profile.checkpoint.local:
        raise DownloadFailed(f"{profile.model.title} is made on this machine: fleetgate-worker tiny-model")
    for checkpoint, quantization in candidates(profile):
        try:
            found = _look_up(checkpoint.repository, revision or profile.revision, quantization, hub)
        except GatedRepoError as gated:
            advice = "accept its licence on the hub and set HF_TOKEN"
            raise DownloadFailed(f"{checkpoint.repository} is gated: {advice}") from gated
        except RepositoryNotFoundError:
            say(f"{checkpoint.repository} does not exist (or this token may not see it)")
            continue
        except RevisionNotFoundError as missing:
            raise DownloadFailed(f"{checkpoint.repository} has no revision {revision}") from missing
        except (HfHubHTTPError, TRANSPORT) as error:
            raise DownloadFailed(f"the hub does not answer a request for {checkpoint.repository}: {error}") from error
        if quantization:
            say(f"taking {checkpoint.repository} instead: vLLM quantises it to {quantization} while loading")
        return found
    raise DownloadFailed(f"none of the checkpoints of {profile.name} exists; a private one needs HF_TOKEN")


def check_folder(found: Found, folder: Path) -> None:
    """Raises DownloadFailed if `folder` holds another repository's checkpoint, which would be overwritten."""
    marker = read_marker(folder)
    if marker is not None and marker.repository != found.repository:
        raise DownloadFailed(
            f"{folder} holds {marker.repository}, not {found.repository}: give another --model-dir, or delete it"
        )


def check_space(found: Found, folder: Path) -> None:
    """Raises DownloadFailed if what is still to come does not fit on the folder's disk."""
    needed = disk_bytes(found.total, _bytes_on_disk(folder))
    free = shutil.disk_usage(next(f for f in (folder.absolute(), *folder.absolute().parents) if f.exists())).free
    if needed > free:
        raise DownloadFailed(
            f"{found.repository} still needs {needed / GB:,.1f} GB, {folder} has {free / GB:,.1f} GB free: "
            "attach a larger disk, or give --model-dir on one"
        )


def download(found: Found, folder: Path, hub: Hub, progress: Progress, workers: int, say: Say) -> None:
    """Fetch all files and prove them complete; files that are there already are not fetched again.

    A broken connection is taken up where it broke, several times with growing waits. Raises DownloadFailed.
    """
    disable_progress_bars()

    def told(state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        say(f"attempt {state.attempt_number} broke off ({error}); resuming")

    with _watched(folder, found.total, progress):
        try:
            for attempt in Retrying(
                retry=retry_if_exception_type((TRANSPORT, HfHubHTTPError, LocalEntryNotFoundError, OSError)),
                stop=stop_after_attempt(ATTEMPTS),
                wait=wait_random_exponential(multiplier=0.5, max=60),
                after=told,
                reraise=True,
            ):
                with attempt:
                    snapshot_download(
                        found.repository,
                        revision=found.commit,
                        local_dir=folder,
                        token=hub.token,
                        endpoint=hub.endpoint,
                        ignore_patterns=list(IGNORED),
                        max_workers=workers,
                    )
        except (TRANSPORT, HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
            raise DownloadFailed(f"{found.repository}: {error}; run the command again to resume") from error
    _prove(found, folder)
    write_marker(folder, Marker(repository=found.repository, revision=found.commit, quantization=found.quantization))


def _look_up(repository: str, revision: str, quantization: str | None, hub: Hub) -> Found:
    info = HfApi(hub.endpoint, hub.token).model_info(repository, revision=revision, files_metadata=True)
    files = [f for f in info.siblings or [] if not any(fnmatch(f.rfilename, pattern) for pattern in IGNORED)]
    return Found(repository, info.sha or revision, quantization, {f.rfilename: f.size or 0 for f in files})


def _prove(found: Found, folder: Path) -> None:
    wrong = [name for name, size in found.sizes.items() if _size(folder / name) != size]
    if wrong:
        raise DownloadFailed(f"{len(wrong)} files have the wrong size, {wrong[0]} first; run the command again")
    faults = check_checkpoint(folder).faults
    if faults:
        raise DownloadFailed(f"the checkpoint is not complete: {faults[0]}; run the command again")


def _size(file: Path) -> int | None:
    return file.stat().st_size if file.is_file() else None


def _bytes_on_disk(folder: Path) -> int:
    """Bytes fetched so far: whole files, and the beginnings of files under .cache."""
    return sum(f.stat().st_size for f in folder.rglob("*") if f.is_file()) if folder.exists() else 0


@contextmanager
def _watched(folder: Path, total: int, progress: Progress) -> Iterator[None]:
    """Tell the progress from the outside, by what lies on disk, so that resumed bytes count as well."""
    done = threading.Event()

    def watch() -> None:
        while not done.wait(POLL_SECONDS):
            progress(min(_bytes_on_disk(folder), total), total)

    watcher = threading.Thread(target=watch, name="download-progress", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()
        progress(min(_bytes_on_disk(folder), total), total)
