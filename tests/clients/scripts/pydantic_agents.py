"""pydantic-ai's agents."""

import asyncio
from typing import Any

from pydantic_ai import Agent, ModelHTTPError, RunContext
from pydantic_ai.messages import (
    PartDeltaEvent,
    TextPartDelta,
    ThinkingPart,
    ThinkingPartDelta,
    ToolCallPart,
    ToolReturnPart,
)
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider

from tests.clients import proof
from tests.clients.proof import CALM, KEY, MODEL, QUESTION, URL, WEATHER_QUESTION, WRONG_KEY, prove


def plain() -> None:
    """Reasoning is a ThinkingPart."""
    model = OpenAIChatModel(MODEL, provider=OpenAIProvider(base_url=f"{URL}/v1", api_key=KEY))
    settings = {"max_tokens": 200, "temperature": 0, "extra_body": {"thinking_token_budget": 32}}
    agent = Agent(model, model_settings=settings)
    result = agent.run_sync(QUESTION)
    print(result.output, result.usage)
    assert result.output
    thoughts = [part for part in result.all_messages()[-1].parts if isinstance(part, ThinkingPart)]
    assert thoughts[0].content
    assert result.usage.output_tokens > result.usage.details["reasoning_tokens"] > 0


def streaming() -> None:
    """Deltas of thinking and text come as they are made."""
    changes = []

    async def collect(_: RunContext[None], events: Any) -> None:
        changes.extend([event.delta async for event in events if isinstance(event, PartDeltaEvent)])

    model = OpenAIChatModel(MODEL, provider=OpenAIProvider(base_url=f"{URL}/v1", api_key=KEY))
    settings = {"max_tokens": 200, "temperature": 0, "extra_body": {"thinking_token_budget": 32}}
    agent = Agent(model, model_settings=settings)
    result = asyncio.run(agent.run(QUESTION, event_stream_handler=collect))
    assert sum(isinstance(change, ThinkingPartDelta) for change in changes) > 1
    assert sum(isinstance(change, TextPartDelta) for change in changes) > 1
    assert result.output
    assert result.usage.output_tokens > 0


def tools() -> None:
    """The agent's loop: a call forced in the first step, its result, the final answer; plain and streamed."""

    def settings(run: RunContext[None]) -> dict[str, Any]:
        forced = ["get_weather"] if run.run_step <= 1 else "none"
        return {"max_tokens": 100, "temperature": 0, "extra_body": CALM, "tool_choice": forced}

    async def follow(_: RunContext[None], events: Any) -> None:
        kinds.extend([event.event_kind async for event in events])

    def get_weather(city: proof.City) -> str:
        """Get the weather of a city."""
        return proof.get_weather(city)

    kinds: list[str] = []
    model = OpenAIChatModel(MODEL, provider=OpenAIProvider(base_url=f"{URL}/v1", api_key=KEY))
    for handler in (None, follow):
        agent = Agent(model, tools=[get_weather], model_settings=settings)
        result = asyncio.run(agent.run(WEATHER_QUESTION, event_stream_handler=handler))
        parts = [part for message in result.all_messages() for part in message.parts]
        call = next(part for part in parts if isinstance(part, ToolCallPart))
        returned = next(part for part in parts if isinstance(part, ToolReturnPart))
        assert call.tool_call_id == returned.tool_call_id
        assert returned.content == proof.get_weather(**call.args_as_dict())
        assert result.output
    assert "function_tool_call" in kinds
    assert "function_tool_result" in kinds


def wrong_key() -> None:
    """pydantic-ai's error for any status."""
    model = OpenAIChatModel(MODEL, provider=OpenAIProvider(base_url=f"{URL}/v1", api_key=WRONG_KEY))
    try:
        Agent(model).run_sync(QUESTION)
    except ModelHTTPError as error:
        assert error.status_code == 401
        assert error.body["code"] == "invalid_api_key"
    else:
        raise AssertionError("a wrong key was taken")


if __name__ == "__main__":
    where = "`ThinkingPart`"
    prove("pydantic-ai-slim", reasoning=where, plain=plain, streaming=streaming, tools=tools, wrong_key=wrong_key)
