"""Answers with tool calls and grammars: resumed before the call or the grammar begins, and a clear error afterwards."""

import itertools
import json
from typing import Any

import httpx
import pytest

from tests.flow.resume_cuts import cut_answers, error_of, failed, unbroken, whole
from tests.flow.test_resume import ASK, fleet

SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
    "required": ["city", "days"],
}
FUNCTION = {"name": "weather", "parameters": SCHEMA}
TURNS = [{"role": "user", "content": "How is the weather? [[call]]"}]
CALLING: dict[str, dict[str, Any]] = {
    "chat": {"messages": TURNS, "tools": [{"type": "function", "function": FUNCTION}]},
    "messages": {"messages": TURNS, "max_tokens": 500, "tools": [{"name": "weather", "input_schema": SCHEMA}]},
    "responses": {"input": TURNS[0]["content"], "store": False, "tools": [{"type": "function", **FUNCTION}]},
}
ARGUMENTS = {"city": "word", "days": 1}


def said(answer: httpx.Response) -> tuple[str, str, list[tuple[str, Any]], str | None]:
    """A chat stream's reasoning, content, calls (name and arguments) and finish reason."""
    reasoning = content = ""
    calls: dict[int, list[str]] = {}
    finish = None
    for line in answer.text.splitlines():
        if not line.startswith("data: {"):
            continue
        for choice in json.loads(line[6:]).get("choices") or ():
            delta = choice["delta"]
            reasoning += delta.get("reasoning") or ""
            content += delta.get("content") or ""
            finish = choice["finish_reason"] or finish
            for call in delta.get("tool_calls") or ():
                known = calls.setdefault(call["index"], [call["function"].get("name", ""), ""])
                known[1] += call["function"].get("arguments") or ""
    return reasoning, content, [(name, json.loads(given)) for name, given in calls.values()], finish


def said_until_lost(answer: httpx.Response) -> str:
    error = error_of(answer)
    if "code" in error:
        assert error["code"] == "stream_not_resumable"
    assert error["retry_safe"] is True and error["tokens"] > 0
    message: str = error["message"]
    return message


@pytest.mark.parametrize("choice", ["auto", "required", {"type": "function", "function": {"name": "weather"}}])
async def test_a_call_is_made_once_or_lost_clearly(choice: Any) -> None:
    """Before the call it goes on; once the client has some of it, it is lost."""
    async with fleet() as made:
        body = {"stream": True, **CALLING["chat"], "tool_choice": choice}
        _, _, answer = await unbroken(made, "chat", body)
        assert answer.headers["x-fleetgate-resumable"] == ("exact" if choice == "auto" else "thinking")
        expected = said(answer)
        assert expected[2] == [("weather", ARGUMENTS)]
        outcomes = []
        async for after, got in cut_answers(made, "chat", body, most=40):
            outcomes.append(not failed(got))
            if failed(got):
                assert "tool call" in said_until_lost(got) or "grammar" in said_until_lost(got)
            else:
                assert said(got) == expected, after
        assert outcomes[0] and False in outcomes, "some cuts came before the call, some within"
        assert sum(a != b for a, b in itertools.pairwise(outcomes)) <= 2, outcomes


@pytest.mark.parametrize("dialect", ["messages", "responses"])
async def test_a_call_in_another_dialect(dialect: str) -> None:
    async with fleet() as made:
        body = {"stream": True, **CALLING[dialect]}
        _, _, answer = await unbroken(made, dialect, body)
        expected, lost = whole(answer.text), 0
        async for after, got in cut_answers(made, dialect, body, most=40):
            if failed(got):
                lost += 1
                assert "tool call" in said_until_lost(got)
            else:
                assert whole(got.text) == expected, after
        assert 0 < lost < 38


async def test_a_call_of_which_the_client_has_nothing_is_made_anew() -> None:
    """A plain answer that its node streams, since the gateway holds the budget."""
    async with fleet(budget="disobey") as made:
        body = {**CALLING["chat"], "thinking_token_budget": 100}
        _, _, answer = await unbroken(made, "chat", body)
        expected, cuts = _message(answer), 0
        assert [call["function"]["name"] for call in expected["tool_calls"]] == ["weather"]
        async for after, got in cut_answers(made, "chat", body, most=40):
            assert _message(got) == expected, after
            cuts += 1
        assert cuts > 20


def _message(answer: httpx.Response) -> dict[str, Any]:
    found: dict[str, Any] = answer.json()["choices"][0]["message"]
    for call in found["tool_calls"]:
        call["id"] = ""
        call["function"]["arguments"] = json.loads(call["function"]["arguments"])
    return found


GRAMMARS: dict[str, dict[str, Any]] = {
    "an object": {"response_format": {"type": "json_object"}},
    "a schema": {"response_format": {"type": "json_schema", "json_schema": {"name": "place", "schema": SCHEMA}}},
    "structured outputs": {"structured_outputs": {"json": SCHEMA}},
}


@pytest.mark.parametrize("grammar", GRAMMARS.values(), ids=GRAMMARS.keys())
async def test_a_grammar_begins_with_the_answer(grammar: dict[str, Any]) -> None:
    async with fleet() as made:
        body = {"stream": True, **ASK["chat"], **grammar}
        _, _, answer = await unbroken(made, "chat", body)
        assert answer.headers["x-fleetgate-resumable"] == "thinking"
        expected, outcomes = whole(answer.text), []
        async for after, got in cut_answers(made, "chat", body):
            outcomes.append(not failed(got))
            if failed(got):
                assert "grammar" in said_until_lost(got)
            else:
                assert whole(got.text) == expected, after
        assert outcomes[:7] == [True] * 7, "the six tokens of thinking, and its end"
        assert False in outcomes
