"""A scripted node that serves the models a test names, which may change while it runs."""

import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from tests.support.nodes import Asked, Reply, ScriptedNode, answer, listening


@dataclass(slots=True)
class CatalogNode(ScriptedNode):
    """Lists `models` under /v1/models; unhealthy while `healthy` is False. /tokenize and /version are
    replied to like a client's request."""

    models: list[str] = field(default_factory=list)
    healthy: bool = True

    def probed(self, request: Asked) -> bytes | None:
        if request.path == "/health":
            return answer(b"", "200 OK" if self.healthy else "503 Service Unavailable")
        if request.path == "/metrics":
            return answer(b"", "404 Not Found")
        return answer(_listing(self.models)) if request.path == "/v1/models" else None


@contextlib.asynccontextmanager
async def catalog_node(reply: Reply, *models: str) -> AsyncIterator[CatalogNode]:
    """A listening node; its open connections are cut at the end."""
    async with listening(CatalogNode(reply, models=list(models))) as node:
        yield node


def _listing(models: list[str]) -> bytes:
    cards = [{"id": name, "object": "model", "max_model_len": 4096, "root": f"/models/{name}"} for name in models]
    return json.dumps({"object": "list", "data": cards}).encode()
