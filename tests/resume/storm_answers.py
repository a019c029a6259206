"""Reads what a client got in a storm, in its dialect."""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from tests.resume.storm_requests import CHAT, COMPLETIONS, MESSAGES, Said, StormRequest

_ENDS = {"end_turn": "stop", "max_tokens": "length", "completed": "stop", "incomplete": "length"}
"""The dialects' words for how an answer ended, in those of chat."""


class AnswerBroken(Exception):
    """The answer has no proper end."""


@dataclass(slots=True)
class AnswerText:
    """An answer as it is read. `counts`: of what a stream has once; `wrong`: what it should not have."""

    counts: Counter[str]
    reasoning: list[str] = field(default_factory=list)
    content: list[str] = field(default_factory=list)
    finish: str | None = None
    usage: dict[str, Any] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)
    error: str = ""

    def said(self) -> Said:
        usage = self.usage
        details = usage.get("completion_tokens_details") or usage.get("output_tokens_details") or {}
        prompt = usage.get("prompt_tokens", usage.get("input_tokens"))
        if prompt is not None:  # messages count what the cache had beside it
            prompt += usage.get("cache_creation_input_tokens", 0) + usage.get("cache_read_input_tokens", 0)
        return Said(
            "".join(self.reasoning),
            "".join(self.content),
            _ENDS.get(self.finish or "", self.finish),
            prompt,
            usage.get("completion_tokens", usage.get("output_tokens")),
            details.get("reasoning_tokens"),
        )

    def form(self) -> list[str]:
        """What is wrong with the stream's form."""
        return [*self.wrong, *(f"{name}: {count}" for name, count in self.counts.items() if count != 1)]


def read_answer(asked: StormRequest, status: int, body: bytes, ended: bool) -> AnswerText:
    """A whole answer. Raises AnswerBroken; `ended`: the HTTP body came to its end."""
    if status != 200:
        raise AnswerBroken(f"{status} {body[-200:].decode('utf-8', 'replace')}" if status else "no answer")
    if not ended:
        raise AnswerBroken("the connection ended in the answer")
    if not asked.body.get("stream"):
        if not body:
            raise AnswerBroken("200 without a body")
        return _read_plain(asked, json.loads(body))
    text = read_stream(asked, body)
    if text.error:
        raise AnswerBroken(text.error)
    if not text.counts["end"]:
        raise AnswerBroken("a stream without its end")
    return text


def read_part(asked: StormRequest, body: bytes) -> Said:
    """What the client has of an answer that broke off."""
    if not asked.body.get("stream"):
        return Said()
    return read_stream(asked, body[: body.rfind(b"\n\n") + 2]).said()


def read_stream(asked: StormRequest, body: bytes) -> AnswerText:
    if asked.path in (CHAT, COMPLETIONS):
        return _read_chunks(body, asked.path == CHAT)
    return _read_message_events(body) if asked.path == MESSAGES else _read_response_events(body)


def _events(body: bytes) -> Iterator[Any]:
    """Each event's data as JSON, or as text."""
    for block in body.decode().split("\n\n"):
        for line in block.split("\n"):
            if line.startswith("data: "):
                yield json.loads(line[6:]) if line[6] == "{" else line[6:]


def _read_plain(asked: StormRequest, whole: dict[str, Any]) -> AnswerText:
    text = AnswerText(Counter(), usage=whole["usage"])
    if asked.path == MESSAGES:
        text.finish = whole["stop_reason"]
        text.reasoning = [part["thinking"] for part in whole["content"] if part["type"] == "thinking"]
        text.content = [part["text"] for part in whole["content"] if part["type"] == "text"]
    else:
        choice = whole["choices"][0]
        text.finish = choice["finish_reason"]
        text.reasoning = [choice["message"].get("reasoning") or ""]
        text.content = [choice["message"].get("content") or ""]
    return text


def _read_chunks(body: bytes, chat: bool) -> AnswerText:
    text = AnswerText(Counter({"end": 0, "finish": 0, "usage": 0, **({"role": 0} if chat else {})}))
    streams = set()
    for chunk in _events(body):
        if not isinstance(chunk, dict):
            text.counts["end"] += 1
        elif "error" in chunk:
            text.error = str(chunk["error"])
        else:
            streams.add((chunk["id"], chunk["object"], chunk["created"], chunk["model"]))
            for choice in chunk["choices"]:
                _read_choice(choice, text)
            if chunk.get("usage"):
                text.counts["usage"] += 1
                text.usage = chunk["usage"]
    text.counts["kinds of heads"] = len(streams)
    return text


def _read_choice(choice: dict[str, Any], text: AnswerText) -> None:
    delta = choice["delta"] if "delta" in choice else {"content": choice["text"]}
    if text.counts["end"] or text.counts["finish"] or (text.reasoning and "role" in delta):
        text.wrong.append(f"out of order: {choice}")
    if choice.get("token_ids") is not None or choice.get("prompt_token_ids") is not None:
        text.wrong.append("token ids that nobody asked for")
    if "role" in delta:
        text.counts["role"] += 1
    text.reasoning.append(delta.get("reasoning") or "")
    text.content.append(delta.get("content") or "")
    if choice["finish_reason"]:
        text.counts["finish"] += 1
        text.finish = choice["finish_reason"]


def _read_message_events(body: bytes) -> AnswerText:
    text = AnswerText(Counter({"message_start": 0, "message_delta": 0, "end": 0}))
    blocks: list[int] = []
    for event in _events(body):
        match event["type"]:
            case "message_start" | "message_delta" as kind:
                text.counts[kind] += 1
                if kind == "message_delta":
                    text.finish, text.usage = event["delta"]["stop_reason"], event["usage"]
            case "message_stop":
                text.counts["end"] += 1
            case "error":
                text.error = str(event["error"])
            case "content_block_start":
                blocks.append(event["index"])
            case "content_block_delta":
                text.reasoning.append(event["delta"].get("thinking", ""))
                text.content.append(event["delta"].get("text", ""))
    if blocks != list(range(len(blocks))):
        text.wrong.append(f"blocks {blocks}")
    return text


def _read_response_events(body: bytes) -> AnswerText:
    text = AnswerText(Counter({"response.created": 0, "end": 0}))
    numbers = []
    for event in _events(body):
        numbers.append(event.get("sequence_number"))
        match event["type"]:
            case "response.created":
                text.counts["response.created"] += 1
            case "response.reasoning_text.delta" | "response.reasoning_part.delta":
                text.reasoning.append(event["delta"])
            case "response.output_text.delta":
                text.content.append(event["delta"])
            case "error" | "response.failed":
                text.error = str(event)
            case "response.completed" | "response.incomplete":
                text.counts["end"] += 1
                text.finish, text.usage = event["response"]["status"], event["response"]["usage"]
                _check_output(event["response"]["output"], text)
    if numbers != list(range(len(numbers))):
        text.wrong.append("sequence numbers")
    return text


def _check_output(output: list[dict[str, Any]], text: AnswerText) -> None:
    """What the last event repeats is what the deltas said."""
    for kind, pieces in (("reasoning", text.reasoning), ("message", text.content)):
        whole = "".join(part["text"] for item in output if item["type"] == kind for part in item.get("content") or ())
        if whole != "".join(pieces):
            text.wrong.append(f"the {kind} in the last event is another")
