"""The demo's first question, asked through the gateway, so that what is printed next is known to work."""

import json
import os
from collections.abc import Iterator
from typing import Any

import httpx
import typer

from gateway.cli.demo.nodes import MODEL
from gateway.cli.demo.processes import DemoError
from gateway.cli.terminal import clean, tell

QUESTION = "What is the capital of France? Tell me about it."
SHORT = {"thinking_token_budget": 24, "max_tokens": 200}
"""A model of 135M parameters often never comes to an end of its thoughts: vLLM's budget makes it answer."""

TIMEOUT = httpx.Timeout(300)
_SHOWN = ("x-request-id", "x-fleetgate-", "x-ratelimit-")


def show_first_answer(url: str, key: str, on_terminal: bool) -> None:
    """Stream the answer: its thinking dimmed on a terminal, then the headers that the gateway sent."""
    body = {
        "model": MODEL,
        "messages": [{"role": "user", "content": QUESTION}],
        "temperature": 0,
        "stream": True,
        **SHORT,
    }
    headers = {"authorization": f"Bearer {key}"}
    with (
        httpx.Client(timeout=TIMEOUT, trust_env=False) as client,
        client.stream("POST", f"{url}/v1/chat/completions", json=body, headers=headers) as answer,
    ):
        if answer.status_code != 200:
            words = answer.read().decode(errors="replace")
            raise DemoError(f"the first request failed with status {answer.status_code}: {words}")
        _show(answer, may_dim(on_terminal))
        tell("\n[demo] Headers of the answer, from the gateway:")
        for name, value in answer.headers.items():
            if name.startswith(_SHOWN):
                tell(f"  {name}: {value}")


def _show(answer: httpx.Response, dims: bool) -> None:
    part = ""
    for delta in _deltas(answer):
        for name, label in (("reasoning", "[thinking] "), ("content", "[answer] ")):
            text = clean(delta.get(name) or "", "\n\t")
            if text and part != name:
                text = f"{chr(10) if part else ''}{label}{text.lstrip()}"
                part = name
            typer.echo(typer.style(text, dim=True) if dims and text and name == "reasoning" else text, nl=False)
    typer.echo()


def _deltas(answer: httpx.Response) -> Iterator[dict[str, Any]]:
    for line in answer.iter_lines():
        data = line.removeprefix("data:").strip()
        if line.startswith("data:") and data != "[DONE]":
            for choice in json.loads(data).get("choices") or ():
                yield choice.get("delta") or {}


def may_dim(on_terminal: bool) -> bool:
    """Whether text is dimmed: on a terminal that can, of somebody who wants it."""
    return on_terminal and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
