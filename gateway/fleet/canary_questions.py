"""The canary's requests to a node, and what its answers show."""

import asyncio
import re
from typing import Any

from gateway.core.budgets.continuation import END_TEXT
from gateway.core.fleet.capabilities import Capabilities
from gateway.core.http.sse import EventSplitter, event_data, split_events
from gateway.core.json_text import parse_object
from gateway.fleet.node_client import NodeClient, NodeRequestError
from gateway.fleet.node_connection import MAX_ANSWER

BUDGET = 4
"""Thinking tokens that the node is allowed: fewer than a model uses by itself for `QUESTION`."""

ANSWER = 24
"""Tokens that it may generate after thinking."""

QUESTION = "Plan a three-day trip to Paris, step by step, and compare two ways to travel there."

MOST_IDS = 1 << 31
"""Token ids are below this."""

PROOF_SECONDS = 120.0
"""Seconds that one request may take. A node that is too busy is proven after its next start."""


class StreamFindings:
    """What one streamed answer shows. `reasoning` in tokens; `split`: a parser has split it off (None: unclear)."""

    def __init__(self, status: int, end: tuple[int, ...], opened: bool) -> None:
        self.status = status
        self.reasoning = 0
        self.split: bool | None = None
        self.answered = False
        """Whether there was text after the thinking."""
        self._end = end
        self._open = opened

    @property
    def obeyed(self) -> bool:
        """Whether it kept to `BUDGET`, if that was set."""
        return self.status == 200 and self.reasoning <= BUDGET + 1 and self.answered

    def add(self, choice: dict[str, Any]) -> None:
        """Add one choice of one chunk."""
        delta = choice.get("delta") or {}
        thought = bool(delta.get("reasoning") or delta.get("reasoning_content"))
        text = bool((delta.get("content") or "").strip())
        ids = choice.get("token_ids") or []
        ended = len(self._end) == 1 and self._end[0] in ids
        if thought and self.split is None:
            self.split = True
        if text and self._open and not ended and self.split is None:
            self.split = False
        if self._open:
            before = ids.index(self._end[0]) if ended else len(ids)
            thinking = thought or self.split is False or not text
            self.reasoning += before if thinking else 0
        if ended or (text and self.split):
            self._open = False
        if text and not self._open:
            self.answered = True


async def read_version(client: NodeClient) -> tuple[int, ...] | None:
    answer = await client.get("/version")
    version = answer.json().get("version") if answer.status == 200 else None
    if not isinstance(version, str):
        return None
    return tuple(int(part) for part in re.findall(r"[0-9]{1,9}", version[:64])[:3]) or None


async def tokenize(client: NodeClient, model: str, text: str) -> tuple[int, ...]:
    """The token ids of `text`; none where the node does not say."""
    answer = await client.post("/tokenize", {"model": model, "prompt": text, "add_special_tokens": False})
    ids = answer.json().get("tokens") if answer.status == 200 else None
    if not isinstance(ids, list) or not all(type(item) is int and 0 <= item < MOST_IDS for item in ids):
        return ()
    return tuple(ids) if len(ids) <= len(text) else ()


async def ask_with_budget(client: NodeClient, model: str, known: Capabilities) -> dict[str, Any]:
    seen = await think(client, model, known, {"thinking_token_budget": BUDGET})
    found: dict[str, Any] = {"native_budget": seen.obeyed}
    return found if seen.split is None else {**found, "splits_reasoning": seen.split}


async def ask_with_thinking_off(client: NodeClient, model: str, known: Capabilities) -> dict[str, Any]:
    """With thinking off the template closes it: all that comes is the answer, and one must come."""
    seen = await think(client, model, known, {"chat_template_kwargs": {"enable_thinking": False}}, opened=False)
    return {"native_off": seen.split is not True and seen.answered} if seen.status == 200 else {}


async def think(
    client: NodeClient, model: str, known: Capabilities, fields: dict[str, Any], opened: bool = True
) -> StreamFindings:
    """One short chat. `opened`: thinking is open when the answer begins."""
    body = {
        "model": model,
        "messages": [{"role": "user", "content": QUESTION}],
        "max_tokens": BUDGET + ANSWER,
        "temperature": 0,
        "stream": True,
        "return_token_ids": True,
        **fields,
    }
    async with asyncio.timeout(PROOF_SECONDS):
        answer = await client.post("/v1/chat/completions", body)
    seen = StreamFindings(answer.status, known.think_end, opened)
    if answer.status >= 500:
        raise NodeRequestError(f"/v1/chat/completions answered {answer.status}")
    for event in split_events(EventSplitter(MAX_ANSWER).feed(answer.body)):
        if b"{" in event:
            _see(seen, parse_object(event_data(event)))
    return seen


def _see(seen: StreamFindings, chunk: dict[str, Any]) -> None:
    if chunk.get("error"):
        seen.status = _status_of(chunk["error"])
    for choice in chunk.get("choices") or ():
        seen.add(choice)


def _status_of(error: Any) -> int:
    """The status that an error stands for which came in a stream, 200 notwithstanding; raises what is not a refusal."""
    code = error.get("code") if isinstance(error, dict) else None
    if type(code) is int and 400 <= code < 500:
        return code
    raise NodeRequestError(f"an error came in mid-stream: {str(error)[:200]!r}")


async def shows_marker(client: NodeClient, model: str, known: Capabilities) -> bool | None:
    """Whether raw text shows the end marker: the model is allowed no other token."""
    if len(known.think_end) != 1:
        return None
    body = {"model": model, "prompt": "1", "max_tokens": 1, "allowed_token_ids": list(known.think_end)}
    answer = await client.post("/v1/completions", body, PROOF_SECONDS)
    try:
        return END_TEXT in answer.json()["choices"][0]["text"] if answer.status == 200 else None
    except (KeyError, TypeError, IndexError):
        return None


async def stores_responses(client: NodeClient, model: str) -> bool | None:
    """Whether it keeps responses. The request is for background work on top of a response that nobody has made: a node
    without a store refuses the background, before it looks for the response. Nothing is generated."""
    body = {
        "model": model,
        "input": QUESTION,
        "background": True,
        "previous_response_id": "resp_that_nobody_made",
        "max_output_tokens": 1,
    }
    answer = await client.post("/v1/responses", body, PROOF_SECONDS)
    if answer.status == 404:
        return True
    try:
        refused = answer.status == 400 and answer.json()["error"]["param"] == "background"
    except (KeyError, TypeError, IndexError, ValueError):
        return None
    return False if refused else None
