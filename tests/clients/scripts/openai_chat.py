"""OpenAI's SDK, chat completions."""

import json

import openai
from openai import OpenAI

from tests.clients.proof import (
    CALM,
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
    """Reasoning is a field that the SDK does not know and keeps."""
    messages = [{"role": "user", "content": QUESTION}]
    asked = {"model": MODEL, "messages": messages, "max_tokens": 200, "temperature": 0}
    answer = client.chat.completions.create(**asked, extra_body={"thinking_token_budget": 32})
    print(answer.choices[0].message.reasoning, answer.choices[0].message.content, answer.usage)
    assert answer.choices[0].message.reasoning
    assert answer.choices[0].message.content
    assert answer.choices[0].finish_reason in ("stop", "length")
    assert answer.usage.completion_tokens > answer.usage.completion_tokens_details.reasoning_tokens > 0
    assert answer._request_id


def streaming() -> None:
    """Reasoning, then content, then usage."""
    messages = [{"role": "user", "content": QUESTION}]
    asked = {"model": MODEL, "messages": messages, "max_tokens": 200, "temperature": 0}
    asked |= {"extra_body": {"thinking_token_budget": 32}, "stream_options": {"include_usage": True}}
    chunks = list(client.chat.completions.create(**asked, stream=True))
    deltas = [chunk.choices[0].delta for chunk in chunks if chunk.choices]
    thought = [at for at, delta in enumerate(deltas) if getattr(delta, "reasoning", None)]
    said = [at for at, delta in enumerate(deltas) if delta.content]
    assert len(said) > 1
    assert len(thought) > 1
    assert thought[-1] <= said[0]
    assert chunks[-1].usage.completion_tokens > 0
    assert client.models.retrieve(MODEL).id == MODEL


def tools() -> None:
    """Call, result, final answer; the streaming helper puts the same call together."""
    asked = {"model": MODEL, "max_tokens": 100, "temperature": 0, "extra_body": CALM}
    asked |= {"tools": [{"type": "function", "function": WEATHER}]}
    messages = [{"role": "user", "content": WEATHER_QUESTION}]
    called = client.chat.completions.create(**asked, messages=messages, tool_choice="required").choices[0].message
    call = called.tool_calls[0]
    with client.chat.completions.stream(**asked, messages=messages, tool_choice="required") as stream:
        streamed = stream.get_final_completion().choices[0].message.tool_calls[0]
    assert (streamed.function.name, streamed.function.arguments) == (call.function.name, call.function.arguments)
    result = get_weather(**json.loads(call.function.arguments))
    messages += [called, {"role": "tool", "tool_call_id": call.id, "content": result}]
    final = client.chat.completions.create(**asked, messages=messages, tool_choice="none")
    assert final.choices[0].message.content


def wrong_key() -> None:
    """The SDK's own error, with the gateway's code."""
    try:
        OpenAI(base_url=f"{URL}/v1", api_key=WRONG_KEY).models.list()
    except openai.AuthenticationError as error:
        assert error.code == "invalid_api_key"
    else:
        raise AssertionError("a wrong key was taken")


if __name__ == "__main__":
    prove("openai", reasoning="`message.reasoning`", plain=plain, streaming=streaming, tools=tools, wrong_key=wrong_key)
