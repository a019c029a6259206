"""OpenAI's SDK, responses."""

import json

import openai
from openai import OpenAI

from tests.clients.proof import (
    KEY,
    MODEL,
    QUESTION,
    URL,
    WEATHER,
    WEATHER_QUESTION,
    WRONG_KEY,
    get_weather,
    prove,
)

client = OpenAI(base_url=f"{URL}/v1", api_key=KEY)


def plain() -> None:
    """Reasoning is an item of the output; a stored response can be fetched again."""
    answer = client.responses.create(model=MODEL, input=QUESTION, max_output_tokens=200, temperature=0)
    print([item.type for item in answer.output], answer.output_text, answer.usage)
    assert answer.output[0].type == "reasoning"
    assert answer.output[0].content[0].text
    assert answer.usage.output_tokens >= answer.usage.output_tokens_details.reasoning_tokens > 0
    # This dialect takes no budget of a few tokens, and the tiny model may think to the end: so once without.
    brief = {"max_output_tokens": 60, "temperature": 0, "reasoning": {"effort": "none"}}
    answer = client.responses.create(model=MODEL, input=QUESTION, **brief)
    assert [item.type for item in answer.output] == ["message"]
    assert answer.output_text
    assert answer._request_id
    assert client.responses.retrieve(answer.id).output_text == answer.output_text


def streaming() -> None:
    """The helper follows the events to the same response."""
    for effort, delta in (("high", "response.reasoning_text.delta"), ("none", "response.output_text.delta")):
        asked = {"model": MODEL, "input": QUESTION, "max_output_tokens": 100, "temperature": 0}
        asked |= {"reasoning": {"effort": effort}}
        with client.responses.stream(**asked) as stream:
            events = list(stream)
            final = stream.get_final_response()
        kinds = [event.type for event in events]
        assert kinds[0] == "response.created"
        assert kinds[-1] == "response.completed"
        assert kinds.count(delta) > 1
        assert final.usage.output_tokens > 0
        text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
        assert text == final.output_text


def tools() -> None:
    """Call, result, final answer; streamed, the call is the same."""
    asked = {"model": MODEL, "max_output_tokens": 100, "temperature": 0, "reasoning": {"effort": "none"}}
    asked |= {"tools": [{"type": "function", **WEATHER}]}
    called = client.responses.create(**asked, input=WEATHER_QUESTION, tool_choice="required")
    call = next(item for item in called.output if item.type == "function_call")
    with client.responses.stream(**asked, input=WEATHER_QUESTION, tool_choice="required") as stream:
        streamed = next(item for item in stream.get_final_response().output if item.type == "function_call")
    assert (streamed.name, json.loads(streamed.arguments)) == (call.name, json.loads(call.arguments))
    result = get_weather(**json.loads(call.arguments))
    given = [{"role": "user", "content": WEATHER_QUESTION}, call.model_dump(exclude_none=True)]
    given += [{"type": "function_call_output", "call_id": call.call_id, "output": result}]
    # Without the tools: with them the tiny model says nothing about the result.
    assert client.responses.create(**asked | {"tools": []}, input=given).output_text


def wrong_key() -> None:
    """The SDK's own error, with the gateway's code."""
    try:
        OpenAI(base_url=f"{URL}/v1", api_key=WRONG_KEY).responses.create(model=MODEL, input=QUESTION)
    except openai.AuthenticationError as error:
        assert error.code == "invalid_api_key"
    else:
        raise AssertionError("a wrong key was taken")


if __name__ == "__main__":
    where = "item `reasoning`"
    prove("openai", reasoning=where, plain=plain, streaming=streaming, tools=tools, wrong_key=wrong_key)
