"""What `download` noted beside a checkpoint, found again in a copy of it: what it is, and the hashes of its files."""

from collections.abc import Callable, Mapping

from pydantic import ValidationError

from workers.checkpoint import MARKER, Marker
from workers.download.hashes import MANIFEST, read_manifest
from workers.download.source import Found, wanted_files
from workers.errors import DownloadFailed, problems_of


def found_with_notes(title: str, listed: Mapping[str, int], read: Callable[[str], bytes | None]) -> Found:
    """The checkpoint among the files that a source lists; `read` gives a small file's bytes, None where there is none.

    Raises DownloadFailed where there is no checkpoint, or where a note cannot be read.
    """
    sizes = wanted_files(title, listed)
    marker = _marker(title, read(MARKER) if MARKER in listed else None)
    manifest = read(MANIFEST) if MANIFEST in listed else None
    try:
        digests = {} if manifest is None else read_manifest(manifest.decode(), f"{title}/{MANIFEST}")
    except UnicodeDecodeError as error:
        raise DownloadFailed(f"{title}/{MANIFEST} is no text: {error}") from error
    missing = [name for name in digests if name not in sizes]
    if missing:
        raise DownloadFailed(f"{title} lacks {missing[0]}, which its {MANIFEST} names: the copy is not complete")
    return Found(title, sizes, marker, digests)


def _marker(title: str, text: bytes | None) -> Marker | None:
    if text is None:
        return None
    try:
        return Marker.model_validate_json(text)
    except ValidationError as error:
        raise DownloadFailed(f"{title}/{MARKER} cannot be read: {'; '.join(problems_of(error))}") from error
