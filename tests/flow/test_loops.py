"""A thought that loops is ended, and the client has the answer: in every dialect, streamed and assembled."""

import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

from gateway.core.thinking.loop_detector import GUARD
from tests.flow.resume_cuts import failed
from tests.flow.test_resume import MODEL, PATH, Fleet, fleet, normal
from tests.support.gateways import eventually
from workers.fake import Fault

PERIOD = 10
FROM = 7
"""The loop's first token: the newline behind the marker is in the prompt, and counted."""
MOST = FROM + 3 * PERIOD + 64
ENDED = FROM + 3 * PERIOD + GUARD
LOOPING = f"Tell me about Paris. [[think=3000]] [[loop={PERIOD}]]"
SHORT = "Tell me about Paris. [[think=20]]"
TALKING = f"Tell me about Paris. [[answer=3000]] [[answer_loop={PERIOD}]]"
TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}


def body_of(dialect: str, said: str, **fields: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": said}]
    asked: dict[str, dict[str, Any]] = {
        "chat": {"messages": messages, "stream_options": {"include_usage": True}},
        "messages": {"messages": messages, "max_tokens": 4000},
        "responses": {"input": said, "store": False},
        "completions": {
            "prompt": f"<|im_start|>user\n{said}<|im_end|>\n<|im_start|>assistant\n<think>\n",
            "max_tokens": 4000,
            "stream_options": {"include_usage": True},
        },
    }
    return {"model": MODEL, "stream": True, **asked[dialect], **fields}


@dataclass(slots=True)
class Heard:
    """What a client made of an answer."""

    thought: str = ""
    said: str = ""
    finish: list[str] = field(default_factory=list)
    output: int = 0
    reasoning: int | None = None
    calls: int = 0


def heard(dialect: str, text: str) -> Heard:
    got = Heard()
    for line in text.splitlines():
        if line.startswith("data: {"):
            _READ[dialect](got, json.loads(line[6:]))
    return got


def _chat(got: Heard, data: dict[str, Any]) -> None:
    for choice in data["choices"]:
        delta = choice.get("delta", choice)
        got.thought += delta.get("reasoning") or ""
        got.said += delta.get("content") or delta.get("text") or ""
        got.calls += len(delta.get("tool_calls") or ())
        got.finish += [choice["finish_reason"]] if choice["finish_reason"] else []
    if data.get("usage"):
        got.output = data["usage"]["completion_tokens"]
        got.reasoning = (data["usage"].get("completion_tokens_details") or {}).get("reasoning_tokens")


def _messages(got: Heard, data: dict[str, Any]) -> None:
    delta = data.get("delta", {})
    got.thought += delta.get("thinking", "")
    got.said += delta.get("text", "")
    got.calls += data.get("content_block", {}).get("type") == "tool_use"
    if data["type"] == "message_delta":
        got.finish.append(delta["stop_reason"])
        got.output = data["usage"]["output_tokens"]


def _responses(got: Heard, data: dict[str, Any]) -> None:
    got.thought += data["delta"] if data["type"] == "response.reasoning_text.delta" else ""
    got.said += data["delta"] if data["type"] == "response.output_text.delta" else ""
    if data["type"] == "response.completed":
        got.finish.append(data["response"]["status"])
        got.output = data["response"]["usage"]["output_tokens"]


_READ = {"chat": _chat, "completions": _chat, "messages": _messages, "responses": _responses}
FINISH = {"chat": "stop", "completions": "stop", "messages": "end_turn", "responses": "completed"}
DIALECTS = pytest.mark.parametrize("dialect", PATH)


@asynccontextmanager
async def node(config: dict[str, Any] | None = None, count: int = 1, **settings: Any) -> AsyncIterator[Fleet]:
    async with fleet(count, config, **settings) as made:
        yield made


async def ask(made: Fleet, dialect: str, said: str, **fields: Any) -> tuple[Heard, str]:
    answer = await made.client.post(PATH[dialect], json=body_of(dialect, said, **fields))
    assert answer.status_code == httpx.codes.OK, answer.text
    assert not failed(answer), answer.text
    return heard(dialect, answer.text), answer.text


async def counted(made: Fleet, part: str = "reasoning") -> float:
    text = (await made.client.get(made.gateway.admin_url + "/metrics")).text
    line = f'fleetgate_loops_ended_total{{model="{MODEL}",part="{part}"}} '
    return next((float(each.removeprefix(line)) for each in text.splitlines() if each.startswith(line)), 0.0)


@DIALECTS
async def test_the_answer_follows_the_thought(dialect: str) -> None:
    async with node() as made:
        got, text = await ask(made, dialect, LOOPING)
        assert got.finish == [FINISH[dialect]]
        thought = got.thought or got.said
        assert thought.count(" bridge") >= 3
        assert got.said.split()[-1] not in ("bridge", "capital"), "an answer stands behind the thought"
        assert got.output <= MOST + 10
        if dialect == "chat":
            assert got.reasoning == ENDED and got.output == ENDED + 1 + 7  # the marker, six words and the end
        assert text.count(f": thinking ended after {ENDED}") == 1
        await eventually(lambda: made.nodes[0].running == 0)
        assert await counted(made) == 1


@DIALECTS
async def test_a_thought_that_does_not_loop_is_as_ever(dialect: str) -> None:
    async with node() as looked, node({"loops": {"reasoning": False}}) as unwatched:
        one = normal((await ask(looked, dialect, SHORT))[1])
        assert one == normal((await ask(unwatched, dialect, SHORT))[1])


@DIALECTS
async def test_it_can_be_switched_off(dialect: str) -> None:
    async with node({"loops": {"reasoning": False}}) as made:
        got, text = await ask(made, dialect, LOOPING.replace("3000", "400"))
        assert got.output > 400 and "thinking ended" not in text


async def test_a_tenant_on_a_model_may_differ() -> None:
    config = {"loops": {"reasoning": False}, "models": [{"name": MODEL, "loops": {"reasoning": True, "repeats": 10}}]}
    async with node(config) as made:
        got, _ = await ask(made, "chat", LOOPING)
        assert got.reasoning == FROM + 10 * PERIOD + GUARD


MODES: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    "hidden": ({"thinking": {"hide_reasoning": True}}, {}, {}),
    "left out": ({}, {}, {"include_reasoning": False}),
    "no parser": ({}, {"reasoning_parser": False}, {"skip_special_tokens": False}),
    "no parser, hidden": ({"thinking": {"hide_reasoning": True}}, {"reasoning_parser": False}, {}),
    "older field": ({}, {"reasoning_field": "reasoning_content"}, {}),
    "three tokens an event": ({}, {"tokens_per_event": 3}, {}),
    "eight tokens an event": ({}, {"tokens_per_event": 8}, {}),
    "a budget of the node": ({}, {}, {"thinking_token_budget": 2000}),
    "a budget of the gateway": ({}, {"budget": "disobey"}, {"thinking_token_budget": 2000}),
    "the same, no resume": ({"resume": {"enabled": False}}, {"budget": "absent"}, {"thinking_token_budget": 2000}),
    "the same, no parser": ({}, {"budget": "absent", "reasoning_parser": False}, {"thinking_token_budget": 2000}),
    "ids": ({}, {}, {"return_token_ids": True}),
    "stop strings": ({}, {}, {"stop": ["never written"]}),
    "characters of several tokens": ({}, {}, {}),
}


