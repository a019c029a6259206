"""Anthropic's SDK, messages."""

import anthropic
from anthropic import Anthropic

from tests.clients.proof import (
    CITY,
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

client = Anthropic(base_url=URL, api_key=KEY)
COLD = {"temperature": 0}
OFF = {"type": "disabled"}


def plain() -> None:
    """Thinking is a block before the text. The SDK has no temperature any more."""
    messages = [{"role": "user", "content": QUESTION}]
    answer = client.messages.create(model=MODEL, messages=messages, max_tokens=200, extra_body=COLD)
    print(answer.content, answer.stop_reason, answer.usage)
    assert answer.content[0].type == "thinking"
    assert answer.content[0].thinking
    assert answer.stop_reason in ("end_turn", "max_tokens")
    assert answer.usage.output_tokens > 0
    counted = client.messages.count_tokens(model=MODEL, messages=messages).input_tokens
    assert answer.usage.input_tokens + (answer.usage.cache_read_input_tokens or 0) == counted
    assert answer._request_id
    # This dialect takes no budget under 1024, and the tiny model may think to the end: so once without.
    answer = client.messages.create(model=MODEL, messages=messages, max_tokens=60, thinking=OFF, extra_body=COLD)
    assert [block.type for block in answer.content] == ["text"]
    assert answer.content[0].text


def streaming() -> None:
    """The helper puts the events together to the same message."""
    messages = [{"role": "user", "content": QUESTION}]
    for thinking, delta in (({"type": "adaptive"}, "thinking"), (OFF, "text")):
        asked = {"model": MODEL, "messages": messages, "max_tokens": 100, "thinking": thinking, "extra_body": COLD}
        with client.messages.stream(**asked) as stream:
            kinds = [event.type for event in stream]
            final = stream.get_final_message()
        assert kinds[0] == "message_start"
        assert kinds[-1] == "message_stop"
        assert kinds.count(delta) > 1
        assert final.content[0].type == delta
        assert final.usage.output_tokens > 0


def tools() -> None:
    """Call, result, final answer; streamed, the call is the same."""
    tool = {"name": "get_weather", "description": WEATHER["description"], "strict": True, "input_schema": CITY}
    plain = {"model": MODEL, "max_tokens": 100, "thinking": OFF, "extra_body": COLD}
    asked = {**plain, "tools": [tool]}
    messages = [{"role": "user", "content": WEATHER_QUESTION}]
    named = {"type": "tool", "name": "get_weather"}
    called = client.messages.create(**asked, messages=messages, tool_choice=named)
    call = next(block for block in called.content if block.type == "tool_use")
    with client.messages.stream(**asked, messages=messages, tool_choice=named) as stream:
        streamed = next(block for block in stream.get_final_message().content if block.type == "tool_use")
    assert (streamed.name, streamed.input) == (call.name, call.input)
    result = {"type": "tool_result", "tool_use_id": call.id, "content": get_weather(**call.input)}
    messages += [{"role": "assistant", "content": [call.model_dump(include={"type", "id", "name", "input"})]}]
    messages += [{"role": "user", "content": [result]}]
    # Without the tools: with them the tiny model says nothing about the result.
    assert client.messages.create(**plain, messages=messages).content[-1].text


def wrong_key() -> None:
    """The SDK's own error, in Anthropic's format."""
    messages = [{"role": "user", "content": QUESTION}]
    try:
        Anthropic(base_url=URL, api_key=WRONG_KEY).messages.create(model=MODEL, messages=messages, max_tokens=10)
    except anthropic.AuthenticationError as error:
        assert error.body["error"]["type"] == "authentication_error"
    else:
        raise AssertionError("a wrong key was taken")


if __name__ == "__main__":
    prove("anthropic", reasoning="block `thinking`", plain=plain, streaming=streaming, tools=tools, wrong_key=wrong_key)
