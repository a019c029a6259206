"""What an answer means in responses or messages, whoever wrote it: for comparing a node's own with one over chat.

Left out are what no two answers have in common (ids, times, signatures, sequence numbers), how a text is cut into
deltas, the order of fields, and members that are null or empty, which say as much as absent ones. The differences that
docs/api.md permits for answers over chat are left out by name. How a response ends that ran into its limit is told as
vLLM tells it since 0.33.
"""

import json
import re
from collections.abc import Mapping
from typing import Any

PERMITTED = {
    "cached_tokens": "a node tells them in chat only with --enable-prompt-tokens-details",
    "cache_write_tokens": "the same",
    "thinking_tokens": "no node counts them in messages",
    "frequency_penalty": "the node's default where the request has none",
    "presence_penalty": "the node's default where the request has none",
    "temperature": "the node's default where the request has none",
    "top_p": "the node's default where the request has none",
    "store": "only the gateway says whether a response was stored",
    "max_output_tokens": "the node's default where neither the request nor a rule has one",
}
_IDS = re.compile(r'"(id|item_id|call_id|signature)": ?"([^"]{12,})"')
_VOLATILE = ("created_at", "sequence_number", "kv_transfer_params", "ec_transfer_params", "signature")


def events_of(stream: bytes) -> list[dict[str, Any]]:
    """The data of an event stream's events."""
    lines = (line for line in stream.decode().split("\n") if line.startswith("data: "))
    return [json.loads(line[6:]) for line in lines]


def meaning(answer: list[dict[str, Any]] | dict[str, Any]) -> list[str]:
    """One line an event (or one for a plain answer), equal where two answers mean the same."""
    parts = _ended_as_today(_merged(answer) if isinstance(answer, list) else [answer])
    return _without_ids("\n".join(json.dumps(_clean(part), sort_keys=True) for part in parts)).split("\n")


def _ended_as_today(parts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A response that ran into its limit ends with `response.incomplete`, and its last item is incomplete; before vLLM
    0.33 both are said to be completed."""
    end = parts[-1]
    whole = end.get("response", end)
    if not isinstance(whole, dict) or whole.get("status") != "incomplete":
        return parts
    ended = {**whole, "output": [*whole["output"][:-1], *map(_cut, whole["output"][-1:])]}
    if whole is end:
        return [ended]
    before = parts[:-1]
    if "item" in before[-1]:
        before[-1] = {**before[-1], "item": _cut(before[-1]["item"])}
    return [*before, {**end, "type": "response.incomplete", "response": ended}]


def _cut(item: dict[str, Any]) -> dict[str, Any]:
    return {**item, "status": "incomplete"} if item.get("status") == "completed" else item


def _merged(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Neighbouring deltas of one kind as one."""
    merged: list[dict[str, Any]] = []
    for event in events:
        last = merged[-1] if merged else {}
        if _key(event) == _key(last) and _is_piece(event):
            merged[-1] = {**last, "delta": _sum(last["delta"], event["delta"])}
            if "logprobs" in event:
                merged[-1]["logprobs"] = last["logprobs"] + event["logprobs"]
        else:
            merged.append(event)
    return merged


def _key(event: Mapping[str, Any]) -> tuple[Any, ...]:
    delta = event.get("delta")
    kind = delta.get("type") if isinstance(delta, dict) else None
    return event.get("type"), event.get("item_id"), event.get("index"), kind


def _is_piece(event: Mapping[str, Any]) -> bool:
    return event["type"] in ("content_block_delta",) or event["type"].endswith(".delta")


def _sum(first: Any, second: Any) -> Any:
    if isinstance(first, str):
        return first + second
    return {name: first[name] if name == "type" else first[name] + second[name] for name in first}


def _clean(value: Any) -> Any:
    if isinstance(value, dict):
        kept = {name: _clean(item) for name, item in value.items() if name not in _VOLATILE and name not in PERMITTED}
        return {name: item for name, item in kept.items() if item not in (None, [], {}, "")}
    return [_clean(item) for item in value] if isinstance(value, list) else value


def _without_ids(text: str) -> str:
    """Every id as the number of its first appearance, so that references stay references."""
    seen: dict[str, int] = {}
    return _IDS.sub(lambda match: f'"{match[1]}": {seen.setdefault(match[2], len(seen))}', text)
