"""What a node can do, found out by asking it: once after each of its starts, before and beside users' requests.

A node's documentation says little here: one takes a thinking budget and thinks on, one refuses it, one dies of it.
So a node is asked for a few tokens with a small budget, and what it did is counted.

    learn   /version and /tokenize: before the node is ready, since the gateway needs the markers' ids to hold a
            budget itself. No tokens are made.
    prove   a chat with a small budget, one with thinking off, and the marker as raw text: about 50 tokens. The node
            serves meanwhile; until it is proven, the gateway holds the budgets.

    recheck the chat with a small budget once more, where a request overran one: a client is no witness, and one odd
            answer no proof. The node is trusted meanwhile (the backstop cuts what overruns), and one that lost its
            trust so is asked again later, and gets it back.

A node that dies while it is asked is not asked again for `FIRST_PAUSE` seconds, twice as long after each death, until
its version changes: else the question would kill it at every start. Meanwhile it serves, and the gateway enforces.
"""

import asyncio
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import httpx

from gateway.core.budgets.continuation import END_TEXT, START_TEXT
from gateway.core.fleet.capabilities import UNKNOWN, Capabilities
from gateway.core.http.sse import EventSplitter, event_data, split_events
from gateway.core.json_text import parse_object
from gateway.fleet.node_client import MAX_ANSWER, get, pieces, post

BUDGET = 4
"""Tokens of thinking that the node is allowed: fewer than a model thinks by itself about `QUESTION`."""

ANSWER = 24
"""Tokens that it may make after thinking."""

QUESTION = "Plan a three-day trip to Paris, step by step, and compare two ways to travel there."
MOST_IDS = 1 << 31
"""Token ids are below this."""

FIRST_PAUSE, LONGEST_PAUSE = 600.0, 86_400.0
RECHECK_PAUSE, LONGEST_RECHECK_PAUSE = 30.0, 1800.0
"""Seconds between two rechecks; the pause doubles where the node goes on not holding budgets."""

_REFUSALS = (400, 422)
"""How a node says that it takes no budgets; whatever else goes wrong says nothing of them."""

PROOF_SECONDS = 120.0
"""How long one question may take; a node that is only busy is asked again at its next start."""


class Canary:
    """What one node was asked and what came of it. Times are loop time, in seconds."""

    def __init__(self) -> None:
        self.capabilities = UNKNOWN
        self.learnt = False
        self._asked = False
        self._pause = FIRST_PAUSE
        self._not_before = 0.0
        self.starts = 0  # how often the node has started anew
        self._lost = False  # it had proven to hold budgets, and was found not to
        self._rechecking = False
        self._rechecked = 0  # the start that the recheck is about
        self._next_recheck = 0.0
        self._recheck_pause = RECHECK_PAUSE

    def restarted(self) -> None:
        """The node was away, or says that it began anew: nothing that was found holds any more."""
        self.learnt = self._asked = False
        self.starts += 1

    @property
    def due(self) -> bool:
        """Whether the node has yet to be asked since it started."""
        return self.learnt and not self._asked

    async def read_capabilities(
        self, client: httpx.AsyncClient, cards: Mapping[str, Mapping[str, Any]]
    ) -> Capabilities:
        """Its version, the markers' token ids and its window: for the models in `cards`."""
        before = self.capabilities
        version = await _version(client)
        if before.version is not None and version != before.version:
            self._not_before, self._pause = 0.0, FIRST_PAUSE
        model = next(iter(cards), "")
        window = cards.get(model, {}).get("max_model_len")  # see `cards`: a length that can be one, or None
        self.capabilities = Capabilities(
            version=version,
            think_start=await _tokens(client, model, START_TEXT),
            think_end=await _tokens(client, model, END_TEXT),
            window=window if type(window) is int else None,
        )
        self.learnt = True
        return self.capabilities

    async def prove(self, client: httpx.AsyncClient, model: str, now: float) -> Capabilities:
        """Ask for tokens; `abilities` is complete afterwards, as far as the node answered."""
        self._asked = True
        self._lost = False
        start, found = self.starts, self.capabilities
        found = replace(found, **await _ask_with_thinking_off(client, model, found))
        if now >= self._not_before:
            self._not_before = now + self._pause  # should it die of the next question
            found = replace(found, native_budget=False)
            self._keep(found, start)
            found = replace(found, **await _ask_with_budget(client, model, found))
            self._not_before = 0.0
        else:
            found = replace(found, native_budget=False)
        if found.splits_reasoning is None:
            found = replace(found, splits_reasoning=(await _think(client, model, found, {})).split)
        self._keep(replace(found, marker_shown=await _shows_marker(client, model, found)), start)
        return self.capabilities

    def _keep(self, found: Capabilities, start: int) -> None:
        """What was found of the process that began as `start`; nothing where another one has followed it."""
        if self.starts == start:
            self.capabilities = found

    def begin_recheck(self, now: float, suspected: bool) -> bool:
        """Whether it should be asked for a budget again; if so `end_recheck` must follow."""
        if self._rechecking or not (suspected or self._lost) or now < max(self._next_recheck, self._not_before):
            return False
        self._rechecking = True
        self._rechecked = self.starts
        return True

    async def recheck(self, client: httpx.AsyncClient, cards: Mapping[str, Mapping[str, Any]]) -> bool | None:
        """Whether it holds a budget; None where it did not say, being busy."""
        if not self.learnt:  # it was believed
            await self.read_capabilities(client, cards)
        seen = await _think(client, next(iter(cards), ""), self.capabilities, {"thinking_token_budget": BUDGET})
        if seen.status != 200 and seen.status not in _REFUSALS:
            return None
        return seen.obeyed

    def end_recheck(self, now: float, holds: bool | None) -> None:
        self._rechecking = False
        if self.starts != self._rechecked:
            holds = None  # it was another process that answered
        self._recheck_pause = RECHECK_PAUSE if holds else min(2 * self._recheck_pause, LONGEST_RECHECK_PAUSE)
        self._next_recheck = now + (RECHECK_PAUSE if holds else self._recheck_pause)
        if holds is not None:
            self._lost = not holds
            self.capabilities = replace(self.capabilities, native_budget=holds)

    def died(self) -> None:
        """It was gone before it had answered. What was found so far stays."""
        self._pause = min(2 * self._pause, LONGEST_PAUSE)


