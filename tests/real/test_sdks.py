"""The official SDKs of OpenAI and Anthropic, as their users use them, against a real vLLM through the gateway."""

from collections.abc import AsyncIterator, Iterator
from typing import Any, Literal

import anthropic
import openai
import pytest
import pytest_asyncio
from pydantic import BaseModel

from tests.real.conftest import Server
from tests.real.transparency_cases import MESSAGES_TOOLS, MODEL, NAMED_TOOL, STRICT_TOOLS

pytestmark = pytest.mark.real

QUESTION = "What is the capital of France?"
NO_THINKING = {"chat_template_kwargs": {"enable_thinking": False}}


class Capital(BaseModel):
    """What structured answers are parsed into."""

    continent: Literal["Europe", "Asia"]


@pytest.fixture
def openai_client(gateway: Server) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="any", max_retries=0, timeout=60) as client:
        yield client


@pytest_asyncio.fixture
async def async_openai(gateway: Server) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key="any", max_retries=0, timeout=60) as client:
        yield client


@pytest.fixture
def anthropic_client(gateway: Server) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=gateway.url, api_key="any", max_retries=0, timeout=60) as client:
        yield client


@pytest_asyncio.fixture
async def async_anthropic(gateway: Server) -> AsyncIterator[anthropic.AsyncAnthropic]:
    async with anthropic.AsyncAnthropic(base_url=gateway.url, api_key="any", max_retries=0, timeout=60) as client:
        yield client


def test_chat(openai_client: openai.OpenAI) -> None:
    """A plain answer has text and usage; its request id is the gateway's."""
    answer = openai_client.chat.completions.create(
        model=MODEL,
        messages=[{"role": "user", "content": QUESTION}],
        max_tokens=16,
        temperature=0,
        extra_body=NO_THINKING,
    )
    assert "Paris" in (answer.choices[0].message.content or "")
    assert answer.usage is not None
    assert answer.usage.completion_tokens > 0
    assert answer._request_id


def test_chat_thinks(openai_client: openai.OpenAI) -> None:
    """Reasoning comes in vLLM's own field, which the SDK keeps."""
    answer = openai_client.chat.completions.create(
        model=MODEL, messages=[{"role": "user", "content": QUESTION}], max_tokens=16, temperature=0
    )
    assert answer.choices[0].message.model_extra
    assert answer.choices[0].message.model_extra["reasoning"]


def test_chat_streamed(openai_client: openai.OpenAI) -> None:
    """Without asking for usage none comes, and the last chunk tells why it ended."""
    chunks = list(
        openai_client.chat.completions.create(
            model=MODEL,
            messages=[{"role": "user", "content": QUESTION}],
            max_tokens=8,
            temperature=0,
            stream=True,
            extra_body=NO_THINKING,
        )
    )
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert chunks[-1].choices[0].finish_reason in ("stop", "length")
    assert all(chunk.usage is None for chunk in chunks)


def test_chat_stream_helper(openai_client: openai.OpenAI) -> None:
    """The helper puts the events together to the same answer, with usage where it was asked for."""
    with openai_client.chat.completions.stream(
        model=MODEL,
        messages=[{"role": "user", "content": QUESTION}],
        max_tokens=16,
        temperature=0,
        stream_options={"include_usage": True},
        extra_body=NO_THINKING,
    ) as stream:
        kinds = {event.type for event in stream}
        answer = stream.get_final_completion()
    assert {"chunk", "content.delta", "content.done"} <= kinds
    assert "Paris" in (answer.choices[0].message.content or "")
    assert answer.usage is not None


def test_chat_tools(openai_client: openai.OpenAI) -> None:
    """A forced call can be parsed, plain and by the streaming helper."""
    asked: dict[str, Any] = {
        "model": MODEL,
        "messages": [{"role": "user", "content": "What is the weather in Paris?"}],
        "tools": STRICT_TOOLS,
        "tool_choice": NAMED_TOOL,
        "max_tokens": 80,
        "temperature": 0,
        "extra_body": NO_THINKING,
    }
    answer = openai_client.chat.completions.create(**asked)
    call = answer.choices[0].message.tool_calls[0]
    assert call.function.name == "get_weather"
    with openai_client.chat.completions.stream(**asked) as stream:
        streamed = stream.get_final_completion().choices[0].message.tool_calls
    assert streamed
    assert streamed[0].function.arguments == call.function.arguments


