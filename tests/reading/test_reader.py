"""The process that reads bodies: whose answer is whose, and what happens when it, or who asked, is gone."""

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from gateway.core.dialects import DIALECTS
from gateway.core.errors import BodyUnread
from gateway.core.reading.outlining import Outlined, Refusal
from gateway.reading.reader import BodyReader
from tests.support.gateways import eventually

CHAT = DIALECTS[0]
MORE_THAN_A_PIPE = 50_000
"""Messages whose bytes a process that is stopped cannot take."""


@contextlib.asynccontextmanager
async def reading() -> AsyncIterator[BodyReader]:
    reader = BodyReader()
    try:
        yield reader
    finally:
        await reader.stop()


def body(model: str, values: int = 10) -> bytes:
    return orjson.dumps({"model": model, "messages": [{"role": "user", "content": "a"}] * values})


async def model_of(reader: BodyReader, model: str, owner: str = "acme", values: int = 10) -> str:
    found = await reader.read(CHAT, body(model, values), owner)
    assert isinstance(found, Outlined) and len(found.fields["messages"]) == min(values, 33)
    return str(found.fields["model"])


async def test_everybody_gets_the_answer_to_their_own_body() -> None:
    async with reading() as reader:
        names = [f"m{number}" for number in range(20)]
        found = await asyncio.gather(*(model_of(reader, name, name[:2], 1000) for name in names))
        assert found == names
        refused = await reader.read(CHAT, b"[", "acme")
        assert isinstance(refused, Refusal) and refused.code == "invalid_json"


async def test_a_process_that_is_killed_fails_one_body_and_is_replaced() -> None:
    async with reading() as reader:
        assert await model_of(reader, "a") == "a"
        first = reader.pid
        assert first is not None
        os.kill(first, signal.SIGSTOP)  # so that it cannot be done before it is killed
        lost = asyncio.create_task(model_of(reader, "b", values=MORE_THAN_A_PIPE))
        await eventually(lambda: reader.unwritten > 0)
        waiting = asyncio.create_task(model_of(reader, "c", "another"))
        await asyncio.sleep(0)
        os.kill(first, signal.SIGKILL)
        with pytest.raises(BodyUnread):
            await lost
        assert await waiting == "c"
        assert reader.pid not in (None, first)
        second = reader.pid
        assert second is not None
        os.kill(second, signal.SIGKILL)  # while it is idle: noticed at the latest by the next body
        with contextlib.suppress(BodyUnread):
            await model_of(reader, "d")
        assert await model_of(reader, "e") == "e"


async def test_whoever_leaves_takes_nobody_elses_answer() -> None:
    async with reading() as reader:
        assert await model_of(reader, "a") == "a"
        pid = reader.pid
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
        left = asyncio.create_task(model_of(reader, "b", values=MORE_THAN_A_PIPE))
        await eventually(lambda: reader.unwritten > 0)
        queued = asyncio.create_task(model_of(reader, "c"))
        staying = asyncio.create_task(model_of(reader, "d", "another"))
        await asyncio.sleep(0)
        for task in (left, queued):
            task.cancel()
        await asyncio.gather(left, queued, return_exceptions=True)
        os.kill(pid, signal.SIGCONT)
        assert await staying == "d"
        assert reader.pid == pid


async def test_it_ends_with_its_gateway_and_ignores_a_terminals_signals() -> None:
    async with reading() as reader:
        assert await model_of(reader, "a") == "a"
        pid = reader.pid
        assert pid is not None
        os.kill(pid, signal.SIGINT)
        os.kill(pid, signal.SIGTERM)
        assert await model_of(reader, "b") == "b" and reader.pid == pid
        os.kill(pid, signal.SIGSTOP)
        open_read = asyncio.create_task(model_of(reader, "c", values=MORE_THAN_A_PIPE))
        await eventually(lambda: reader.unwritten > 0)
        await reader.stop()
        with pytest.raises(BodyUnread):
            await open_read
        with pytest.raises(BodyUnread):
            await model_of(reader, "d")
        await eventually(lambda: not os.path.exists(f"/proc/{pid}"))  # noqa: PTH110


async def test_it_imports_nothing_from_the_directory_that_its_gateway_was_started_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("json", "marshal", "orjson", "gateway"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit(1)")
    monkeypatch.chdir(tmp_path)
    async with reading() as reader:
        assert await model_of(reader, "a") == "a"


async def test_a_process_that_starts_while_the_gateway_stops_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    begun, proceed = asyncio.Event(), asyncio.Event()
    started: list[asyncio.subprocess.Process] = []
    start = asyncio.create_subprocess_exec

    async def slowly(*command: str, **options: Any) -> asyncio.subprocess.Process:
        begun.set()
        await proceed.wait()
        started.append(await start(*command, **options))
        return started[0]

    monkeypatch.setattr(asyncio, "create_subprocess_exec", slowly)
    reader = BodyReader()
    asked = asyncio.create_task(model_of(reader, "a"))
    await begun.wait()
    stopping = asyncio.create_task(reader.stop())
    await asyncio.sleep(0)
    proceed.set()
    try:
        await stopping
        with pytest.raises(BodyUnread):
            await asked
        assert reader.pid is None and started[0].returncode == -signal.SIGKILL
    finally:
        await reader.stop()
