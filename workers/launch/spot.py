"""Notices that a spot machine is about to be taken away: a file that appears, or a metadata address.

A source is anything with an async `wait`; the cloud presets are addresses with their way of saying it. What each
cloud answers is taken from its documentation; it was tried here against servers of our own that answer so.
"""

import asyncio
import json
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

import httpx

from workers.errors import ConfigError
from workers.launch.watch import poll

POLL_SECONDS = 5.0
METADATA_SECONDS = 2.0
AWS = "http://169.254.169.254"
GCP = "http://metadata.google.internal/computeMetadata/v1/instance/preempted"
AZURE = "http://169.254.169.254/metadata/scheduledevents?api-version=2020-07-01"
# What the clouds promise between notice and end, in seconds.
AWS_SECONDS, GCP_SECONDS, AZURE_SECONDS = 120.0, 30.0, 30.0


@dataclass(frozen=True, slots=True)
class Notice:
    """The machine ends in `seconds` (None: as long as the drain may take)."""

    reason: str
    seconds: float | None = None


class NoticeSource(Protocol):
    """Something that knows when the machine is taken away."""

    async def wait(self) -> Notice:
        """Return when the notice is there. Never returns if none comes; does not raise for a source that is down."""


@dataclass(frozen=True, slots=True)
class FileNotice:
    """A file that appears. It may hold JSON with `seconds`."""

    path: Path
    poll_seconds: float = 0.5

    async def wait(self) -> Notice:
        """Return when the file is there."""

        async def has_appeared() -> bool:
            return self.path.exists()

        await poll(has_appeared, self.poll_seconds)
        return Notice(f"{self.path} appeared", _seconds_in(self.path.read_text()))


@dataclass(frozen=True, slots=True)
class UrlNotice:
    """An address that answers 200 with something other than FALSE once the notice is out; before that 404 or FALSE.

    `token_url` is asked first with PUT for a session token (AWS's IMDSv2). `sign` is text that the answer must hold.
    """

    url: str
    seconds: float | None = None
    headers: dict[str, str] = field(default_factory=dict)
    token_url: str | None = None
    sign: str = ""
    poll_seconds: float = POLL_SECONDS

    async def wait(self) -> Notice:
        """Return when the address says so. A metadata service that does not answer is asked again."""
        async with httpx.AsyncClient(timeout=METADATA_SECONDS, trust_env=False) as client:
            while True:
                text = await self._ask(client)
                if text is not None and self.sign in text and text.strip().upper() not in ("", "FALSE", "NONE"):
                    told = _seconds_in(text)
                    return Notice(self.url, self.seconds if told is None else told)
                await asyncio.sleep(self.poll_seconds)

    async def _ask(self, client: httpx.AsyncClient) -> str | None:
        headers = dict(self.headers)
        try:
            if self.token_url is not None:
                wanted = {"X-aws-ec2-metadata-token-ttl-seconds": "300"}
                headers["X-aws-ec2-metadata-token"] = (await client.put(self.token_url, headers=wanted)).text
            response = await client.get(self.url, headers=headers)
        except httpx.HTTPError:
            return None
        return response.text if response.status_code == 200 else None


def parse_source(text: str, poll_seconds: float = POLL_SECONDS) -> NoticeSource:
    """`aws`, `gcp`, `azure`, `file:PATH` or `url:ADDRESS`. Raises ConfigError for anything else."""
    kind, _, rest = text.partition(":")
    if kind == "file" and rest:
        return FileNotice(Path(rest), min(poll_seconds, 0.5))
    if kind == "url" and rest:
        return UrlNotice(rest, poll_seconds=poll_seconds)
    presets: dict[str, UrlNotice] = {
        "aws": UrlNotice(f"{AWS}/latest/meta-data/spot/instance-action", AWS_SECONDS, {}, f"{AWS}/latest/api/token"),
        "gcp": UrlNotice(GCP, GCP_SECONDS, {"Metadata-Flavor": "Google"}),
        "azure": UrlNotice(AZURE, AZURE_SECONDS, {"Metadata": "true"}, sign="Preempt"),
    }
    if text not in presets:
        raise ConfigError(f"--spot {text!r}: use aws, gcp, azure, file:PATH or url:ADDRESS")
    return replace(presets[text], poll_seconds=poll_seconds)


def _seconds_in(text: str) -> float | None:
    """Seconds until the end, from `{"seconds": 90}` or AWS's `{"action": .., "time": "2026-..Z"}`."""
    try:
        document = json.loads(text)
        if "seconds" in document:
            return float(document["seconds"])
        end = datetime.fromisoformat(document["time"]).astimezone(UTC)
    except (ValueError, KeyError, TypeError):
        return None
    return max(0.0, (end - datetime.now(UTC)).total_seconds())
