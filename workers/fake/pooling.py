"""The endpoints of a model that pools: embeddings, reranking, scoring, and the pooler itself.

Figures are functions of the tokens, and of them only: the same texts score the same everywhere.
"""

import hashlib
import time
from collections.abc import Awaitable, Callable
from typing import Any

from workers.fake.errors import Refusal, malformed
from workers.fake.http1 import Exchange
from workers.fake.node import Node
from workers.fake.sampling import check_model
from workers.fake.wire import random_id

_DIMENSIONS = 8

Make = Callable[[Node, dict[str, Any]], tuple[dict[str, Any], list[list[int]]]]
"""Of a body: the members of its answer, and the prompts that were read for it."""


def _serve(make: Make) -> Callable[[Node, Exchange], Awaitable[None]]:
    async def serve(node: Node, exchange: Exchange) -> None:
        data = await node.read_json(exchange)
        check_model(data.get("model"), node.settings)
        made, prompts = make(node, data)
        for prompt in prompts:
            async with node.engine.seat(prompt, data.get("cache_salt") or ""):
                pass
        read = sum(map(len, prompts))
        usage = {"prompt_tokens": read, "total_tokens": read}
        await node.answer(exchange, {"model": node.settings.models[0], **made, "usage": usage})

    return serve


def _embeddings(node: Node, data: dict[str, Any]) -> tuple[dict[str, Any], list[list[int]]]:
    prompts = [node.tokenizer.encode(text) for text in _texts(data, "input")]
    shown = [{"index": at, "object": "embedding", "embedding": _vector(ids)} for at, ids in enumerate(prompts)]
    return {"id": f"embd-{random_id()}", "object": "list", "created": int(time.time()), "data": shown}, prompts


def _pooling(node: Node, data: dict[str, Any]) -> tuple[dict[str, Any], list[list[int]]]:
    prompts = [node.tokenizer.encode(text) for text in _texts(data, "input")]
    shown = [{"index": at, "object": "pooling", "data": [_vector(ids)]} for at, ids in enumerate(prompts)]
    return {"id": f"pool-{random_id()}", "object": "list", "created": int(time.time()), "data": shown}, prompts


def _score(node: Node, data: dict[str, Any]) -> tuple[dict[str, Any], list[list[int]]]:
    first, second = next((pair for pair in _PAIRS if pair[0] in data), _PAIRS[0])
    ones, others = _texts(data, first), _texts(data, second)
    pairs = [node.tokenizer.encode(text) for text in _paired(ones, others)]
    shown = [{"index": at, "object": "score", "score": _vector(ids)[0]} for at, ids in enumerate(pairs)]
    return {"id": f"embd-{random_id()}", "object": "list", "created": int(time.time()), "data": shown}, pairs


def _rerank(node: Node, data: dict[str, Any]) -> tuple[dict[str, Any], list[list[int]]]:
    documents = _texts(data, "documents")
    pairs = [node.tokenizer.encode(text) for text in _paired(_texts(data, "query"), documents)]
    scored = [
        {"index": at, "document": {"text": documents[at]}, "relevance_score": _vector(ids)[0]}
        for at, ids in enumerate(pairs)
    ]
    scored.sort(key=lambda result: -float(result["relevance_score"]))  # type: ignore[arg-type]
    return {"id": f"rerank-{random_id()}", "results": scored[: data.get("top_n") or len(scored)]}, pairs


_PAIRS = (("text_1", "text_2"), ("queries", "documents"), ("data_1", "data_2"))


def _paired(ones: list[str], others: list[str]) -> list[str]:
    """Each text with its partner; a lone one is the partner of all."""
    if len(ones) == 1:
        ones = ones * len(others)
    if len(ones) != len(others):
        raise Refusal(400, "Input lengths must be either 1:1, 1:N or N:N")
    return [f"{one}\n{other}" for one, other in zip(ones, others, strict=True)]


def _texts(data: dict[str, Any], name: str) -> list[str]:
    """A text, or several. Raises Refusal (400)."""
    given = data.get(name)
    texts = [given] if isinstance(given, str) else given
    if isinstance(texts, list) and texts and all(isinstance(text, str) for text in texts):
        return texts
    raise malformed([{"type": "missing", "loc": ("body", name), "msg": "Field required", "input": data}])


def _vector(ids: list[int]) -> list[float]:
    digest = hashlib.sha256(",".join(map(str, ids)).encode()).digest()
    return [byte / 255 for byte in digest[:_DIMENSIONS]]


serve_embeddings = _serve(_embeddings)
serve_pooling = _serve(_pooling)
serve_rerank = _serve(_rerank)
serve_score = _serve(_score)
