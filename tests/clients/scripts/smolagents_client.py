"""smolagents: its OpenAIModel, and a ToolCallingAgent on it."""

import json

import openai
from smolagents import ChatMessage, MessageRole, OpenAIModel, Tool, ToolCallingAgent

from tests.clients import proof
from tests.clients.proof import CALM, KEY, MODEL, QUESTION, URL, WEATHER_QUESTION, WRONG_KEY, prove


def plain() -> None:
    """Reasoning stays in the raw answer; smolagents' own message has no place for it."""
    model = OpenAIModel(MODEL, api_base=f"{URL}/v1", api_key=KEY, max_tokens=200, temperature=0)
    messages = [{"role": "user", "content": QUESTION}]
    answer = model.generate(messages, extra_body={"thinking_token_budget": 32})
    print(answer.content, answer.token_usage)
    assert answer.content
    assert answer.raw.choices[0].message.reasoning
    assert answer.token_usage.output_tokens > 0


def streaming() -> None:
    """Deltas of the content, and usage at the end."""
    model = OpenAIModel(MODEL, api_base=f"{URL}/v1", api_key=KEY, max_tokens=200, temperature=0)
    messages = [ChatMessage(MessageRole.USER, QUESTION)]
    deltas = list(model.generate_stream(messages, extra_body={"thinking_token_budget": 32}))
    assert sum(bool(delta.content) for delta in deltas) > 1
    assert sum(delta.token_usage.output_tokens for delta in deltas if delta.token_usage) > 0


class Weather(Tool):
    """The tool, as smolagents wants it."""

    name = "get_weather"
    description = "Get the weather of a city."
    inputs = {"city": {"type": "string", "description": "The city", "enum": ["Paris", "Rome"]}}  # noqa: RUF012
    output_type = "string"

    def forward(self, city: str) -> str:
        return proof.get_weather(city)


def tools() -> None:
    """Call, result, final answer by the model's own interface; then an agent, plain and streamed, to its end."""
    model = OpenAIModel(MODEL, api_base=f"{URL}/v1", api_key=KEY, max_tokens=100, temperature=0, extra_body=CALM)
    messages = [ChatMessage(MessageRole.USER, [{"type": "text", "text": WEATHER_QUESTION}])]
    called = model.generate(messages, tools_to_call_from=[Weather()])
    call = called.tool_calls[0]
    assert call.function.name == "get_weather"
    # smolagents sends no `strict`, and what the tiny model puts in is not always a city.
    assert isinstance(json.loads(call.function.arguments), dict)
    result = proof.get_weather("Paris")
    messages += [ChatMessage(MessageRole.TOOL_CALL, [{"type": "text", "text": str(call.function)}])]
    messages += [ChatMessage(MessageRole.TOOL_RESPONSE, [{"type": "text", "text": result}])]
    assert model.generate(messages).content
    for streamed in (False, True):
        agent = ToolCallingAgent([Weather()], model, max_steps=1, stream_outputs=streamed, verbosity_level=0)
        answer = agent.run(WEATHER_QUESTION)
        step = agent.memory.steps[1]
        assert answer is not None
        # What was asked for, not what came of it: the tiny model's arguments may be the tool's error.
        assert step.model_output_message.tool_calls[0].function.name in ("get_weather", "final_answer")
        assert step.token_usage.output_tokens > 0


def wrong_key() -> None:
    """OpenAI's error, as smolagents lets it through."""
    model = OpenAIModel(MODEL, api_base=f"{URL}/v1", api_key=WRONG_KEY)
    try:
        model.generate([{"role": "user", "content": QUESTION}])
    except openai.AuthenticationError as error:
        assert error.code == "invalid_api_key"
    else:
        raise AssertionError("a wrong key was taken")


if __name__ == "__main__":
    where = "dropped by the client; `raw.choices[0].message.reasoning` on plain answers"
    prove("smolagents", reasoning=where, plain=plain, streaming=streaming, tools=tools, wrong_key=wrong_key)
