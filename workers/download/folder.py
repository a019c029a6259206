"""A checkpoint that lies in a folder already: another disk, a share on the network, the cache of the hub's library."""

import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from workers.download.notes import found_with_notes
from workers.download.source import INCOMING, Found
from workers.errors import DownloadFailed


@dataclass(frozen=True, slots=True)
class FolderSource:
    """The files of a folder; links are followed, as the hub's cache consists of them."""

    path: Path

    def find(self) -> Found:
        """List the files. Raises DownloadFailed."""
        if not self.path.is_dir():
            raise DownloadFailed(f"--from {self.path} is no folder")
        try:
            listed = {
                file.relative_to(self.path).as_posix(): file.stat().st_size
                for file in self.path.rglob("*")
                if file.is_file()
            }
            return found_with_notes(str(self.path), listed, self._read)
        except OSError as error:
            raise DownloadFailed(f"--from {self.path} cannot be read: {error}") from error

    def fetch(self, found: Found, folder: Path, workers: int) -> None:
        """Copy what is not there with the same size and time of change. Raises DownloadFailed."""
        if folder.exists() and folder.samefile(self.path):
            raise DownloadFailed(f"--from and --model-dir are the same folder {folder}")
        with ThreadPoolExecutor(workers, thread_name_prefix="copy") as pool:
            try:
                list(pool.map(lambda name: self._copy(name, folder), found.sizes))
            except OSError as error:
                pool.shutdown(cancel_futures=True)
                raise DownloadFailed(f"cannot copy {self.path}: {error}") from error

    def _copy(self, name: str, folder: Path) -> None:
        there, here, partial = self.path / name, folder / name, folder / INCOMING / name
        wanted = there.stat()
        if here.is_file() and (here.stat().st_size, int(here.stat().st_mtime)) == (
            wanted.st_size,
            int(wanted.st_mtime),
        ):
            return
        for place in (here, partial):
            place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(there, partial)
        os.utime(partial, (wanted.st_atime, wanted.st_mtime))
        partial.replace(here)

    def _read(self, name: str) -> bytes | None:
        file = self.path / name
        return file.read_bytes() if file.is_file() else None
