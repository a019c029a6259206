"""The endpoints without a stream: models, tokenizer, health, version, metrics."""

import time
from collections.abc import Iterable
from typing import Any
from urllib.parse import parse_qs

from prometheus_client import CollectorRegistry, Gauge, generate_latest
from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector
from pydantic import ValidationError

from workers.fake.chat_job import render_messages
from workers.fake.errors import malformed
from workers.fake.http1 import Exchange
from workers.fake.node import Node
from workers.fake.protocol import Detokenize, TokenizeChat, TokenizePrompt
from workers.fake.sampling import check_model
from workers.fake.wire import answer_json, random_id

_METRICS_TYPE = b"text/plain; version=1.0.0; charset=utf-8"


async def serve_models(node: Node, exchange: Exchange) -> None:
    """GET /v1/models."""
    answer_json(exchange, {"object": "list", "data": [_model_card(node, name) for name in node.settings.models]})


def _model_card(node: Node, name: str) -> dict[str, object]:
    now = int(time.time())
    permission = {
        "id": f"modelperm-{random_id()}",
        "object": "model_permission",
        "created": now,
        "allow_create_engine": False,
        "allow_sampling": True,
        "allow_logprobs": True,
        "allow_search_indices": False,
        "allow_view": True,
        "allow_fine_tuning": False,
        "organization": "*",
        "group": None,
        "is_blocking": False,
    }
    return {
        "id": name,
        "object": "model",
        "created": now,
        "owned_by": "vllm",
        "root": "/models/fake",
        "parent": None,
        "max_model_len": node.settings.max_model_len,
        "permission": [permission],
    }


async def serve_version(node: Node, exchange: Exchange) -> None:
    """GET /version."""
    answer_json(exchange, {"version": node.settings.vllm_version})


async def serve_health(node: Node, exchange: Exchange) -> None:
    """GET /health: 503 during a slow start, an empty 200 else."""
    exchange.answer(200 if node.ready() else 503, b"")


async def serve_tokenize(node: Node, exchange: Exchange) -> None:
    """POST /tokenize: a text, or a conversation as chat would render it."""
    data = await node.read_json(exchange)
    body = read_tokenize(data)
    if isinstance(body, TokenizeChat):
        text = render_messages(
            body.messages,
            body.tools,
            body.chat_template_kwargs,
            body.add_generation_prompt,
            body.continue_final_message,
        )
    else:
        text = body.prompt
    check_model(data.get("model"), node.settings)
    ids = node.tokenizer.encode(text)
    strings = [node.tokenizer.decode([i]) for i in ids] if data.get("return_token_strs") else None
    shown = {"count": len(ids), "max_model_len": node.settings.max_model_len, "tokens": ids}
    answer_json(exchange, {**shown, "token_strs": strings})


def read_tokenize(data: dict[str, Any]) -> TokenizePrompt | TokenizeChat:
    """A text or a conversation; raises Refusal (400) with what is wrong with either."""
    entries: list[Any] = []
    for model in (TokenizePrompt, TokenizeChat):
        try:
            return model.model_validate(data)
        except ValidationError as error:
            entries += [{**e, "loc": ("body", *e["loc"])} for e in error.errors(include_url=False)]
    raise malformed(entries)


async def serve_detokenize(node: Node, exchange: Exchange) -> None:
    """POST /detokenize."""
    data = await node.read_json(exchange)
    body = node.validate(Detokenize, data)
    check_model(body.model, node.settings)
    answer_json(exchange, {"prompt": node.tokenizer.decode(body.tokens)})


async def serve_metrics(node: Node, exchange: Exchange) -> None:
    """GET /metrics: the vllm: names a router reads."""
    exchange.answer(200, generate_latest(_metrics(node)), ((b"content-type", _METRICS_TYPE),))


async def serve_named_metrics(node: Node, exchange: Exchange) -> None:
    """GET /metrics/: those that are asked for by `name[]`, all where none is."""
    metrics: Any = _metrics(node)
    if names := parse_qs(exchange.query).get("name[]"):
        metrics = metrics.restricted_registry(names)
    exchange.answer(200, generate_latest(metrics), ((b"content-type", _METRICS_TYPE),))


def _metrics(node: Node) -> CollectorRegistry:
    engine, name = node.engine, node.settings.models[0]
    registry = CollectorRegistry(auto_describe=True)
    gauges = {
        "vllm:num_requests_running": ("Number of requests in model execution batches.", len(engine.running)),
        "vllm:num_requests_waiting": ("Number of requests waiting to be processed.", len(engine.waiting)),
        "vllm:kv_cache_usage_perc": ("KV-cache usage. 1 means 100 percent usage.", engine.kv_usage),
    }
    counters = {
        "vllm:prefix_cache_queries": ("Prefix cache queries, in queried tokens.", engine.cache.queries),
        "vllm:prefix_cache_hits": ("Prefix cache hits, in cached tokens.", engine.cache.hits),
        "vllm:num_preemptions": ("Cumulative number of preemptions.", 0),
        "vllm:prompt_tokens": ("Number of prefill tokens processed.", engine.prompt_tokens),
        "vllm:generation_tokens": ("Number of generation tokens processed.", engine.generated),
    }
    labels = ("model_name", "engine")
    for metric, (text, value) in gauges.items():
        Gauge(metric, text, labels, registry=registry).labels(name, "0").set(value)
    cache = Gauge(
        "vllm:cache_config_info",
        "Information of the LLMEngine CacheConfig",
        ("block_size", "num_gpu_blocks", "engine"),
        registry=registry,
    )
    cache.labels(str(node.settings.block_size), str(node.settings.capacity), "0").set(1)
    families = _Families()
    for metric, (text, value) in counters.items():
        families.add(CounterMetricFamily(metric, text, labels=labels)).add_metric((name, "0"), value, engine.began)
    success = CounterMetricFamily(
        "vllm:request_success", "Count of processed requests.", labels=(*labels, "finished_reason")
    )
    families.add(success)
    success.add_metric((name, "0", "stop"), engine.finished, engine.began)
    success.add_metric((name, "0", "abort"), engine.aborted, engine.began)
    registry.register(families)
    return registry


class _Families(Collector):
    """Counters that were created when the engine began, and not with the page: gateways take another time of creation
    for another process."""

    def __init__(self) -> None:
        self._made: list[CounterMetricFamily] = []

    def add(self, family: CounterMetricFamily) -> CounterMetricFamily:
        self._made.append(family)
        return family

    def collect(self) -> Iterable[CounterMetricFamily]:
        return self._made
