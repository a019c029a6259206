"""Conversations that the gateway keeps for a real vLLM: the prompt is the one that the items themselves would make."""

import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest

from tests.real.conftest import Server, serving
from tests.real.transparency_cases import MODEL
from tests.support.redis import RedisServer

pytestmark = pytest.mark.real

ASKED: Any = {"model": MODEL, "temperature": 0, "max_output_tokens": 60}
TOOL: Any = {
    "type": "function",
    "name": "get_weather",
    "description": "Get the weather of a city.",
    "strict": True,
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string", "enum": ["Paris", "Rome"]}},
        "required": ["city"],
        "additionalProperties": False,
    },
}


@pytest.fixture(scope="module")
def client(vllm: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[openai.OpenAI]:
    """Of a gateway of two worker processes, which share a Redis and grant budgets."""
    folder = tmp_path_factory.mktemp("kept")
    redis = RedisServer("valkey9", folder)
    redis.start()
    config = {
        "nodes": [{"url": vllm.url}],
        "workers": 2,
        "redis": redis.settings,
        "response_secret": "of this test, and of nobody else",
        "thinking": {"default_budget": 12},
    }
    file = folder / "fleetgate.yaml"
    file.write_text(json.dumps(config))
    try:
        with serving(folder, "-c", str(file)) as server:
            with openai.OpenAI(base_url=f"{server.url}/v1", api_key="any", max_retries=0, timeout=60) as made:
                yield made
    finally:
        redis.stop()


def test_a_conversation_is_the_prompt_that_its_items_make(client: openai.OpenAI) -> None:
    first = client.responses.create(input="My name is Ada. Remember it.", **ASKED)
    streamed = client.responses.create(input="What is my name?", previous_response_id=first.id, stream=True, **ASKED)
    second = list(streamed)[-1].response  # the tiny model may run into its limit: then it is `response.incomplete`
    items: Any = [
        {"role": "user", "content": "My name is Ada. Remember it."},
        *(item.model_dump(exclude_none=True) for item in first.output),
        {"role": "user", "content": "What is my name?"},
    ]
    alone = client.responses.create(input=items, store=False, **ASKED)
    assert second.usage is not None and alone.usage is not None
    assert second.usage.input_tokens == alone.usage.input_tokens > 0
    assert second.output_text == alone.output_text
    for response in (first, second):
        found = [client.responses.retrieve(response.id).output for _ in range(4)]
        assert found == [response.output] * 4
    client.responses.delete(first.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(first.id)


def test_a_tool_loop_by_references(client: openai.OpenAI) -> None:
    question: Any = {"role": "user", "content": "What is the weather in Paris? Use the tool."}
    asked: Any = {**ASKED, "tools": [TOOL], "reasoning": {"effort": "none"}}
    called = client.responses.create(input=[question], tool_choice="required", **asked)
    call = next(item for item in called.output if item.type == "function_call")
    output = {"type": "function_call_output", "call_id": call.call_id, "output": "Sunny"}
    by_name: Any = [question, *({"type": "item_reference", "id": item.id} for item in called.output), output]
    whole: Any = [question, *(item.model_dump(exclude_none=True) for item in called.output), output]
    answers = [client.responses.create(input=given, **asked) for given in (by_name, whole)]
    assert [answer.usage and answer.usage.input_tokens for answer in answers] == [
        answers[0].usage and answers[0].usage.input_tokens
    ] * 2
    assert [item.type for item in client.responses.input_items.list(answers[0].id, order="asc")][-1] == (
        "function_call_output"
    )
