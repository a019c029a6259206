"""Checkpoints on the Hugging Face hub, by its own library: the first of a profile's repositories that exists."""

import contextlib
import errno
import json
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import logging as hub_log
from huggingface_hub.utils.tqdm import disable_progress_bars

from workers.checkpoint import Marker
from workers.download.hashes import Digest
from workers.download.source import IGNORED, Found, Interrupted, is_wanted
from workers.download_plan import candidates
from workers.errors import DownloadFailed
from workers.profile import Profile

PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Statuses of a hub, or of a proxy before it, that is busy or restarts."""
DISK = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EFBIG, errno.ENOTDIR, errno.EISDIR}
    | {errno.ENAMETOOLONG, errno.EIO, errno.ELOOP}
)
"""What this machine's disk says, and no connection."""
LONGEST_REASON = 300


@dataclass(frozen=True, slots=True)
class HubSource:
    """The hub at `endpoint`, as whoever has `token`; None leaves the library's defaults. `say` takes what a person
    should know of the choice of a repository."""

    profile: Profile
    revision: str | None
    endpoint: str | None
    token: str | None
    say: Callable[[str], None]

    def find(self) -> Found:
        """The first of the profile's checkpoints that exists, pinned to a commit. Raises DownloadFailed, Interrupted.

        A repository that may be missing and is, is told together with what is taken instead.
        """
        if self.profile.checkpoint.local:
            raise DownloadFailed(f"{self.profile.model.title} is made on this machine: fleetgate-worker tiny-model")
        for checkpoint, quantization in candidates(self.profile):
            repository = checkpoint.repository
            try:
                with _told(repository):
                    found = self._look_up(repository, quantization)
            except RevisionNotFoundError as error:
                raise DownloadFailed(f"{repository} has no revision {self._revision}") from error
            except RepositoryNotFoundError:
                self.say(f"{repository} does not exist (or this token may not see it)")
                continue
            if quantization:
                self.say(f"taking {repository} instead: vLLM quantises it to {quantization} while loading")
            return found
        raise DownloadFailed(f"none of the checkpoints of {self.profile.name} exists; a private one needs HF_TOKEN")

    def fetch(self, found: Found, folder: Path, workers: int) -> None:
        """Bring the files; those that are there are not fetched again. Raises Interrupted or DownloadFailed."""
        assert found.marker is not None
        disable_progress_bars()
        hub_log.get_logger().setLevel(logging.ERROR)  # it tells of its own retries, in the middle of our progress bar
        try:
            with _told(found.title):
                snapshot_download(
                    found.marker.repository,
                    revision=found.marker.revision,
                    local_dir=folder,
                    token=self.token,
                    endpoint=self.endpoint,
                    ignore_patterns=list(IGNORED),
                    max_workers=workers,
                )
        except (RepositoryNotFoundError, RevisionNotFoundError) as error:
            raise DownloadFailed(f"{found.title}: the hub does not show it any more") from error

    @property
    def _revision(self) -> str:
        return self.revision or self.profile.revision

    def _look_up(self, repository: str, quantization: str | None) -> Found:
        info = HfApi(self.endpoint, self.token).model_info(repository, revision=self._revision, files_metadata=True)
        files = [file for file in info.siblings or [] if is_wanted(file.rfilename)]
        commit = info.sha or self._revision
        digests = {file.rfilename: digest for file in files if (digest := _digest(file)) is not None}
        return Found(
            f"{repository} at {commit}",
            {file.rfilename: file.size or 0 for file in files},
            Marker(repository=repository, revision=commit, quantization=quantization),
            digests,
        )


def _digest(file: Any) -> Digest | None:
    """What the hub tells of a file: SHA-256 where it is an LFS object, else git's blob id, which git computes."""
    if file.lfs is not None:
        return Digest("sha256", str(file.lfs.sha256).lower()) if file.lfs.sha256 else None
    return Digest("git", str(file.blob_id).lower()) if file.blob_id else None


@contextlib.contextmanager
def _told(what: str) -> Iterator[None]:
    """Say what a fault of the library means: to be tried again (Interrupted), or not (DownloadFailed). A repository or
    a revision that is not there is the caller's to tell.

    Its versions speak through different HTTP clients, whose errors have nothing in common but their names; an error of
    its storage service is a RuntimeError. So what is known to be final is named here, and all else is tried again.
    """
    try:
        yield
    except GatedRepoError as error:
        raise DownloadFailed(f"{what} is gated: accept its licence on the hub and set HF_TOKEN") from error
    except (RepositoryNotFoundError, RevisionNotFoundError):
        raise
    except Exception as error:
        if _is_final(error):
            raise DownloadFailed(f"{what}: {_reason(error)}") from error
        raise Interrupted(f"the hub does not answer a request for {what}: {_reason(error)}") from error


def _is_final(error: Exception) -> bool:
    status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(status, int):
        return status not in PASSING
    if isinstance(error, (json.JSONDecodeError, LocalEntryNotFoundError)):
        return False  # a proxy's page in place of the hub's answer; a hub that cannot be reached
    if isinstance(error, OSError) and error.errno in DISK:
        return True
    # A value that it does not take: a name that is none, a token that is no header, a file too large for this way.
    return isinstance(error, ValueError)


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text[:LONGEST_REASON] if text else type(error).__name__
