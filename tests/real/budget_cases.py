"""Asking for a thinking budget in every dialect, and what an answer's thinking was, counted by the node's tokenizer."""

import json
from dataclasses import dataclass
from typing import Any

import httpx

from tests.real.transparency_cases import MODEL

QUESTION = "What is the capital of France? Tell me about it."
MESSAGES = [{"role": "user", "content": QUESTION}]
PROMPT = f"<|im_start|>user\n{QUESTION}<|im_end|>\n<|im_start|>assistant\n<think>\n"
ROOM = 24
"""Tokens for the answer, behind the thinking."""

THOUGHT = 89
"""What the tiny model thinks about it by itself, at temperature 0."""

DIALECTS = ("chat", "completions", "messages", "responses")
PATHS = {
    "chat": "/v1/chat/completions",
    "completions": "/v1/completions",
    "messages": "/v1/messages",
    "responses": "/v1/responses",
}


@dataclass(frozen=True, slots=True)
class Thought:
    """One answer: its thinking and the rest as text, how it ended, and what its usage says (None: nothing)."""

    reasoning: str
    answer: str
    ending: str | None
    told: int | None
    output: int


def wish_of(dialect: str, budget: int | None, switch: bool | None) -> dict[str, Any]:
    """The budget or the switch as a client of the dialect says it; responses cannot say a budget."""
    if switch is not None:
        wishes: dict[str, dict[str, Any]] = {
            "chat": {"chat_template_kwargs": {"enable_thinking": switch}},
            "completions": {"thinking_token_budget": -1 if switch else 0},
            "messages": {"thinking": {"type": "adaptive" if switch else "disabled"}},
            "responses": {} if switch else {"reasoning": {"effort": "none"}},
        }
        return wishes[dialect]
    if budget is None or dialect == "responses":
        return {}
    if dialect == "messages" and budget:
        return {"thinking": {"type": "enabled", "budget_tokens": budget}}
    return {"thinking_token_budget": budget}


def ask(
    client: httpx.Client, dialect: str, stream: bool, budget: int | None, switch: bool | None, key: str | None
) -> Thought:
    """One question; `key` is that of the tenant whose policy says the budget where the dialect cannot."""
    most = (budget if budget is not None else THOUGHT) + ROOM
    body: dict[str, Any] = {"model": MODEL, "temperature": 0, "stream": stream, **wish_of(dialect, budget, switch)}
    if dialect == "completions":
        body |= {"prompt": PROMPT, "max_tokens": most, "skip_special_tokens": False}
    elif dialect == "responses":
        body |= {"input": QUESTION, "max_output_tokens": most}
    else:
        body |= {"messages": MESSAGES, "max_tokens": most}
    if stream and dialect in ("chat", "completions"):
        body["stream_options"] = {"include_usage": True}
    headers = {} if key is None else {"authorization": f"Bearer {key}"}
    answer = client.post(PATHS[dialect], json=body, headers=headers)
    assert answer.status_code == 200, answer.text
    events = [json.loads(line[6:]) for line in answer.text.splitlines() if line.startswith("data: {")]
    return _READERS[dialect](events if stream else [answer.json()])


def _chat(parts: list[dict[str, Any]]) -> Thought:
    choices = [choice for part in parts for choice in part["choices"]]
    texts = [choice["message"] if "message" in choice else choice["delta"] for choice in choices]
    usage = next(part["usage"] for part in parts if part.get("usage"))
    details = usage.get("completion_tokens_details") or {}
    return Thought(
        "".join(text.get("reasoning") or "" for text in texts),
        "".join(text.get("content") or "" for text in texts),
        next(choice["finish_reason"] for choice in choices if choice["finish_reason"]),
        details.get("reasoning_tokens"),
        usage["completion_tokens"],
    )


def _completions(parts: list[dict[str, Any]]) -> Thought:
    choices = [choice for part in parts for choice in part["choices"]]
    reasoning, _, answer = "".join(choice["text"] for choice in choices).partition("</think>")
    usage = next(part["usage"] for part in parts if part.get("usage"))
    details = usage.get("completion_tokens_details") or {}
    ending = next(choice["finish_reason"] for choice in choices if choice["finish_reason"])
    return Thought(reasoning, answer, ending, details.get("reasoning_tokens"), usage["completion_tokens"])


def _messages(parts: list[dict[str, Any]]) -> Thought:
    if len(parts) == 1:
        (message,) = parts
        blocks, ending, usage = message["content"], message["stop_reason"], message["usage"]
    else:
        blocks = [part["delta"] for part in parts if part["type"] == "content_block_delta"]
        (last,) = [part for part in parts if part["type"] == "message_delta"]
        ending, usage = last["delta"]["stop_reason"], last["usage"]
    thinking = "".join(block.get("thinking", "") for block in blocks)
    return Thought(thinking, "".join(block.get("text", "") for block in blocks), ending, None, usage["output_tokens"])


def _responses(parts: list[dict[str, Any]]) -> Thought:
    response = parts[0] if len(parts) == 1 else parts[-1]["response"]
    texts = {"reasoning": "", "message": ""}
    for item in response["output"]:
        texts[item["type"]] += "".join(part["text"] for part in item.get("content") or ())
    usage = response["usage"]
    told = (usage.get("output_tokens_details") or {}).get("reasoning_tokens")
    return Thought(texts["reasoning"], texts["message"], response["status"], told, usage["output_tokens"])


_READERS = {"chat": _chat, "completions": _completions, "messages": _messages, "responses": _responses}


def count_tokens(client: httpx.Client, text: str) -> int:
    """The tokens of a text, by the node itself."""
    body = {"model": MODEL, "prompt": text, "add_special_tokens": False}
    return len(client.post("/tokenize", json=body).json()["tokens"]) if text else 0