class _StreamFindings:
    """What one streamed answer showed: `reasoning` in tokens, `split` by a parser (None: it cannot be told)."""

    def __init__(self, status: int, end: tuple[int, ...], opened: bool) -> None:
        self.status = status
        self.reasoning = 0
        self.split: bool | None = None
        self.answered = False
        """Whether text came behind the thinking."""
        self._end = end
        self._open = opened

    @property
    def obeyed(self) -> bool:
        """Whether it kept to `BUDGET`, where it was given that."""
        return self.status == 200 and self.reasoning <= BUDGET + 1 and self.answered

    def add(self, choice: dict[str, Any]) -> None:
        """One choice of one chunk."""
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


async def _version(client: httpx.AsyncClient) -> tuple[int, ...] | None:
    answer = await get(client, "/version")
    told = answer.json().get("version") if answer.status == 200 else None
    if not isinstance(told, str):
        return None
    return tuple(int(part) for part in re.findall(r"[0-9]{1,9}", told[:64])[:3]) or None


async def _tokens(client: httpx.AsyncClient, model: str, text: str) -> tuple[int, ...]:
    """The token ids of `text`; none where the node does not tell."""
    answer = await post(client, "/tokenize", {"model": model, "prompt": text, "add_special_tokens": False})
    ids = answer.json().get("tokens") if answer.status == 200 else None
    if not isinstance(ids, list) or not all(type(item) is int and 0 <= item < MOST_IDS for item in ids):
        return ()
    return tuple(ids) if len(ids) <= len(text) else ()


async def _ask_with_budget(client: httpx.AsyncClient, model: str, known: Capabilities) -> dict[str, Any]:
    seen = await _think(client, model, known, {"thinking_token_budget": BUDGET})
    found: dict[str, Any] = {"native_budget": seen.obeyed}
    return found if seen.split is None else {**found, "splits_reasoning": seen.split}


async def _ask_with_thinking_off(client: httpx.AsyncClient, model: str, known: Capabilities) -> dict[str, Any]:
    """With thinking off the template closes it: all that comes is the answer, and one must come."""
    seen = await _think(client, model, known, {"chat_template_kwargs": {"enable_thinking": False}}, opened=False)
    return {"native_off": seen.split is not True and seen.answered} if seen.status == 200 else {}


async def _think(
    client: httpx.AsyncClient, model: str, known: Capabilities, fields: dict[str, Any], opened: bool = True
) -> _StreamFindings:
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
    async with asyncio.timeout(PROOF_SECONDS), client.stream("POST", "/v1/chat/completions", json=body) as answer:
        seen = _StreamFindings(answer.status_code, known.think_end, opened)
        if answer.status_code >= 500:
            answer.raise_for_status()
        splitter = EventSplitter(MAX_ANSWER)
        async for piece in pieces(answer):
            for event in split_events(splitter.feed(piece)):
                if b"{" in event:
                    _see(seen, parse_object(event_data(event)))
    return seen


def _see(seen: _StreamFindings, chunk: dict[str, Any]) -> None:
    if chunk.get("error"):
        seen.status = _status_of(chunk["error"])
    for choice in chunk.get("choices") or ():
        seen.add(choice)


def _status_of(error: Any) -> int:
    """The status that an error stands for which came in a stream, 200 notwithstanding; raises what is not a refusal."""
    code = error.get("code") if isinstance(error, dict) else None
    if type(code) is int and 400 <= code < 500:
        return code
    raise httpx.RemoteProtocolError(f"an error came in mid-stream: {str(error)[:200]!r}")


async def _shows_marker(client: httpx.AsyncClient, model: str, known: Capabilities) -> bool | None:
    """Whether raw text shows the end marker: the model is allowed no other token."""
    if len(known.think_end) != 1:
        return None
    body = {"model": model, "prompt": "1", "max_tokens": 1, "allowed_token_ids": list(known.think_end)}
    answer = await post(client, "/v1/completions", body, PROOF_SECONDS)
    try:
        return END_TEXT in answer.json()["choices"][0]["text"] if answer.status == 200 else None
    except (KeyError, TypeError, IndexError):
        return None
