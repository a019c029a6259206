"""Answers whose nodes hold text back: several tokens an event, stop strings, characters of several tokens."""

import json
from typing import Any

import pytest

from tests.flow.test_resume import ASK, MODEL, fleet, normal
from tests.support.crowd import CHAT
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


@pytest.mark.parametrize("tokens", [1, 2])
async def test_half_a_character_counts_once_in_a_budget_that_the_gateway_holds(tokens: int) -> None:
    """Its tokens are made again. With two tokens an event the thinking may be one token shorter than its budget."""
    settings: dict[str, Any] = {"thinking_tokens": 40, "answer_tokens": 12, "budget": "disobey"}
    body = {"model": MODEL, "stream": True, **WIDE, "stream_options": {"include_usage": True}}
    async with fleet(**settings) as made:
        asked = [{**body, "thinking_token_budget": budget} for budget in range(26 - tokens, 26)]
        expected = [text_of(normal(await made.ask("chat", each))) for each in asked]
    async with fleet(tokens_per_event=tokens, **settings) as made:
        halves = 0
        for after in range(2, 24 // tokens):
            for node in made.nodes:
                node.set_faults(Fault("die", after=after, next=1, path="/v1/chat"))
            before = sum(node.stats.requests.get("/detokenize", 0) for node in made.nodes)
            got = text_of(normal(await made.ask("chat", {**body, "thinking_token_budget": 25})))
            halves += sum(node.stats.requests.get("/detokenize", 0) for node in made.nodes) > before + 1
            made.heal()
            assert got in expected, after
        assert halves, "no cut was in the middle of a character"


@pytest.mark.parametrize(
    ("tokens", "more"),
    [
        (1, {}),
        (3, {}),
        (1, {"thinking_token_budget": 9}),
        (1, {"thinking_token_budget": 9, "stream": False}),
    ],
)
async def test_a_client_of_token_ids_gets_each_once(tokens: int, more: dict[str, Any]) -> None:
    def ids_of(text: str) -> list[int]:
        lines = [line[6:] for line in text.splitlines() if line.startswith("data: {")] or [text]
        choices = [choice for line in lines for choice in json.loads(line).get("choices", ())]
        return [each for choice in choices for each in choice.get("token_ids") or ()]

    settings: dict[str, Any] = {"budget": "disobey"} if more else {}
    async with fleet(tokens_per_event=tokens, thinking_tokens=12, answer_tokens=24, **settings) as made:
        body = {"model": MODEL, "stream": True, **WIDE, "return_token_ids": True, **more}
        expected = ids_of((await made.client.post(CHAT, json=body)).text)
        assert len(expected) > 30
        for after in range(2, 36 // tokens):
            for node in made.nodes:
                node.set_faults(Fault("die", after=after, next=1, path="/v1/chat"))
            got = ids_of((await made.client.post(CHAT, json=body)).text)
            made.heal()
            assert got == expected, after


async def test_thinking_that_ends_at_its_budget_is_not_cut() -> None:
    """The event of its end has text of thinking and of the answer, and the ids of both."""
    settings: dict[str, Any] = {"thinking_tokens": 20, "answer_tokens": 12, "budget": "disobey"}
    body = {"model": MODEL, "stream": True, **WIDE, "stream_options": {"include_usage": True}}
    async with fleet(**settings) as made:
        asked = [{**body, "thinking_token_budget": budget} for budget in (18, 19, 20)]
        expected = [text_of(normal(await made.ask("chat", each))) for each in asked]
    async with fleet(tokens_per_event=3, **settings) as made:
        for after in range(2, 8):
            made.break_off(Fault("die", after=after, next=1, path="/v1/chat"))
            got = text_of(normal(await made.ask("chat", {**body, "thinking_token_budget": 20})))
            made.heal()
            assert got in expected, after
