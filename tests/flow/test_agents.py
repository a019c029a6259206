"""What coding agents send, through a whole gateway to a fake node: in the node's own dialects and over chat."""

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from tests.flow.test_over_chat import FUNCTION, MODEL, OVER_CHAT, RESPONSES, Both, ask, asked_last, turn
from tests.support.gateways import running_gateway
from tests.support.meaning import events_of
from workers.fake import FakeSettings, serve_fake

pytestmark = pytest.mark.asyncio(loop_scope="module")
STREAM = pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def both() -> AsyncIterator[Both]:
    async with (
        serve_fake(FakeSettings(responses_store=False)) as node,
        running_gateway(node.url, resume={"enabled": False}) as native,
        running_gateway(node.url, **OVER_CHAT) as over_chat,
    ):
        yield Both(node, native.url, over_chat.url)


def as_codex_sends_it_back(item: dict[str, Any]) -> dict[str, Any]:
    """Without ids, and without the content of thoughts."""
    left_out = ("id", "status", "content") if item["type"] == "reasoning" else ("id", "status")
    return {name: value for name, value in item.items() if name not in left_out}


@STREAM
async def test_codexs_thoughts_reach_the_model_again(both: Both, stream: bool) -> None:
    codex: dict[str, Any] = {"tools": [FUNCTION], "store": False, "include": ["reasoning.encrypted_content"]}
    asked = [turn("weather? [[call]]")]
    got = await ask(both.over_chat, RESPONSES, {**codex, "input": asked, "stream": stream})
    made = (events_of(got.content)[-1]["response"] if stream else got.json())["output"]
    assert [item["type"] for item in made] == ["reasoning", "function_call"]
    history = [*asked, *map(as_codex_sends_it_back, made)]
    assert "reasoning_text" not in json.dumps(history)
    output = {"type": "function_call_output", "call_id": made[1]["call_id"], "output": "Sunny"}
    for url in (both.over_chat, both.native):
        again = await ask(url, RESPONSES, {**codex, "input": [*history, output], "stream": stream})
        assert again.status_code == 200, again.text
        sent = asked_last(both.node).json
        thought = made[0]["content"][0]["text"]
        if url == both.over_chat:
            assert [message["role"] for message in sent["messages"]] == ["user", "assistant", "tool"]
            assert sent["messages"][1]["reasoning"] == thought
        else:
            assert sent["input"][1]["content"] == [{"type": "reasoning_text", "text": thought}]
            assert "encrypted_content" not in sent["input"][1]


@STREAM
async def test_a_tool_with_a_grammar_there_and_back(both: Both, stream: bool) -> None:
    """Codex's apply_patch. A node refuses grammars: it gets a tool for free text, and the model is told the grammar."""
    form = {"type": "grammar", "syntax": "lark", "definition": "start: /.+/"}
    tool = {"type": "custom", "name": "apply_patch", "description": "Edits files.", "format": form}
    asked = [turn("patch [[call]]")]
    for url in (both.over_chat, both.native):
        got = await ask(url, RESPONSES, {"input": asked, "tools": [tool], "stream": stream})
        assert got.status_code == 200, got.text
        sent = asked_last(both.node).json["tools"][0]
        told = "Edits files.\n\nThe input follows this grammar (lark):\nstart: /.+/"
        if url == both.native:  # where the fake node offers no custom tools to its model
            assert (sent["format"], sent["description"]) == ({"type": "text"}, told)
            continue
        assert sent["function"]["description"] == told
        events = events_of(got.content) if stream else []
        call = (events[-1]["response"] if stream else got.json())["output"][-1]
        assert (call["type"], call["name"]) == ("custom_tool_call", "apply_patch")
        if stream:
            done = next(event for event in events if event["type"] == "response.custom_tool_call_input.done")
            assert done["input"] == call["input"]
        output = {"type": "custom_tool_call_output", "call_id": call["call_id"], "output": "Done"}
        items = [*asked, as_codex_sends_it_back(call), output]
        again = await ask(url, RESPONSES, {"input": items, "tools": [tool], "stream": stream})
        assert again.status_code == 200, again.text
        messages = asked_last(both.node).json["messages"]
        assert json.loads(messages[1]["tool_calls"][0]["function"]["arguments"]) == {"input": call["input"]}
        assert messages[2] == {"role": "tool", "tool_call_id": call["call_id"], "content": "Done"}
        assert asked_last(both.node).json["model"] == MODEL
