"""DSPy's LM, which goes through LiteLLM."""

import dspy

from tests.clients.proof import CALM, CITY, KEY, MODEL, QUESTION, URL, WEATHER_QUESTION, WRONG_KEY, prove

TOOL = {"type": "function", "function": {"name": "get_weather", "description": "Get the weather.", "parameters": CITY}}


def plain() -> None:
    """The LM by itself: a signature asks for a form that a tiny model does not keep to."""
    lm = dspy.LM(f"hosted_vllm/{MODEL}", api_base=f"{URL}/v1", api_key=KEY, max_tokens=200, temperature=0, cache=False)
    answer = lm(QUESTION, extra_body={"thinking_token_budget": 32})[0]
    print(answer)
    assert answer["text"]
    assert answer["reasoning_content"]
    assert lm.history[-1]["usage"]["completion_tokens"] > 0


def tools() -> None:
    """The call arrives; DSPy's agents run it."""
    lm = dspy.LM(f"hosted_vllm/{MODEL}", api_base=f"{URL}/v1", api_key=KEY, max_tokens=200, temperature=0, cache=False)
    answer = lm(WEATHER_QUESTION, tools=[TOOL], tool_choice="required", extra_body=CALM)[0]
    assert answer["tool_calls"][0].function.name == "get_weather"


def wrong_key() -> None:
    """LiteLLM's error, at once."""
    lm = dspy.LM(f"hosted_vllm/{MODEL}", api_base=f"{URL}/v1", api_key=WRONG_KEY, num_retries=0, cache=False)
    try:
        lm(QUESTION)
    except Exception as error:  # noqa: BLE001 - DSPy wraps LiteLLM's
        assert "API key is not valid" in str(error)
    else:
        raise AssertionError("a wrong key was taken")


if __name__ == "__main__":
    no_streaming = "DSPy streams the fields of a signature, which a tiny model does not keep to"
    where = "`reasoning_content`"
    prove("dspy", reasoning=where, plain=plain, streaming=no_streaming, tools=tools, wrong_key=wrong_key)
