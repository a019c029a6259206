"""What the clients of a storm ask, each of them something else, and what the unbroken answer says."""

from dataclasses import dataclass
from typing import Any

import httpx

from tests.support.nodes import MODEL

CHAT, COMPLETIONS, MESSAGES, RESPONSES = "/v1/chat/completions", "/v1/completions", "/v1/messages", "/v1/responses"
KINDS = (
    *("chat", "messages", "chat", "hidden", "responses", "chat", "plain", "completions"),
    *("chat", "messages", "chat", "plain messages"),
)
"""In turn."""

MAX_TOKENS = 600


@dataclass(frozen=True, slots=True)
class Said:
    """What an answer says, in any dialect. Counts are in tokens; None where the dialect does not tell them.

    `held`: characters at the end of the reasoning that a client may not be shown. A node holds back as many as its
    longest stop string has, less one; where the gateway holds the budget, those of the cut thought stay unknown.
    """

    reasoning: str = ""
    content: str = ""
    finish: str | None = None
    prompt_tokens: int | None = None
    output_tokens: int | None = None
    reasoning_tokens: int | None = None
    held: int = 0


@dataclass(frozen=True, slots=True)
class StormRequest:
    """`path` and `body` are for the gateway; `direct` is the same for a node, over `direct_path`."""

    kind: str
    path: str
    body: dict[str, Any]
    direct_path: str
    direct: dict[str, Any]


def storm_request(number: int, length: float = 1.0) -> StormRequest:
    """The request of this number; `length` scales its answer."""
    kind = KINDS[number % len(KINDS)]
    think, answer = round((30 + number * 7 % 60) * length), round((60 + number * 11 % 90) * length)
    wide = " [[wide]]" if number % 3 == 0 else ""
    text = f"Storm {number}: tell me of it. [[think={think}]] [[answer={answer}]]{wide}"
    if kind == "completions":
        body = {"model": MODEL, "prompt": text, "max_tokens": think + answer, "ignore_eos": True}
        streamed = {**body, "stream": True, "stream_options": {"include_usage": True}}
        return StormRequest(kind, COMPLETIONS, streamed, COMPLETIONS, body)
    chat: dict[str, Any] = {
        "model": MODEL,
        "messages": [{"role": "user", "content": text}],
        "max_tokens": think + 20 if number % 7 == 2 else MAX_TOKENS,
    }
    if kind in ("chat", "hidden", "plain"):
        _vary(chat, number)
    streamed = {**chat, "stream": True, "stream_options": {"include_usage": True}}
    match kind:
        case "hidden":
            asked = (CHAT, {**streamed, "reasoning": {"exclude": True}})
        case "plain":
            asked = (CHAT, chat)
        case "messages":
            asked = (MESSAGES, {**chat, "stream": True})
        case "plain messages":
            asked = (MESSAGES, chat)
        case "responses":
            limit = chat["max_tokens"]
            body = {"model": MODEL, "input": text, "max_output_tokens": limit, "stream": True, "store": False}
            asked = (RESPONSES, body)
        case _:
            asked = (CHAT, streamed)
    return StormRequest(kind, *asked, CHAT, chat)


def _vary(chat: dict[str, Any], number: int) -> None:
    if number % 11 == 3:
        chat["chat_template_kwargs"] = {"enable_thinking": False}
    elif number % 5 == 1:
        chat["thinking_token_budget"] = 25
    if number % 4 == 1:
        chat["stop"] = ["is never said", "nor this"]  # its node holds text back


async def unbroken(node: httpx.AsyncClient, asked: StormRequest) -> list[Said]:
    """The answer of a node that is asked directly, without a stream. Two answers where there is a budget, one with a
    token of thinking more. A node that holds it counts the line's end behind the marker in its prompt. The gateway
    does not, and has either with two tokens an event: as the budget falls on the end of one, or into it."""
    budget = asked.direct.get("thinking_token_budget")
    return [await _unbroken(node, asked, {})] + (
        [] if budget is None else [await _unbroken(node, asked, {"thinking_token_budget": budget + 1})]
    )


async def _unbroken(node: httpx.AsyncClient, asked: StormRequest, more: dict[str, Any]) -> Said:
    got = await node.post(asked.direct_path, json={**asked.direct, **more})
    got.raise_for_status()
    whole = got.json()
    choice, usage = whole["choices"][0], whole["usage"]
    message = choice.get("message") or {"content": choice["text"]}
    details = usage.get("completion_tokens_details") or {}
    return Said(
        "" if asked.kind == "hidden" else message.get("reasoning") or "",
        message.get("content") or "",
        choice["finish_reason"],
        usage["prompt_tokens"],
        usage["completion_tokens"],
        details.get("reasoning_tokens"),
        max(map(len, asked.body.get("stop", ["?"]))) - 1 if "thinking_token_budget" in asked.body else 0,
    )
