"""The control route: faults and settings by POST, counts by GET (docs/fake-node.md)."""

import json
from dataclasses import asdict, replace
from typing import Any

from workers.fake.faults import read_fault
from workers.fake.http1 import Exchange
from workers.fake.node import Node
from workers.fake.wire import answer_json

# What can be changed while the node runs: nothing that the cache or the listener was built with.
_CHANGEABLE = frozenset(
    {
        "rate",
        "prefill_rate",
        "max_num_seqs",
        "tokens_per_event",
        "thinking_tokens",
        "answer_tokens",
        "budget",
        "tool_parser",
        "reasoning_field",
        "reasoning_parser",
        "prompt_tokens_details",
        "max_model_len",
        "version",
    }
)


async def serve_control(node: Node, exchange: Exchange) -> None:
    """GET: what is in force. POST {"faults": [...], "add": [...], "settings": {...}, "reset": true}."""
    if exchange.method == "POST":
        try:
            apply_control(node, json.loads(await exchange.read() or b"{}"))
        except (ValueError, TypeError) as error:
            return answer_json(exchange, {"error": str(error)}, 400)
    return answer_json(exchange, {"faults": node.faults.snapshot(), "settings": _shown(node)})


def apply_control(node: Node, wish: dict[str, Any]) -> None:
    """Changes faults and settings. Raises ValueError or TypeError for what does not exist."""
    settings = wish.get("settings") or {}
    unknown = settings.keys() - _CHANGEABLE
    if unknown:
        raise ValueError(f"cannot change {sorted(unknown)}")
    faults = [read_fault(f) for f in wish.get("faults") or ()]
    added = [read_fault(f) for f in wish.get("add") or ()]
    if "faults" in wish:
        node.faults.set(*faults)
    for fault in added:
        node.faults.add(fault)
    if settings:
        node.change(replace(node.settings, **settings))
    if wish.get("reset"):
        node.stats.reset()
    node.on_faults()


def _shown(node: Node) -> dict[str, Any]:
    shown = asdict(node.settings)
    return {k: v for k, v in shown.items() if k in _CHANGEABLE}


async def serve_stats(node: Node, exchange: Exchange) -> None:
    """GET: requests seen, the last ones as they came, what runs, what was aborted."""
    engine, stats = node.engine, node.stats
    recent = [seen.shown() for seen in stats.recent]
    shown = {
        "requests": dict(stats.requests),
        "running": len(engine.running),
        "waiting": len(engine.waiting),
        "finished": engine.finished,
        "aborted": engine.aborted,
        "broken": engine.broken,
        "connections": node.count_connections(),
        "prompt_tokens": engine.prompt_tokens,
        "generation_tokens": engine.generation_tokens,
        "prefix_cache": {"queries": engine.cache.queries, "hits": engine.cache.hits, "blocks": len(engine.cache)},
        "last": recent[-1] if recent else None,
        "recent": recent,
    }
    answer_json(exchange, shown)
