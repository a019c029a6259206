"""One answer as the official SDKs hear it, streamed: the OpenAI SDK in chat and responses, the Anthropic SDK."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import anthropic
import openai

from tests.real.transparency_cases import MODEL

DIALECTS = ("chat", "messages", "responses")

OnDelta = Callable[[], None]
"""Called for each event that brings text of the thinking or of the answer."""


@dataclass(frozen=True, slots=True)
class Heard:
    """`usage`: input tokens, output tokens, and those of thinking where the dialect tells them."""

    thinking: str
    answer: str
    ending: str | None
    usage: tuple[int, int, int | None]


def hear(dialect: str, url: str, question: str, most: int, on_delta: OnDelta) -> Heard:
    """Ask for at most `most` tokens at temperature 0. Fails where the stream is not well formed in its dialect."""
    return _READERS[dialect](url, question, most, on_delta)


def _chat(url: str, question: str, most: int, on_delta: OnDelta) -> Heard:
    texts = {"reasoning": "", "content": ""}
    chunks = []
    with openai.OpenAI(base_url=f"{url}/v1", api_key="any", max_retries=0, timeout=240) as client:
        stream = client.chat.completions.create(
            model=MODEL,
            messages=[{"role": "user", "content": question}],
            max_tokens=most,
            temperature=0,
            stream=True,
            stream_options={"include_usage": True},
        )
        for chunk in stream:
            chunks.append(chunk)
            for field, text in _texts(chunk):
                texts[field] += text
                on_delta()
    assert len({(chunk.id, chunk.created, chunk.model, chunk.object) for chunk in chunks}) == 1
    choices = [chunk.choices[0] for chunk in chunks if chunk.choices]
    (_,) = [choice for choice in choices if choice.delta.role]
    (ending,) = [choice.finish_reason for choice in choices if choice.finish_reason]
    (usage,) = [chunk.usage for chunk in chunks if chunk.usage]
    details = usage.completion_tokens_details
    told = (usage.prompt_tokens, usage.completion_tokens, details.reasoning_tokens if details else None)
    return Heard(texts["reasoning"], texts["content"], ending, told)


def _texts(chunk: Any) -> list[tuple[str, str]]:
    delta = chunk.choices[0].delta.model_dump() if chunk.choices else {}
    return [(field, delta[field]) for field in ("reasoning", "content") if delta.get(field)]


def _messages(url: str, question: str, most: int, on_delta: OnDelta) -> Heard:
    kinds = []
    with (
        anthropic.Anthropic(base_url=url, api_key="any", max_retries=0, timeout=240) as client,
        client.messages.stream(
            model=MODEL,
            messages=[{"role": "user", "content": question}],
            max_tokens=most,
            extra_body={"temperature": 0},
        ) as stream,
    ):
        for event in stream:
            kinds.append(event.type)
            if event.type == "content_block_delta" and event.delta.type in ("thinking_delta", "text_delta"):
                on_delta()
        message = stream.get_final_message()
    assert [kinds.count(kind) for kind in ("message_start", "message_delta", "message_stop")] == [1, 1, 1]
    assert kinds.count("content_block_start") == kinds.count("content_block_stop") == len(message.content)
    thinking = [block.thinking for block in message.content if block.type == "thinking"]
    answer = [block.text for block in message.content if block.type == "text"]
    assert len(thinking) <= 1 and len(answer) <= 1, "a block is not begun anew"
    told = (message.usage.input_tokens, message.usage.output_tokens, None)
    return Heard("".join(thinking), "".join(answer), message.stop_reason, told)


def _responses(url: str, question: str, most: int, on_delta: OnDelta) -> Heard:
    texts = {"response.reasoning_text.delta": "", "response.output_text.delta": ""}
    numbers, ends = [], []
    with (
        openai.OpenAI(base_url=f"{url}/v1", api_key="any", max_retries=0, timeout=240) as client,
        client.responses.stream(model=MODEL, input=question, max_output_tokens=most, temperature=0) as stream,
    ):
        for event in stream:
            numbers.append(event.sequence_number)
            if event.type in texts:
                texts[event.type] += str(event.delta)  # type: ignore[union-attr]
                on_delta()
            if event.type in ("response.completed", "response.incomplete"):
                ends.append(event.response)
    (response,) = ends
    assert numbers == list(range(len(numbers))), "events are numbered without a gap"
    whole = {"reasoning": "", "message": ""}
    for item in response.output:
        whole[item.type] += "".join(part.text for part in item.content or ())  # type: ignore[union-attr]
    assert list(whole.values()) == list(texts.values()), "the last event says what the deltas said"
    assert response.usage
    usage = response.usage
    told = (usage.input_tokens, usage.output_tokens, usage.output_tokens_details.reasoning_tokens)
    return Heard(whole["reasoning"], whole["message"], response.status, told)


_READERS = {"chat": _chat, "messages": _messages, "responses": _responses}