def test_chat_parsed(openai_client: openai.OpenAI) -> None:
    """An answer in a schema comes back as the caller's own type."""
    answer = openai_client.chat.completions.parse(
        model=MODEL,
        messages=[{"role": "user", "content": "Where is Paris?"}],
        response_format=Capital,
        max_tokens=40,
        temperature=0,
        extra_body=NO_THINKING,
    )
    assert isinstance(answer.choices[0].message.parsed, Capital)


async def test_chat_async(async_openai: openai.AsyncOpenAI) -> None:
    """Plain and streamed, with the same text."""
    messages: Any = [{"role": "user", "content": QUESTION}]
    plain = await async_openai.chat.completions.create(
        model=MODEL, messages=messages, max_tokens=12, temperature=0, extra_body=NO_THINKING
    )
    text = ""
    async with async_openai.chat.completions.stream(
        model=MODEL,
        messages=messages,
        max_tokens=12,
        temperature=0,
        extra_body=NO_THINKING,
    ) as stream:
        async for event in stream:
            if event.type == "content.delta":
                text += event.delta
    assert text == plain.choices[0].message.content


def test_completions(openai_client: openai.OpenAI) -> None:
    """The older endpoint, plain and streamed."""
    plain = openai_client.completions.create(
        model=MODEL, prompt="The capital of France is", max_tokens=4, temperature=0
    )
    chunks = openai_client.completions.create(
        model=MODEL, prompt="The capital of France is", max_tokens=4, temperature=0, stream=True
    )
    assert "".join(chunk.choices[0].text for chunk in chunks) == plain.choices[0].text


def test_responses(openai_client: openai.OpenAI) -> None:
    """Created, then fetched again by its id."""
    made = openai_client.responses.create(
        model=MODEL, input=QUESTION, max_output_tokens=16, temperature=0, reasoning={"effort": "none"}
    )
    assert "Paris" in made.output_text
    assert openai_client.responses.retrieve(made.id).output_text == made.output_text


def test_responses_cancelled(openai_client: openai.OpenAI) -> None:
    """One in the background is cancelled by its id."""
    made = openai_client.responses.create(
        model=MODEL,
        input="Tell me a long story.",
        max_output_tokens=2000,
        background=True,
        extra_body={"ignore_eos": True},
    )
    assert openai_client.responses.cancel(made.id).status == "cancelled"


def test_responses_stream_helper(openai_client: openai.OpenAI) -> None:
    """The helper follows the events to the completed response."""
    with openai_client.responses.stream(
        model=MODEL, input=QUESTION, max_output_tokens=16, temperature=0, reasoning={"effort": "none"}
    ) as stream:
        text = "".join(event.delta for event in stream if event.type == "response.output_text.delta")
        final = stream.get_final_response()
    assert text == final.output_text
    assert final.usage is not None
    assert openai_client.responses.retrieve(final.id).output_text == text


async def test_responses_async(async_openai: openai.AsyncOpenAI) -> None:
    """Plain and streamed end alike."""
    made = await async_openai.responses.create(model=MODEL, input=QUESTION, max_output_tokens=8, temperature=0)
    async with async_openai.responses.stream(model=MODEL, input=QUESTION, max_output_tokens=8, temperature=0) as stream:
        kinds = [event.type async for event in stream]
    assert kinds[0] == "response.created"
    assert kinds[-1] == f"response.{made.status}"


def test_models(openai_client: openai.OpenAI) -> None:
    """Listed, and one by one."""
    assert [model.id for model in openai_client.models.list()] == [MODEL]
    assert openai_client.models.retrieve(MODEL).id == MODEL


def test_openai_errors(openai_client: openai.OpenAI) -> None:
    """Errors arrive as the SDK's own classes, with what they need."""
    with pytest.raises(openai.NotFoundError) as unknown:
        openai_client.chat.completions.create(model="nope", messages=[{"role": "user", "content": "hi"}])
    assert unknown.value.code == "model_not_found"
    assert unknown.value.request_id
    with pytest.raises(openai.BadRequestError) as wrong:
        openai_client.chat.completions.create(
            model=MODEL, messages=[{"role": "user", "content": "hi"}], temperature=-1, stream=True
        )
    assert wrong.value.param == "temperature"
    with pytest.raises(openai.NotFoundError):
        openai_client.responses.retrieve("resp_unknown")
    with pytest.raises(openai.NotFoundError):
        openai_client.embeddings.create(model=MODEL, input="hi")


