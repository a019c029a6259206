"""LiteLLM as a client."""

import json

import litellm

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

PLACE = {"model": f"hosted_vllm/{MODEL}", "api_base": f"{URL}/v1", "api_key": KEY}


def plain() -> None:
    """LiteLLM gives reasoning by its own name."""
    place = {"model": f"hosted_vllm/{MODEL}", "api_base": f"{URL}/v1", "api_key": KEY}
    asked = {"messages": [{"role": "user", "content": QUESTION}], "max_tokens": 200, "temperature": 0}
    answer = litellm.completion(**place, **asked, extra_body={"thinking_token_budget": 32})
    print(answer.choices[0].message.reasoning_content, answer.choices[0].message.content, answer.usage)
    assert answer.choices[0].message.reasoning_content
    assert answer.choices[0].message.content
    assert answer.usage.completion_tokens > 0


def streaming() -> None:
    """Reasoning, then content, then usage."""
    messages = [{"role": "user", "content": QUESTION}]
    asked = {**PLACE, "messages": messages, "max_tokens": 200, "temperature": 0, "stream": True}
    asked |= {"extra_body": {"thinking_token_budget": 32}, "stream_options": {"include_usage": True}}
    chunks = list(litellm.completion(**asked))
    deltas = [chunk.choices[0].delta for chunk in chunks if chunk.choices]
    assert sum(bool(getattr(delta, "reasoning_content", None)) for delta in deltas) > 1
    assert sum(bool(delta.content) for delta in deltas) > 1
    assert chunks[-1].usage.completion_tokens > 0


def tools() -> None:
    """Call, result, final answer; streamed, the call is the same."""
    tool = {"type": "function", "function": WEATHER}
    asked = {**PLACE, "max_tokens": 100, "temperature": 0, "extra_body": CALM, "tools": [tool]}
    named = {"type": "function", "function": {"name": "get_weather"}}
    messages = [{"role": "user", "content": WEATHER_QUESTION}]
    called = litellm.completion(**asked, messages=messages, tool_choice=named).choices[0].message
    call = called.tool_calls[0]
    chunks = list(litellm.completion(**asked, messages=messages, tool_choice=named, stream=True))
    streamed = litellm.stream_chunk_builder(chunks).choices[0].message.tool_calls[0]
    assert (streamed.function.name, streamed.function.arguments) == (call.function.name, call.function.arguments)
    # LiteLLM takes `strict` out for vLLM, and what the tiny model then puts in is not always a city.
    assert isinstance(json.loads(call.function.arguments), dict)
    messages += [called.model_dump(), {"role": "tool", "tool_call_id": call.id, "content": get_weather("Paris")}]
    final = litellm.completion(**asked, messages=messages, tool_choice="none")
    assert final.choices[0].message.content


def wrong_key() -> None:
    """LiteLLM's own error."""
    messages = [{"role": "user", "content": QUESTION}]
    try:
        litellm.completion(**PLACE | {"api_key": WRONG_KEY}, messages=messages)
    except litellm.AuthenticationError as error:
        assert error.status_code == 401
    else:
        raise AssertionError("a wrong key was taken")


if __name__ == "__main__":
    where = "`message.reasoning_content`"
    prove("litellm", reasoning=where, plain=plain, streaming=streaming, tools=tools, wrong_key=wrong_key)
