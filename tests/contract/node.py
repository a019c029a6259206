"""Promises of the node itself: small endpoints, metrics, cache, and what happens when a client leaves."""

import asyncio
import time

from gateway.core.fleet.node_metrics import read_node_metrics
from gateway.core.fleet.node_metrics_page import SHORT
from tests.contract.client import CHAT, COMPLETIONS, NodeClient


async def small_endpoints(node: NodeClient) -> None:
    """Health, version, models, detokenize, and what is not there."""
    health = await node.http.get("/health")
    assert (health.status_code, health.content) == (200, b"")
    assert list((await node.http.get("/version")).json()) == ["version"]
    card = (await node.http.get("/v1/models")).json()["data"][0]
    assert list(card) == [
        "id", "object", "created", "owned_by", "root", "parent", "max_model_len", "permission"
    ]  # fmt: skip
    tokens = await node.ok("/tokenize", {"model": node.model, "prompt": "hello world, 3 times: é"})
    back = await node.ok("/detokenize", {"model": node.model, "tokens": tokens["tokens"]})
    assert back == {"prompt": "hello world, 3 times: é"}
    assert list(tokens) == ["count", "max_model_len", "tokens", "token_strs"]
    for response in (await node.http.get("/v1/nope"), await node.post("/v1/embeddings", {"input": "x"})):
        assert (response.status_code, response.json()) == (404, {"detail": "Not Found"})
    wrong = await node.http.get(CHAT)
    assert (wrong.status_code, wrong.json(), wrong.headers["allow"]) == (405, {"detail": "Method Not Allowed"}, "POST")


async def metrics(node: NodeClient) -> None:
    """The metrics that a router reads."""
    text = (await node.http.get("/metrics")).text
    for name in (
        "num_requests_running", "num_requests_waiting", "kv_cache_usage_perc", "prefix_cache_queries_total",
        "prefix_cache_hits_total", "num_preemptions_total",
    ):  # fmt: skip
        assert f"\nvllm:{name}{{" in text
    short = await node.http.get(SHORT)
    told = read_node_metrics(short.content, 1.0)
    assert None not in (told.running, told.waiting, told.kv_use, told.generated, told.block, told.started)
    assert len(short.content) < len(text)
    assert "num_preemptions" not in short.text


async def prefix_cache(node: NodeClient) -> None:
    """A prompt that was there before is found in the cache, in whole blocks."""
    words = "and the river runs north along the old stone road to the sea "
    body = {"model": node.model, "prompt": f"{time.time_ns()} {words * 60}", "max_tokens": 1}
    await node.ok(COMPLETIONS, body)
    before = await _metric(node, "prefix_cache_hits_total")
    await node.ok(COMPLETIONS, body)
    assert await _metric(node, "prefix_cache_hits_total") > before


async def client_leaves(node: NodeClient) -> None:
    """Whoever hangs up frees the node before its answer would have ended, on a stream and on a plain call."""
    body = node.ask({"max_tokens": 3000, "ignore_eos": True})
    for stream in (True, False):
        task = asyncio.create_task(node.post(CHAT, {**body, "stream": stream}))
        await _until(node, running=1.0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await _until(node, running=0.0)


async def _until(node: NodeClient, running: float) -> None:
    deadline = time.monotonic() + 10.0
    while await _metric(node, "num_requests_running") != running:
        assert time.monotonic() < deadline, f"running is not {running}"
        await asyncio.sleep(0.02)


async def _metric(node: NodeClient, name: str) -> float:
    text = (await node.http.get("/metrics")).text
    return sum(float(li.rsplit(" ", 1)[1]) for li in text.split("\n") if li.startswith(f"vllm:{name}{{"))
