"""A plain HTTP client for the contract: whole answers, and the events of a stream as they came."""

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
USAGE = {"include_usage": True}
QUESTION = [{"role": "user", "content": "What is the capital of France? Tell me about it."}]


@dataclass(frozen=True, slots=True)
class Event:
    """One SSE event: its name (empty where it has none) and its data as text."""

    name: str
    data: str

    @property
    def json(self) -> dict[str, Any]:
        """The data as JSON."""
        shown: dict[str, Any] = json.loads(self.data)
        return shown


@dataclass(frozen=True, slots=True)
class Stream:
    """A whole stream: head and events."""

    status: int
    headers: Mapping[str, str]
    events: tuple[Event, ...]
    chunks: tuple[dict[str, Any], ...] = field(default=())

    def joined(self, member: str, index: int = 0) -> str:
        """A delta member's text over all chunks of one choice."""
        choices = (c for chunk in self.chunks for c in chunk["choices"] if c["index"] == index)
        return "".join(c["delta"].get(member) or "" for c in choices)

    def token_ids(self) -> list[int]:
        """The token ids of all chunks."""
        return [i for chunk in self.chunks for c in chunk["choices"] for i in c.get("token_ids") or ()]


@dataclass(frozen=True, slots=True)
class NodeClient:
    """Talks to one node. `model` is the name it serves first."""

    http: httpx.AsyncClient
    model: str

    async def post(self, path: str, body: Any) -> httpx.Response:
        """A POST of a JSON body."""
        return await self.http.post(path, json=body)

    async def ok(self, path: str, body: Any) -> dict[str, Any]:
        """The JSON of an answer that must be 200."""
        response = await self.post(path, body)
        assert response.status_code == 200, response.text
        shown: dict[str, Any] = response.json()
        return shown

    async def chat(self, **fields: Any) -> dict[str, Any]:
        """A plain chat answer on the question, at temperature 0."""
        return await self.ok("/v1/chat/completions", self.ask(fields))

    def ask(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        """A chat body on the question, at temperature 0."""
        return {"model": self.model, "messages": QUESTION, "temperature": 0, "max_tokens": 60, **fields}

    async def stream(self, path: str, body: Mapping[str, Any]) -> Stream:
        """A whole stream; every event but `[DONE]` must be JSON."""
        async with self.http.stream("POST", path, json={**body, "stream": True}) as response:
            text = (await response.aread()).decode()
        events = tuple(read_events(text))
        chunks = tuple(e.json for e in events if e.data != "[DONE]")
        return Stream(response.status_code, response.headers, events, chunks)

    async def chat_stream(self, **fields: Any) -> Stream:
        """A chat stream on the question, at temperature 0."""
        return await self.stream("/v1/chat/completions", self.ask(fields))


def read_events(text: str) -> list[Event]:
    """SSE text as events; comments are left out, and every event must end in a blank line."""
    assert text.endswith("\n\n") or not text
    events = []
    for block in text.split("\n\n"):
        name, data = "", []
        for line in block.split("\n"):
            if line.startswith("event: "):
                name = line[7:]
            elif line.startswith("data: "):
                data.append(line[6:])
        if data:
            events.append(Event(name, "\n".join(data)))
    return events


@asynccontextmanager
async def node_client(url: str, timeout: float = 120.0) -> AsyncIterator[NodeClient]:
    """A client of the node at `url`; `timeout` in seconds (a real node compiles at first)."""
    async with httpx.AsyncClient(base_url=url, timeout=timeout) as http:
        models = (await http.get("/v1/models")).json()
        yield NodeClient(http, models["data"][0]["id"])
