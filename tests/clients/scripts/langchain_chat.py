"""LangChain's ChatOpenAI."""

import openai
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_openai import ChatOpenAI

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


def plain() -> None:
    """ChatOpenAI drops fields that are not OpenAI's, reasoning among them; its tokens are counted."""
    llm = ChatOpenAI(base_url=f"{URL}/v1", api_key=KEY, model=MODEL, max_tokens=200, temperature=0)
    answer = llm.invoke(QUESTION, extra_body={"thinking_token_budget": 32})
    print(answer.content, answer.usage_metadata)
    assert answer.content
    assert answer.usage_metadata["output_tokens"] > 0
    assert answer.usage_metadata["output_token_details"]["reasoning"] > 0
    assert "reasoning" not in answer.additional_kwargs
    blocks = llm.model_copy(update={"use_responses_api": True}).invoke(QUESTION).content
    assert blocks[0]["type"] == "reasoning"
    assert blocks[0]["content"][0]["text"]


def streaming() -> None:
    """Chunks add up to a message, with usage."""
    llm = ChatOpenAI(base_url=f"{URL}/v1", api_key=KEY, model=MODEL, max_tokens=200, temperature=0)
    chunks = list(llm.stream(QUESTION, extra_body={"thinking_token_budget": 32}, stream_usage=True))
    whole = chunks[0]
    for chunk in chunks[1:]:
        whole += chunk
    assert sum(bool(chunk.content) for chunk in chunks) > 1
    assert whole.content
    assert whole.usage_metadata["output_tokens"] > 0


def tools() -> None:
    """Call, result, final answer; streamed, the call is the same."""
    llm = ChatOpenAI(base_url=f"{URL}/v1", api_key=KEY, model=MODEL, max_tokens=100, temperature=0, extra_body=CALM)
    tool = {"type": "function", "function": WEATHER}
    forced = llm.bind_tools([tool], tool_choice="get_weather")
    question = HumanMessage(WEATHER_QUESTION)
    called = forced.invoke([question])
    call = called.tool_calls[0]
    chunks = list(forced.stream([question]))
    streamed = chunks[0]
    for chunk in chunks[1:]:
        streamed += chunk
    assert streamed.tool_calls[0]["args"] == call["args"]
    result = ToolMessage(get_weather(**call["args"]), tool_call_id=call["id"])
    assert llm.bind_tools([tool], tool_choice="none").invoke([question, called, result]).content


def wrong_key() -> None:
    """OpenAI's error, which LangChain's own derives from."""
    try:
        ChatOpenAI(base_url=f"{URL}/v1", api_key=WRONG_KEY, model=MODEL).invoke(QUESTION)
    except openai.AuthenticationError as error:
        assert error.code == "invalid_api_key"
    else:
        raise AssertionError("a wrong key was taken")


if __name__ == "__main__":
    where = "dropped by the client on chat; block `reasoning` with `use_responses_api=True`"
    prove("langchain-openai", reasoning=where, plain=plain, streaming=streaming, tools=tools, wrong_key=wrong_key)
