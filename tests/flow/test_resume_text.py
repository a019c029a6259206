"""Answers whose nodes hold text back: several tokens an event, stop strings, characters of several tokens."""

import json
from typing import Any

import pytest

from tests.flow.test_resume import ASK, MODEL, fleet, normal
from workers.fake import Fault

WIDE = {"messages": [{"role": "user", "content": "[[wide]] Tell me about Paris."}]}


def text_of(lines: list[str]) -> tuple[str, str, list[Any]]:
    """Reasoning, content, and what else an answer has; the text may come in other pieces."""
    reasoning, content, rest = "", "", []
    for line in lines:
        data = json.loads(line) if line.startswith("{") else {}
        if "error" in data:
            raise AssertionError(line)
        for choice in data.get("choices", ()):
            said = choice.get("delta", choice)
            reasoning += said.get("reasoning") or ""
            content += said.get("content") or said.get("text") or ""
            if choice["finish_reason"]:
                rest.append((choice["finish_reason"], choice.get("stop_reason")))
        if data.get("usage"):
            rest.append(data["usage"])
    return reasoning, content, rest


@pytest.mark.parametrize("tokens", [1, 3])
@pytest.mark.parametrize("dialect", ["chat", "completions"])
@pytest.mark.parametrize(
    ("stop", "included"), [(None, False), ("no such words in it", False), ("found", False), ("found", True)]
)
async def test_held_text_comes_once(tokens: int, dialect: str, stop: str | None, included: bool) -> None:
    async with fleet(tokens_per_event=tokens, thinking_tokens=12, answer_tokens=24) as made:
        ask = WIDE if dialect == "chat" else ASK[dialect]
        body = {"model": MODEL, "stream": True, **ask}
        answer = text_of(normal(await made.ask(dialect, body)))
        if stop == "found":
            stop = answer[1][7:15]
        body |= {"stop": stop, "include_stop_str_in_output": included, "stream_options": {"include_usage": tokens == 1}}
        expected = text_of(normal(await made.ask(dialect, body)))
        path = "/v1/chat" if dialect == "chat" else "/v1/completions"
        for after in range(2, 44 // tokens, 3):
            served = max(made.nodes, key=lambda node: node.stats.requests.get("/v1/completions", 0))
            for node in made.nodes if dialect == "chat" else [served]:
                node.set_faults(Fault("die", after=after, next=1, path=path))
            got = text_of(normal(await made.ask(dialect, body)))
            made.heal()
            assert got == expected, after


@pytest.mark.parametrize("sure", [True, False])
async def test_a_node_that_tells_no_text(sure: bool) -> None:
    """One event of one token shows its text; with several tokens an event that is not known."""
    async with fleet(tokens_per_event=1 if sure else 3, thinking_tokens=30) as made:
        body = {"model": MODEL, "stream": True, **ASK["chat"]}
        expected = text_of(normal(await made.ask("chat", body)))
        for node in made.nodes:
            node.set_faults(
                Fault("die", after=4, next=1, path="/v1/chat"),
                Fault("status", status=404, scope="all", path="/detokenize"),
            )
        answer = await made.ask("chat", body)
        if sure:
            assert text_of(normal(answer)) == expected
        else:
            assert "stream_not_resumable" in answer
