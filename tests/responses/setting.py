"""Two gateways with thinking budgets before one fake node, which share a Redis; two tenants."""

import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import httpx

from gateway.core.access.api_keys import key_digest
from tests.support.gateways import RunningGateway, running_gateway
from tests.support.meaning import events_of
from tests.support.redis import RedisServer, redis_server
from workers.fake import FakeSettings, serve_fake
from workers.fake.server import FakeNode

MODEL = "nemotron-3-ultra"
RESPONSES = "/v1/responses"
SECRET = "shared between all gateways"
MINE, YOURS = "fg-mine", "fg-yours"
SETTINGS: dict[str, Any] = {
    "tenants": [
        {"name": name, "keys": [{"sha256": key_digest(key).hex()}]} for name, key in (("me", MINE), ("you", YOURS))
    ],
    "thinking": {"default_budget": 8},
    "response_secret": SECRET,
}
Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Setting:
    """`asked` is what a client of the first tenant does, on the gateway of that number."""

    redis: RedisServer
    node: FakeNode
    gateways: list[RunningGateway]
    client: httpx.AsyncClient

    async def ask(
        self, method: str, path: str, body: Json | None = None, at: int = 0, key: str = MINE
    ) -> httpx.Response:
        url = self.gateways[at].url + path
        return await self.client.request(method, url, json=body, headers={"authorization": f"Bearer {key}"})

    async def create(self, given: Any, at: int = 0, key: str = MINE, **fields: Any) -> Json:
        """The response, streamed or plain."""
        told = await self.ask("POST", RESPONSES, {"model": MODEL, "input": given, **fields}, at, key)
        assert told.status_code == 200, told.text
        if not fields.get("stream"):
            return dict(told.json())
        last = events_of(told.content)[-1]
        assert last["type"] in ("response.completed", "response.incomplete"), last
        return dict(last["response"])

    async def get(self, response_id: str, at: int = 0, key: str = MINE, what: str = "") -> httpx.Response:
        return await self.ask("GET", f"{RESPONSES}/{response_id}{what}", None, at, key)

    def keys(self) -> list[bytes]:
        """The conversations that are kept."""
        return sorted(self.redis.do("KEYS", "*:responses:*"))

    def prompt(self) -> list[Json]:
        """The messages of the last chat that the node was asked."""
        chats = [seen for seen in self.node.stats.recent if seen.path == "/v1/chat/completions"]
        return list(json.loads(chats[-1].body)["messages"])


@contextlib.asynccontextmanager
async def setting(
    gateways: int = 2, node: FakeSettings | None = None, redis_timeout: float = 1.0, **settings: Any
) -> AsyncIterator[Setting]:
    async with contextlib.AsyncExitStack() as stack:
        redis = await stack.enter_async_context(redis_server())
        made = node or FakeSettings(responses_store=False, thinking_tokens=12, answer_tokens=6)
        fake = await stack.enter_async_context(serve_fake(made))
        chosen = {**SETTINGS, "redis": {**redis.settings, "timeout": redis_timeout}, **settings}
        running = [await stack.enter_async_context(running_gateway(fake.url, **chosen)) for _ in range(gateways)]
        client = await stack.enter_async_context(httpx.AsyncClient(timeout=30, trust_env=False))
        yield Setting(redis, fake, running, client)


def user(text: str) -> Json:
    return {"role": "user", "content": text}


def code(told: httpx.Response) -> tuple[int, str, str | None]:
    error = told.json()["error"]
    return told.status_code, error["code"], error["param"]
