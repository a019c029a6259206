"""One request by the OpenAI client, as an application sends it, and what it got."""

import json
import time
from collections.abc import Iterator
from typing import Any

import httpx2
import openai

from loadtest.load.turns import Answer, Steering, Turn, body_of


def client_of(url: str, key: str, timeout: float) -> openai.OpenAI:
    """A client that sends each request once, on as many connections as it needs."""
    limits = httpx2.Limits(max_connections=None, max_keepalive_connections=None)
    http = httpx2.Client(limits=limits, timeout=timeout, trust_env=False)
    return openai.OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0, timeout=timeout, http_client=http)


def ask(client: openai.OpenAI, turn: Turn, model: str, steering: Steering, answer: Answer) -> None:
    """Send one request and note in `answer` what comes of it. Never raises for what the other side does."""
    began = time.perf_counter()
    completions = client.chat.completions.with_streaming_response
    try:
        with completions.create(**body_of(turn, model, steering)) as response:
            if turn.stream:
                _read_stream(response.iter_lines(), turn, answer, began)
            else:
                _read_plain(response.read(), answer, began)
    except openai.APIError as error:
        answer.ending = _cause(error)
        if turn.expected and isinstance(error, openai.APIStatusError) and error.status_code in (turn.expected, 429):
            answer.ending = "expected"
    except httpx2.TimeoutException:
        answer.ending = "timeout"
    except httpx2.HTTPError as error:
        answer.ending = f"connection: {type(error).__name__}"
    except ValueError as error:
        answer.ending = f"no JSON: {error}"


def _read_stream(lines: Iterator[str], turn: Turn, answer: Answer, began: float) -> None:
    """The client's own models of chunks would cost 110 µs an event, four times all else."""
    finish, texts, last, events, done = None, [], 0.0, 0, False
    calls: dict[int, dict[str, Any]] = {}
    for line in lines:
        if not line.startswith("data: {"):
            done = done or line == "data: [DONE]"
            continue
        chunk = json.loads(line[6:])
        if chunk.get("error"):
            answer.ending = f"in mid-answer: {chunk['error'].get('code') or chunk['error'].get('type')}"
            return
        if chunk.get("usage"):
            _note_usage(chunk["usage"], answer)
        for choice in chunk["choices"]:
            delta = choice["delta"]
            finish = choice.get("finish_reason") or finish
            content, thought, parts = delta.get("content"), delta.get("reasoning"), delta.get("tool_calls")
            if not (content or thought or parts):
                continue
            now = time.perf_counter()
            if content:
                texts.append(content)
            for part in parts or ():
                _note_call(calls, part)
            if answer.first_token is None:
                answer.first_token = now - began
            else:
                answer.gaps.append(now - last)
            if answer.first_answer is None and not thought:
                answer.first_answer = now - began
            last, events = now, events + 1
        if turn.leave_after and events >= turn.leave_after:
            answer.ending = "left"
            return
        if turn.read_every:
            time.sleep(turn.read_every)
    answer.text, answer.calls = "".join(texts), [calls[index] for index in sorted(calls)]
    answer.whole = time.perf_counter() - began
    if finish is None or not done:
        answer.ending = "broken off"


def _read_plain(body: bytes, answer: Answer, began: float) -> None:
    """The first token of a plain answer is the whole answer."""
    answer.whole = answer.first_token = answer.first_answer = time.perf_counter() - began
    got = json.loads(body)
    choice = (got.get("choices") or [{}])[0]
    if choice.get("finish_reason") is None:
        answer.ending = "broken off"
        return
    answer.text = choice["message"].get("content") or ""
    if got.get("usage"):
        _note_usage(got["usage"], answer)


def _note_usage(usage: dict[str, Any], answer: Answer) -> None:
    answer.prompt_tokens, answer.output_tokens = usage["prompt_tokens"], usage["completion_tokens"]
    answer.cached_tokens = (usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0


def _note_call(calls: dict[int, dict[str, Any]], part: dict[str, Any]) -> None:
    empty = {"id": "", "type": "function", "function": {"name": "", "arguments": ""}}
    call, function = calls.setdefault(part["index"], empty), part.get("function") or {}
    call["id"] = part.get("id") or call["id"]
    for name in ("name", "arguments"):
        call["function"][name] += function.get(name) or ""


def _cause(error: openai.APIError) -> str:
    """A short name of what went wrong, the same for all that went wrong alike."""
    if isinstance(error, openai.APITimeoutError):
        return "timeout"
    if isinstance(error, openai.APIConnectionError):
        return f"connection: {type(error.__cause__ or error).__name__}"
    said = error.code or error.type or type(error).__name__
    if isinstance(error, openai.APIStatusError):
        return f"{error.status_code} {said}"
    return f"in mid-answer: {said}"
