"""OpenAI's Agents SDK, over chat completions, or over responses with `responses` as the argument."""

import asyncio
import sys

import openai
from agents import (
    Agent,
    Model,
    ModelSettings,
    OpenAIChatCompletionsModel,
    OpenAIResponsesModel,
    Runner,
    function_tool,
    set_tracing_disabled,
)
from openai import AsyncOpenAI
from openai.types.shared import Reasoning

from tests.clients import proof
from tests.clients.proof import CALM, KEY, MODEL, QUESTION, URL, WEATHER_QUESTION, WRONG_KEY, prove

set_tracing_disabled(True)

RESPONSES = sys.argv[1:] == ["responses"]
if RESPONSES:  # a dialect with efforts and without budgets
    THINKING = ModelSettings(temperature=0, max_tokens=100, reasoning=Reasoning(effort="high"))
    SAYING = ModelSettings(temperature=0, max_tokens=100, reasoning=Reasoning(effort="none"))
else:
    THINKING = ModelSettings(
        temperature=0, max_tokens=200, extra_body={"thinking_token_budget": 32}, include_usage=True
    )
    SAYING = ModelSettings(temperature=0, max_tokens=100, extra_body=CALM, include_usage=True)


def _model() -> Model:
    # A client of its own for each run: run_sync and asyncio.run have an event loop each.
    client = AsyncOpenAI(base_url=f"{URL}/v1", api_key=KEY)
    model = OpenAIChatCompletionsModel(model=MODEL, openai_client=client)
    return OpenAIResponsesModel(model=MODEL, openai_client=client) if RESPONSES else model


def plain() -> None:
    """Reasoning is an item of its own on both ways."""
    model = _model()
    settings = ModelSettings(max_tokens=200, temperature=0)
    agent = Agent(name="Assistant", model=model, model_settings=settings)
    result = Runner.run_sync(agent, QUESTION)
    print(result.new_items[0].type, result.final_output)
    assert result.new_items[0].type == "reasoning_item"
    said = Runner.run_sync(Agent(name="Assistant", model=_model(), model_settings=SAYING), QUESTION)
    assert said.final_output
    assert said.context_wrapper.usage.output_tokens > 0


def streaming() -> None:
    """Deltas of reasoning and text come as they are made."""

    async def follow(settings: ModelSettings) -> list[str]:
        result = Runner.run_streamed(Agent(name="Assistant", model=_model(), model_settings=settings), QUESTION)
        events = [event async for event in result.stream_events()]
        assert result.context_wrapper.usage.output_tokens > 0
        return [event.data.type for event in events if event.type == "raw_response_event"]

    thought = asyncio.run(follow(THINKING))
    assert sum("reasoning" in kind and kind.endswith(".delta") for kind in thought) > 1
    assert asyncio.run(follow(SAYING)).count("response.output_text.delta") > 1


def tools() -> None:
    """The agent's loop: a forced call, its result, the final answer; plain and streamed."""
    called: list[str] = []

    # Away after its call: with it the tiny model says nothing about the result where `min_tokens` cannot be asked.
    @function_tool(is_enabled=lambda context, agent: not called)
    def get_weather(city: proof.City) -> str:
        """Get the weather of a city."""
        called.append(city)
        return proof.get_weather(city)

    async def follow() -> list[str]:
        result = Runner.run_streamed(agent, WEATHER_QUESTION, max_turns=3)
        names = [event.name async for event in result.stream_events() if event.type == "run_item_stream_event"]
        assert result.final_output
        return names

    settings = SAYING.resolve(ModelSettings(tool_choice="get_weather"))
    agent = Agent(name="Assistant", model=_model(), model_settings=settings, tools=[get_weather])
    result = Runner.run_sync(agent, WEATHER_QUESTION, max_turns=3)
    kinds = [item.type for item in result.new_items if item.type.startswith("tool")]
    assert kinds == ["tool_call_item", "tool_call_output_item"]
    assert result.final_output
    called.clear()
    agent = Agent(name="Assistant", model=_model(), model_settings=settings, tools=[get_weather])
    names = asyncio.run(follow())
    assert names.index("tool_called") < names.index("tool_output")


def wrong_key() -> None:
    """OpenAI's error comes through the runner."""
    client = AsyncOpenAI(base_url=f"{URL}/v1", api_key=WRONG_KEY)
    agent = Agent(name="Assistant", model=OpenAIChatCompletionsModel(model=MODEL, openai_client=client))
    try:
        Runner.run_sync(agent, QUESTION)
    except openai.AuthenticationError as error:
        assert error.code == "invalid_api_key"
    else:
        raise AssertionError("a wrong key was taken")


if __name__ == "__main__":
    where = "`reasoning_item`"
    prove("openai-agents", reasoning=where, plain=plain, streaming=streaming, tools=tools, wrong_key=wrong_key)