def test_openai_raw_response(openai_client: openai.OpenAI) -> None:
    """The request id is a header, too, on plain and streamed answers."""
    asked: dict[str, Any] = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 2}
    plain = openai_client.chat.completions.with_raw_response.create(**asked)
    assert plain.request_id == plain.headers["x-request-id"]
    with openai_client.chat.completions.with_streaming_response.create(**asked, stream=True) as streamed:
        assert streamed.headers["x-request-id"]
        assert streamed.headers["content-type"].startswith("text/event-stream")
        assert b"[DONE]" in streamed.read()


def test_messages(anthropic_client: anthropic.Anthropic) -> None:
    """A plain answer: text, reason, usage, request id."""
    answer = anthropic_client.messages.create(
        model=MODEL,
        messages=[{"role": "user", "content": QUESTION}],
        max_tokens=16,
        thinking={"type": "disabled"},
        extra_body={"temperature": 0},
    )
    assert answer.content[0].type == "text"
    assert "Paris" in answer.content[0].text
    assert answer.usage.output_tokens > 0
    assert answer._request_id


def test_messages_stream_helper(anthropic_client: anthropic.Anthropic) -> None:
    """Thinking arrives as thinking, and the helper's final message is whole."""
    with anthropic_client.messages.stream(
        model=MODEL, messages=[{"role": "user", "content": QUESTION}], max_tokens=16, extra_body={"temperature": 0}
    ) as stream:
        kinds = [event.type for event in stream]
        answer = stream.get_final_message()
    assert kinds[0] == "message_start"
    assert kinds[-1] == "message_stop"
    assert "thinking" in kinds
    assert answer.content[0].type == "thinking"
    assert answer.stop_reason in ("end_turn", "max_tokens")


def test_messages_text_stream(anthropic_client: anthropic.Anthropic) -> None:
    """The text alone."""
    with anthropic_client.messages.stream(
        model=MODEL,
        messages=[{"role": "user", "content": QUESTION}],
        max_tokens=16,
        thinking={"type": "disabled"},
        extra_body={"temperature": 0},
    ) as stream:
        assert "Paris" in "".join(stream.text_stream)


def test_messages_tools(anthropic_client: anthropic.Anthropic) -> None:
    """A forced call comes back as a tool_use block with its input parsed."""
    with anthropic_client.messages.stream(
        model=MODEL,
        messages=[{"role": "user", "content": "What is the weather in Paris?"}],
        max_tokens=80,
        tools=MESSAGES_TOOLS,
        tool_choice={"type": "any"},
        thinking={"type": "disabled"},
        extra_body={"temperature": 0},
    ) as stream:
        answer = stream.get_final_message()
    call = answer.content[-1]
    assert call.type == "tool_use"
    assert call.name == "get_weather"
    assert isinstance(call.input, dict)


async def test_messages_async(async_anthropic: anthropic.AsyncAnthropic) -> None:
    """Plain and streamed, with the same text."""
    asked: dict[str, Any] = {
        "model": MODEL,
        "messages": [{"role": "user", "content": QUESTION}],
        "max_tokens": 12,
        "thinking": {"type": "disabled"},
        "extra_body": {"temperature": 0},
    }
    plain = await async_anthropic.messages.create(**asked)
    async with async_anthropic.messages.stream(**asked) as stream:
        text = await stream.get_final_text()
    assert text == plain.content[0].text


def test_count_tokens(anthropic_client: anthropic.Anthropic) -> None:
    """Counted by the model's own tokenizer and template."""
    counted = anthropic_client.messages.count_tokens(model=MODEL, messages=[{"role": "user", "content": QUESTION}])
    assert counted.input_tokens == 18


def test_anthropic_errors(anthropic_client: anthropic.Anthropic) -> None:
    """Errors arrive as the SDK's own classes, in Anthropic's format."""
    asked: dict[str, Any] = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 4}
    with pytest.raises(anthropic.NotFoundError) as unknown:
        anthropic_client.messages.create(model="nope", **asked)
    assert unknown.value.request_id
    assert isinstance(unknown.value.body, dict)
    assert unknown.value.body["error"]["type"] == "not_found_error"
    with pytest.raises(anthropic.BadRequestError):
        anthropic_client.messages.create(model=MODEL, **{**asked, "max_tokens": "many"})


def test_anthropic_raw_response(anthropic_client: anthropic.Anthropic) -> None:
    """Anthropic's SDK reads `request-id`."""
    raw = anthropic_client.messages.with_raw_response.create(
        model=MODEL, messages=[{"role": "user", "content": "hi"}], max_tokens=2
    )
    assert raw.headers["request-id"]
    assert raw.parse()._request_id == raw.headers["request-id"]
