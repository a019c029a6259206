"""Reads tenants, keys, blocks and usage out of Redis as the lines of an export, page by page."""

import asyncio
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import orjson

from gateway.access.blocks import Blocks
from gateway.access.directory import Directory
from gateway.core.access.export_format import end_line, failed_line, header_line, line_of
from gateway.redis.client import RedisUnavailable, ScriptFailed
from gateway.usage.report import TooManyRows
from gateway.usage.transfer import UsageTransfer

PAGE, PAGE_BYTES = 100, 256 * 1024
"""Lines that are handed on together, or as many as have so many bytes."""


class Export:
    """Everything that an import needs. What is not kept here is None, and left out."""

    def __init__(self, blocks: Blocks | None, directory: Directory | None, usage: UsageTransfer | None) -> None:
        self._blocks = blocks
        self._directory = directory
        self._usage = usage

    async def pages(self, since: float | None) -> AsyncIterator[bytes]:
        """Lines, some at a time. `since`: usage of before that time (seconds since 1970) is left out; None: all usage.
        Raises `RedisUnavailable` before the first page only; later, the last line tells it."""
        records = unreadable = 0
        waiting = [header_line(datetime.fromtimestamp(time.time(), UTC).isoformat(timespec="seconds"))]
        begun, size = False, 0
        try:
            async for entry in self._entries(since):
                if entry is None:
                    unreadable += 1
                    continue
                waiting.append(line_of(entry))
                records += 1
                size += len(waiting[-1])
                if len(waiting) >= PAGE or size >= PAGE_BYTES:
                    begun = True
                    yield b"".join(waiting)
                    waiting, size = [], 0
                    await asyncio.sleep(0)  # let requests run
            waiting.append(end_line(records, unreadable))
        except (RedisUnavailable, ScriptFailed) as error:
            if not begun:
                raise
            waiting.append(failed_line(f"Redis: {error}"))
        except TooManyRows:
            waiting.append(failed_line("one tenant has too many sums in one hour or day"))
        yield b"".join(waiting)

    async def _entries(self, since: float | None) -> AsyncIterator[dict[str, Any] | None]:
        """None for what is no record."""
        for block in await self._blocks.all() if self._blocks is not None else ():
            yield {"kind": "block", **block._asdict()}
        if self._directory is not None:
            async for name, raw in self._directory.raw_tenants():
                yield _entry("tenant", "name", name, raw)
            async for id, raw in self._directory.raw_keys():
                yield _entry("key", "id", id, raw)
        if self._usage is not None:
            async for entry in self._usage.entries(since):
                yield {"kind": "usage", **entry}


def _entry(kind: str, named: str, name: str, raw: bytes) -> dict[str, Any] | None:
    try:
        record = orjson.loads(raw)
    except ValueError:
        return None
    return {"kind": kind, named: name, "record": record} if isinstance(record, dict) else None
