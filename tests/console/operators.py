"""An operator without a browser: signs in, and reads the console's events."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx

from tests.console.chromium import TOKEN


@asynccontextmanager
async def operator(admin_url: str, person: str = "Ada", token: str = TOKEN) -> AsyncIterator[httpx.AsyncClient]:
    """A client with a session; it sends Origin, as browsers do."""
    async with httpx.AsyncClient(
        base_url=admin_url, headers={"origin": admin_url}, timeout=60, trust_env=False
    ) as client:
        got = await client.post("/console/session", json={"name": person, "token": token})
        assert got.status_code == 200, got.text
        yield client


class Seen:
    """What a viewer knows: the tables by the changes that it was sent."""

    def __init__(self) -> None:
        self.events = 0
        self.facts: dict[str, Any] = {}
        self.tables: dict[str, dict[Any, dict[str, Any]]] = {}
        self.steps: dict[str, dict[int, list[int]]] = {}
        self.measures: list[str] = []
        self._columns: dict[str, list[str]] = {}

    def take(self, name: str, told: dict[str, Any]) -> None:
        self.events += 1
        self.facts = told.get("facts", self.facts)
        if name == "snapshot":
            for table in ("nodes", "models", "tenants", "requests", "errors"):
                self._columns[table] = told[table]["columns"]
                self.tables[table] = {row[0]: self._read(table, row) for row in told[table]["rows"]}
            self.measures = told["history"]["measures"]
        for table in self.tables if name == "delta" else ():
            changed = told.get(table, {})
            for key in changed.get("gone", ()):
                self.tables[table].pop(key)
            self.tables[table] |= {row[0]: self._read(table, row) for row in changed.get("set", ())}
        steps = told.get("history", {}) if name == "delta" else told["history"]["models"]
        for model, changed_steps in steps.items():
            self.steps.setdefault(model, {}).update({step[0]: step[1:] for step in changed_steps})

    def total(self, measure: str) -> int:
        """Of all models in the last hour."""
        at = self.measures.index(measure)
        return sum(step[at] for steps in self.steps.values() for step in steps.values() if len(step) > at)

    def _read(self, table: str, row: list[Any]) -> dict[str, Any]:
        return dict(zip(self._columns[table], row, strict=True))


async def events(client: httpx.AsyncClient) -> AsyncIterator[tuple[str, dict[str, Any]]]:
    """The events of a console that is open, as they come."""
    async with client.stream("GET", "/console/live") as stream:
        assert stream.status_code == 200, await stream.aread()
        name = ""
        async for line in stream.aiter_lines():
            if line.startswith("event: "):
                name = line.removeprefix("event: ")
            elif line.startswith("data: "):
                yield name, json.loads(line.removeprefix("data: "))


@asynccontextmanager
async def watching(client: httpx.AsyncClient) -> AsyncIterator[Seen]:
    """What a console sees, kept up to date. Fails where its stream ends."""
    seen = Seen()

    async def read() -> None:
        async for name, told in events(client):
            seen.take(name, told)

    task = asyncio.create_task(read())
    try:
        yield seen
        assert not task.done(), task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
