"""A checkpoint on an rsync server, by the program rsync: it resumes within files and checks each file it brings."""

import re
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory

from workers.download.notes import found_with_notes
from workers.download.source import INCOMING, Found, Interrupted
from workers.errors import ConfigError, DownloadFailed, MissingTool
from workers.parent_death import die_with_parent

URL = re.compile(r"rsync://(?:[^@/\s]+@)?[^@/\s]+/[^/\s]\S*")
LINE = re.compile(r"-\S+ +([\d,.]+) \d{4}/\d\d/\d\d \d\d:\d\d:\d\d (.+)")
OPTIONS = ("--no-motd", "--contimeout=20", "--timeout=60", "--copy-links")
PASSING = frozenset({10, 12, 20, 24, 30, 35})
"""Exit codes that another try may mend (rsync(1)): socket and protocol errors, a kill, vanished files, time-outs."""


@dataclass(frozen=True, slots=True)
class RsyncSource:
    """The files below `url`. A password is rsync's to read: RSYNC_PASSWORD."""

    url: str

    def find(self) -> Found:
        """List the files. Raises DownloadFailed, Interrupted, MissingTool."""
        text = self._run(["--recursive", "--list-only", "--no-human-readable"], f"{self.url}/")
        lines = [found for line in text.splitlines() if (found := LINE.fullmatch(line)) is not None]
        listed = {line.group(2): int(re.sub(r"\D", "", line.group(1))) for line in lines}
        return found_with_notes(self.url, listed, self._read)

    def fetch(self, found: Found, folder: Path, workers: int) -> None:
        """Bring what is not there with the same size and time of change. Raises Interrupted, DownloadFailed."""
        folder.mkdir(parents=True, exist_ok=True)
        # By filters: with --files-from, a server of rsync 3.2.7 without chroot says of each file that it vanished.
        chosen = ["--from0", "--include-from=-", "--exclude=*"]
        options = ["--recursive", "--times", "--prune-empty-dirs", f"--partial-dir={INCOMING}", *chosen]
        self._run(options, f"{self.url}/", str(folder.absolute()), names="\0".join(_patterns(found.sizes)))

    def _read(self, name: str) -> bytes | None:
        with TemporaryDirectory(prefix="fleetgate-") as place:
            self._run([], f"{self.url}/{name}", f"{place}/")
            return (Path(place) / name).read_bytes()

    def _run(self, options: Sequence[str], *places: str, names: str = "") -> str:
        if shutil.which("rsync") is None:
            raise MissingTool("--from rsync:// needs the program rsync: apt-get install rsync")
        done = subprocess.run(
            ["rsync", *OPTIONS, *options, "--", *places],
            input=names,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            preexec_fn=die_with_parent(),
        )
        if done.returncode != 0:
            last = " ".join((done.stderr.strip() or "no word of it").splitlines()[-3:])
            told = f"{self.url}: rsync ended with {done.returncode}: {last[:400]}"
            raise (Interrupted if done.returncode in PASSING else DownloadFailed)(told)
        return done.stdout


def _patterns(names: Iterable[str]) -> list[str]:
    """rsync's patterns for these files, and for the folders on the way to them."""
    folders = {f"{parent}/" for name in names for parent in PurePosixPath(name).parents if parent.parts}
    return ["/" + re.sub(r"([*?\[])", r"\\\1", path) for path in (*sorted(folders), *names)]


def rsync_source(url: str) -> RsyncSource:
    """The source of `rsync://[USER@]HOST[:PORT]/MODULE/PATH`. Raises ConfigError."""
    if not URL.fullmatch(url):
        raise ConfigError(f"--from {url!r}: expected rsync://[USER@]HOST[:PORT]/MODULE[/PATH]")
    return RsyncSource(url.rstrip("/"))