@pytest.mark.parametrize("mode", MODES)
async def test_in_every_mode(mode: str) -> None:
    config, settings, fields = MODES[mode]
    said = LOOPING + " [[wide]]" if mode.startswith("characters") else LOOPING
    async with node(config, **settings) as made:
        got, text = await ask(made, "chat", said, **fields)
        assert got.finish == ["stop"] and got.said.strip()
        note = re.search(r": thinking ended after (\d+) tokens: the same (\d+) came", text)
        assert note is not None and int(note[2]) == PERIOD
        thought = int(note[1])
        assert ENDED <= thought <= MOST and thought + 1 < got.output <= thought + 30
        if mode == "no parser":  # all of it is content, and says where the thinking ends
            assert got.reasoning is None and got.said.count("</think>") == 1 and not got.said.endswith("</think>")
        else:
            assert got.reasoning == thought and "bridge capital" not in got.said and "think>" not in got.said
        if "hidden" in mode or mode == "left out":
            assert not got.thought


@pytest.mark.parametrize("resume", [True, False], ids=["resume", "no resume"])
@pytest.mark.parametrize("dialect", ["chat", "messages", "responses"])
async def test_a_plain_answer_of_a_held_budget_has_a_header(dialect: str, resume: bool) -> None:
    config = {"thinking": {"max_budget": 2500}, "resume": {"enabled": resume}}
    async with node(config, budget="absent") as made:
        body = body_of(dialect, LOOPING, stream=False)
        body.pop("stream_options", None)
        answer = await made.client.post(PATH[dialect], json=body)
        assert answer.status_code == httpx.codes.OK, answer.text
        assert answer.headers["x-fleetgate-loop-ended"] == f"reasoning; period={PERIOD}; tokens={ENDED}"
        usage = answer.json()["usage"]
        assert ENDED < usage.get("completion_tokens", usage.get("output_tokens")) < ENDED + 20
        assert await counted(made) == 1


async def test_tools_may_be_called_behind_the_loop() -> None:
    async with node() as made:
        got, _ = await ask(made, "chat", LOOPING + " [[call]]", tools=[TOOL])
        assert got.calls and got.finish == ["tool_calls"] and got.reasoning == ENDED


async def test_a_grammar_begins_behind_the_loop() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
    wanted = {"type": "json_schema", "json_schema": {"name": "s", "schema": schema}}
    async with node() as made:
        got, _ = await ask(made, "chat", LOOPING, response_format=wanted)
        assert "a" in json.loads(got.said) and got.reasoning == ENDED


