"""LlamaIndex's OpenAILike."""

import openai
from llama_index.core.llms import ChatMessage
from llama_index.core.tools import FunctionTool
from llama_index.llms.openai_like import OpenAILike

from tests.clients import proof
from tests.clients.proof import CALM, KEY, MODEL, QUESTION, URL, WEATHER_QUESTION, WRONG_KEY, prove


def plain() -> None:
    """Reasoning is a thinking block."""
    llm = OpenAILike(MODEL, api_base=f"{URL}/v1", api_key=KEY, is_chat_model=True, max_tokens=200, temperature=0)
    answer = llm.chat([ChatMessage(QUESTION)], extra_body={"thinking_token_budget": 32})
    print(answer.message.content, answer.raw.usage)
    assert answer.message.content
    assert [block.block_type for block in answer.message.blocks] == ["thinking", "text"]
    assert answer.message.blocks[0].content
    assert answer.raw.usage.completion_tokens > 0


def streaming() -> None:
    """Thinking and text grow; usage comes where it is asked for."""
    llm = OpenAILike(MODEL, api_base=f"{URL}/v1", api_key=KEY, is_chat_model=True, max_tokens=200, temperature=0)
    asked = {"extra_body": {"thinking_token_budget": 32}, "stream_options": {"include_usage": True}}
    answers = list(llm.stream_chat([ChatMessage(QUESTION)], **asked))
    assert sum(bool(answer.delta) for answer in answers) > 1
    assert sum("thinking_delta" in answer.additional_kwargs for answer in answers) > 1
    assert answers[-1].message.content
    assert answers[-1].raw.usage.completion_tokens > 0


def get_weather(city: proof.City) -> str:
    """Get the weather of a city."""
    return proof.get_weather(city)


def tools() -> None:
    """Call, result, final answer; streamed, the call is the same."""
    llm = OpenAILike(
        MODEL,
        api_base=f"{URL}/v1",
        api_key=KEY,
        is_chat_model=True,
        is_function_calling_model=True,
        strict=True,
        max_tokens=100,
        temperature=0,
        additional_kwargs={"extra_body": CALM},
    )
    tool = FunctionTool.from_defaults(get_weather)
    asked = {"tools": [tool], "user_msg": WEATHER_QUESTION, "tool_choice": "get_weather"}
    called = llm.chat_with_tools(**asked)
    call = llm.get_tool_calls_from_response(called)[0]
    streamed = list(llm.stream_chat_with_tools(**asked))[-1]
    assert llm.get_tool_calls_from_response(streamed)[0].tool_kwargs == call.tool_kwargs
    result = ChatMessage(
        tool(**call.tool_kwargs).content, role="tool", additional_kwargs={"tool_call_id": call.tool_id}
    )
    history = [ChatMessage(WEATHER_QUESTION), called.message, result]
    assert llm.chat_with_tools([tool], chat_history=history, tool_choice="none").message.content


def wrong_key() -> None:
    """OpenAI's error, as LlamaIndex lets it through."""
    llm = OpenAILike(MODEL, api_base=f"{URL}/v1", api_key=WRONG_KEY, is_chat_model=True)
    try:
        llm.chat([ChatMessage(QUESTION)])
    except openai.AuthenticationError as error:
        assert error.code == "invalid_api_key"
    else:
        raise AssertionError("a wrong key was taken")


if __name__ == "__main__":
    prove(
        "llama-index-llms-openai-like",
        reasoning="block `thinking`",
        plain=plain,
        streaming=streaming,
        tools=tools,
        wrong_key=wrong_key,
    )
