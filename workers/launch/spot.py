"""Notices that a spot machine is about to be taken away: a file that appears, or a cloud's metadata service.

A source is asked again and again (`notices_of`), also after its first notice, since a cloud may shorten a deadline. A
source that does not answer, or whose answer is no answer, raises NoticeUnreadable: that is told once and asked again.
What each cloud answers is taken from its documentation; it was tried here against servers of our own that answer so.
"""

import asyncio
import json
import math
import re
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

import httpx

from workers.errors import ConfigError
from workers.launch.azure import AzureNotice
from workers.launch.notice import Notice, NoticeUnreadable, ask

POLL_SECONDS = 5.0
FILE_POLL_SECONDS = 0.5
MAX_FILE_BYTES = 65_536
AWS = "http://169.254.169.254"
GCP = "http://metadata.google.internal/computeMetadata/v1/instance/preempted"
# What the clouds promise between notice and end, in seconds.
AWS_SECONDS, GCP_SECONDS = 120.0, 30.0
CLOUDS = "aws, gcp, azure"
TOKEN = re.compile(r"[!-~]+")


class NoticeSource(Protocol):
    """Something that knows when the machine is taken away; asked every `poll_seconds`."""

    @property
    def name(self) -> str:
        """As the operator named it."""

    @property
    def poll_seconds(self) -> float:
        """Seconds between two questions."""

    async def look(self) -> Notice | None:
        """The notice as it stands now, None while there is none. Raises NoticeUnreadable."""


async def notices_of(source: NoticeSource, say: Callable[[str], None]) -> AsyncIterator[Notice]:
    """Each notice of `source` that differs from the one before, for ever. Failures are told when they change."""
    last: str | None = None
    failure: str | None = None
    while True:
        try:
            notice = await source.look()
        except Exception as error:  # noqa: BLE001 - whatever it is, the source is asked again
            told = str(error) if isinstance(error, NoticeUnreadable) else f"failed ({type(error).__name__}: {error})"
            if told != failure:
                failure = told
                say(f"--spot {source.name}: {failure}; it is asked again every {source.poll_seconds:g} s")
        else:
            if failure is not None:
                say(f"--spot {source.name}: answers now")
                failure = None
            if notice is not None and notice.key != last:
                last = notice.key
                yield notice
        await asyncio.sleep(source.poll_seconds)


@dataclass(frozen=True, slots=True)
class FileNotice:
    """A file that appears. It may hold JSON with `seconds` or `time`."""

    path: Path
    poll_seconds: float = FILE_POLL_SECONDS

    @property
    def name(self) -> str:
        """As the operator named it."""
        return f"file:{self.path}"

    async def look(self) -> Notice | None:
        """The notice where the file is there. Raises NoticeUnreadable where it cannot be read."""
        try:
            with self.path.open("rb") as stream:
                text = stream.read(MAX_FILE_BYTES).decode(errors="replace")
        except FileNotFoundError:
            return None
        except OSError as error:
            raise NoticeUnreadable(f"cannot be read ({error.strerror})") from error
        return Notice(f"{self.path} appeared", _seconds_in(text), key=text)


@dataclass(frozen=True, slots=True)
class UrlNotice:
    """An address that answers 200 with something other than FALSE once the notice is out; before that 404 or FALSE.

    `seconds` is what is left where the answer does not say. `token_url` is asked first with PUT for a session token
    (AWS's IMDSv2).
    """

    name: str
    url: str
    seconds: float | None = None
    headers: dict[str, str] = field(default_factory=dict)
    token_url: str | None = None
    poll_seconds: float = POLL_SECONDS

    async def look(self) -> Notice | None:
        """The notice where the address says so. Raises NoticeUnreadable."""
        answer = await ask("GET", self.url, {**self.headers, **await self._token()})
        if answer.status == 404:
            return None
        if answer.status != 200:
            raise NoticeUnreadable(f"{self.url} answers {answer.status}")
        text = answer.text
        if text.strip().upper() in ("", "FALSE", "NONE"):
            return None
        told = _seconds_in(text)
        return Notice(self.url, self.seconds if told is None else told, key=text)

    async def _token(self) -> dict[str, str]:
        if self.token_url is None:
            return {}
        try:
            answer = await ask("PUT", self.token_url, {"X-aws-ec2-metadata-token-ttl-seconds": "300"})
        except NoticeUnreadable as error:
            raise NoticeUnreadable(f"{error}; in a container, set the instance's metadata hop limit to 2") from error
        if answer.status == 404:
            return {}  # the older service (IMDSv1) has no tokens
        if answer.status != 200 or not TOKEN.fullmatch(answer.text.strip()):
            raise NoticeUnreadable(f"{self.token_url} gives no token (status {answer.status}): is the service on?")
        return {"X-aws-ec2-metadata-token": answer.text.strip()}


def parse_source(text: str, poll_seconds: float = POLL_SECONDS) -> NoticeSource:
    """`aws`, `gcp`, `azure`, `file:PATH` or `url:ADDRESS`. Raises ConfigError for anything else."""
    kind, _, rest = text.partition(":")
    if kind == "file" and rest:
        return _file_source(Path(rest), poll_seconds)
    if kind == "url" and rest:
        _check_address(rest)
        return UrlNotice(f"url:{rest}", rest, poll_seconds=poll_seconds)
    if text == "azure":
        return AzureNotice(poll_seconds=poll_seconds)
    presets: dict[str, UrlNotice] = {
        "aws": UrlNotice(
            "aws", f"{AWS}/latest/meta-data/spot/instance-action", AWS_SECONDS, {}, f"{AWS}/latest/api/token"
        ),
        "gcp": UrlNotice("gcp", GCP, GCP_SECONDS, {"Metadata-Flavor": "Google"}),
    }
    if text not in presets:
        raise ConfigError(f"--spot {text!r}: use {CLOUDS}, file:PATH or url:ADDRESS")
    return _cloud(presets[text], poll_seconds)


def _cloud(preset: UrlNotice, poll_seconds: float) -> UrlNotice:
    """The notice may be out for one poll before it is seen: its promise is shorter by that."""
    assert preset.seconds is not None
    if poll_seconds > preset.seconds / 2:
        raise ConfigError(
            f"--spot-poll-seconds {poll_seconds:g}: {preset.name} gives {preset.seconds:g} s of notice; "
            f"ask every {preset.seconds / 2:g} s or more often"
        )
    return replace(preset, seconds=preset.seconds - poll_seconds, poll_seconds=poll_seconds)


def _file_source(path: Path, poll_seconds: float) -> FileNotice:
    if not path.absolute().parent.is_dir():
        raise ConfigError(f"--spot file:{path}: the folder {path.absolute().parent} is not there")
    return FileNotice(path, min(poll_seconds, FILE_POLL_SECONDS))


def _check_address(address: str) -> None:
    try:
        parts = urlsplit(address)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        httpx.URL(address)
    except (ValueError, httpx.InvalidURL):
        good = False
    if not good:
        raise ConfigError(f"--spot url:{address}: expected url:http://HOST[:PORT]/PATH")


def _seconds_in(text: str) -> float | None:
    """Seconds until the end, from `{"seconds": 90}` or AWS's `{"action": .., "time": "2026-..Z"}`; None without."""
    try:
        document = json.loads(text)
        if "seconds" in document:
            seconds = float(document["seconds"])
        else:
            end = datetime.fromisoformat(document["time"]).astimezone(UTC)
            seconds = (end - datetime.now(UTC)).total_seconds()
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None
    return max(0.0, seconds) if math.isfinite(seconds) else None