@pytest.mark.parametrize("most", [ENDED - 1, ENDED, ENDED + 1, ENDED + 2, ENDED + 4])
async def test_max_tokens_holds_over_both_parts(most: int) -> None:
    async with node() as made:
        got, _ = await ask(made, "chat", LOOPING, max_tokens=most)
        assert got.finish == ["length"] and most <= got.output <= max(most, ENDED + 1)


@pytest.mark.parametrize("budget", [ENDED - 1, ENDED, ENDED + 1])
@pytest.mark.parametrize("manners", ["obey", "disobey"])
async def test_a_budget_that_is_spent_where_the_loop_is_found(budget: int, manners: str) -> None:
    async with node(budget=manners) as made:
        got, _ = await ask(made, "chat", LOOPING, thinking_token_budget=budget)
        assert got.finish == ["stop"] and got.said
        assert got.reasoning is not None and budget - 2 <= got.reasoning <= ENDED


@pytest.mark.parametrize("dialect", ["chat", "messages", "completions"])
@pytest.mark.parametrize("after", [30, ENDED - 10, ENDED - 1])
async def test_a_loop_that_goes_on_on_another_node_is_ended(dialect: str, after: int) -> None:
    path = "/v1/completions" if dialect == "completions" else "/v1/chat"
    async with node(count=2) as made:
        expected, _ = await ask(made, dialect, LOOPING)
        made.break_off(Fault("die", after=after, next=1, path=path))
        got, text = await ask(made, dialect, LOOPING)
        assert ": resumed on another node" in text and ": thinking ended after" in text
        assert (got.thought, got.said, got.finish) == (expected.thought, expected.said, expected.finish)
        assert got.output == expected.output


@pytest.mark.parametrize("dialect", ["chat", "messages"])
async def test_an_answer_behind_a_loop_goes_on_on_another_node(dialect: str) -> None:
    async with node(count=2) as made:
        expected, _ = await ask(made, dialect, LOOPING)
        for after in range(1, 6):
            made.break_off(Fault("die", after=after, next=1, path="/v1/completions"))
            got, _ = await ask(made, dialect, LOOPING)
            made.heal()
            assert (got.thought, got.said, got.finish) == (expected.thought, expected.said, expected.finish), after
            assert got.output == expected.output


@pytest.mark.parametrize("path", ["/tokenize", "/v1/completions"])
async def test_a_node_that_dies_while_the_thought_is_ended(path: str) -> None:
    async with node(count=2) as made:
        expected, _ = await ask(made, "chat", LOOPING)
        made.break_off(Fault("die", after=0, next=1, path=path))
        got, _ = await ask(made, "chat", LOOPING)
        assert (got.thought, got.said, got.finish) == (expected.thought, expected.said, expected.finish)


async def test_a_client_that_leaves_behind_a_loop_frees_the_node() -> None:
    async with node(rate=200) as made:
        body = body_of("chat", LOOPING + " [[answer=3000]]")
        async with made.client.stream("POST", PATH["chat"], json=body) as answer:
            async for line in answer.aiter_lines():
                if line.startswith(": thinking ended"):
                    break
        await eventually(lambda: made.nodes[0].running == 0)
        await eventually(lambda: not made.gateway.app.relay.open_exchanges)


@DIALECTS
async def test_a_loop_in_the_answer_is_left_alone(dialect: str) -> None:
    async with node() as made:
        said = TALKING.replace("3000", "300")
        got, text = await ask(made, dialect, said)
        assert got.output > 300 and "ended after" not in text


@DIALECTS
async def test_a_loop_in_the_answer_ends_it_where_that_is_set(dialect: str) -> None:
    async with node({"loops": {"answer": True}}) as made:
        got, text = await ask(made, dialect, TALKING)
        assert got.finish == [FINISH[dialect]] and text.count(": answer ended after") == 1
        assert text.rstrip().endswith("[DONE]") or dialect in ("messages", "responses")
        assert got.output <= 8 + MOST + 10
        await eventually(lambda: made.nodes[0].running == 0)
        assert await counted(made, "answer") == 1


async def test_a_loop_of_thought_and_answer_is_ended_twice() -> None:
    async with node({"loops": {"answer": True}}) as made:
        got, text = await ask(made, "chat", LOOPING + f" [[answer=3000]] [[answer_loop={PERIOD}]]")
        assert got.finish == ["stop"] and got.reasoning == ENDED
        assert ": thinking ended" in text and ": answer ended" in text
        assert got.output <= 2 * MOST + 10


async def test_a_plain_answer_that_loops_has_a_header() -> None:
    config = {"thinking": {"max_budget": 2500}, "loops": {"answer": True}}
    async with node(config, budget="absent") as made:
        body = body_of("chat", TALKING, stream=False)
        del body["stream_options"]
        answer = await made.client.post(PATH["chat"], json=body)
        assert answer.headers["x-fleetgate-loop-ended"].startswith(f"answer; period={PERIOD}")
        assert answer.json()["choices"][0]["finish_reason"] == "stop"
