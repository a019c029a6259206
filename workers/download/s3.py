"""A checkpoint in a bucket of S3, or of whatever speaks its protocol (AWS_ENDPOINT_URL), by boto3 (extra `s3`).

Credentials, region and endpoint come from where every tool for S3 takes them: the environment, ~/.aws, the machine's
role. Large objects come in parts, several at once; a part that breaks is asked for again by the library.
"""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workers.download.notes import found_with_notes
from workers.download.source import INCOMING, Found, Interrupted
from workers.errors import ConfigError, DownloadFailed, MissingTool

URL = re.compile(r"s3://([A-Za-z0-9._-]+)(?:/(.*))?")
CONNECT_SECONDS, READ_SECONDS = 10, 60
MAX_NOTE_BYTES = 10_000_000
PASSING = frozenset({408, 429, 500, 502, 503, 504})


@dataclass(frozen=True, slots=True)
class S3Source:
    """The objects of `bucket` whose keys begin with `prefix` and a slash."""

    bucket: str
    prefix: str
    client: Any

    @property
    def _title(self) -> str:
        return f"s3://{self.bucket}/{self.prefix}".rstrip("/")

    def find(self) -> Found:
        """List the objects. Raises DownloadFailed, Interrupted."""
        start = f"{self.prefix}/" if self.prefix else ""
        with _told(self._title):
            pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=start)
            listed = {o["Key"][len(start) :]: int(o["Size"]) for page in pages for o in page.get("Contents", ())}
            # Consoles keep an empty object for each folder that somebody makes.
            listed = {name: size for name, size in listed.items() if name and not name.endswith("/")}
            return found_with_notes(self._title, listed, self._read)

    def fetch(self, found: Found, folder: Path, workers: int) -> None:
        """Bring what is not there with the same size and time of change. Raises Interrupted, DownloadFailed."""
        from boto3.s3.transfer import TransferConfig, create_transfer_manager

        with _told(self._title):
            wanted = {name: moment for name in found.sizes if (moment := self._wanted(name, folder)) is not None}
            config = TransferConfig(max_concurrency=workers)
            with create_transfer_manager(self.client, config) as manager:
                running = {name: self._start(manager, name, folder) for name in wanted}
                for name, future in running.items():
                    future.result()
                    partial, here = folder / INCOMING / name, folder / name
                    os.utime(partial, (wanted[name], wanted[name]))
                    here.parent.mkdir(parents=True, exist_ok=True)
                    partial.replace(here)

    def _start(self, manager: Any, name: str, folder: Path) -> Any:
        partial = folder / INCOMING / name
        partial.parent.mkdir(parents=True, exist_ok=True)
        return manager.download(self.bucket, self._key(name), str(partial))

    def _wanted(self, name: str, folder: Path) -> float | None:
        """The object's time of change (Unix seconds) where the file here is not it yet, else None."""
        head = self.client.head_object(Bucket=self.bucket, Key=self._key(name))
        changed = float(head["LastModified"].timestamp())
        here = folder / name
        if not here.is_file():
            return changed
        stat = here.stat()
        return None if (stat.st_size, int(stat.st_mtime)) == (head["ContentLength"], int(changed)) else changed

    def _key(self, name: str) -> str:
        return f"{self.prefix}/{name}" if self.prefix else name

    def _read(self, name: str) -> bytes | None:
        answer = self.client.get_object(Bucket=self.bucket, Key=self._key(name))
        return bytes(answer["Body"].read(MAX_NOTE_BYTES))


def s3_source(url: str) -> S3Source:
    """The source of `s3://BUCKET/PREFIX`. Raises ConfigError, MissingTool."""
    found = URL.fullmatch(url.rstrip("/"))
    if found is None:
        raise ConfigError(f"--from {url!r}: expected s3://BUCKET/PREFIX")
    try:
        import boto3
        from botocore.config import Config
        from botocore.exceptions import BotoCoreError
    except ImportError as missing:
        raise MissingTool("--from s3:// needs boto3: pip install 'fleetgate[s3]'") from missing
    config = Config(
        connect_timeout=CONNECT_SECONDS,
        read_timeout=READ_SECONDS,
        retries={"mode": "standard", "max_attempts": 4},
        max_pool_connections=64,
    )
    try:
        client = boto3.client("s3", config=config)
    except (BotoCoreError, ValueError) as error:  # ValueError: an endpoint that is no URL
        raise ConfigError(f"--from {url}: {error}") from error
    return S3Source(found.group(1), (found.group(2) or "").strip("/"), client)


@contextmanager
def _told(title: str) -> Iterator[None]:
    """Say what a fault of the library means: to be tried again (Interrupted), or not (DownloadFailed)."""
    from boto3.exceptions import Boto3Error
    from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError
    from s3transfer.exceptions import RetriesExceededError

    try:
        yield
    except ClientError as error:
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
        raise (Interrupted if status in PASSING else DownloadFailed)(f"{title}: {error}") from error
    except (HTTPClientError, RetriesExceededError) as error:
        raise Interrupted(f"{title}: {error}") from error
    except (BotoCoreError, Boto3Error) as error:
        raise DownloadFailed(f"{title}: {error}") from error
    except ConnectionError as error:
        raise Interrupted(f"{title}: {error}") from error
    except OSError as error:
        raise DownloadFailed(f"{title}: cannot write: {error}") from error
