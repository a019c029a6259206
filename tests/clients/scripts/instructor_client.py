"""instructor over OpenAI's SDK."""

from typing import Literal

import instructor
from instructor.core import InstructorRetryException
from openai import OpenAI
from pydantic import BaseModel

from tests.clients.proof import CALM, KEY, MODEL, URL, WEATHER_QUESTION, WRONG_KEY, prove


class Place(BaseModel):
    """A city that was asked about."""

    city: Literal["Paris", "Rome"]


MESSAGES = [{"role": "user", "content": WEATHER_QUESTION}]


def plain() -> None:
    """A JSON schema; the completion beside the object has the reasoning."""
    client = instructor.from_openai(OpenAI(base_url=f"{URL}/v1", api_key=KEY), mode=instructor.Mode.JSON_SCHEMA)
    asked = {"model": MODEL, "messages": MESSAGES, "max_tokens": 200, "temperature": 0}
    body = {"thinking_token_budget": 16}
    place, answer = client.create_with_completion(response_model=Place, extra_body=body, **asked)
    print(place, answer.usage)
    assert place.city in ("Paris", "Rome")
    assert answer.choices[0].message.reasoning


def streaming() -> None:
    """Partial objects; the last one is whole."""
    client = instructor.from_openai(OpenAI(base_url=f"{URL}/v1", api_key=KEY), mode=instructor.Mode.JSON_SCHEMA)
    asked = {"model": MODEL, "messages": MESSAGES, "max_tokens": 200, "temperature": 0, "extra_body": CALM}
    parts = list(client.create_partial(response_model=Place, **asked))
    assert parts[-1].city in ("Paris", "Rome")


def tools() -> None:
    """The object as the arguments of a tool that has to be called; a tiny model calls it with others."""
    client = instructor.from_openai(OpenAI(base_url=f"{URL}/v1", api_key=KEY), mode=instructor.Mode.TOOLS_STRICT)
    asked = {"model": MODEL, "messages": MESSAGES, "max_tokens": 200, "temperature": 0, "extra_body": CALM}
    try:
        assert client.create(response_model=Place, max_retries=1, **asked).city in ("Paris", "Rome")
    except InstructorRetryException as error:
        assert error.last_completion.choices[0].message.tool_calls[0].function.name == "Place"


def wrong_key() -> None:
    """Its own error, which tells the cause; it does not go on trying."""
    client = instructor.from_openai(OpenAI(base_url=f"{URL}/v1", api_key=WRONG_KEY), mode=instructor.Mode.JSON_SCHEMA)
    try:
        client.create(response_model=Place, model=MODEL, messages=MESSAGES, max_retries=1)
    except Exception as error:  # noqa: BLE001 - the library's own class differs by version
        assert "invalid_api_key" in str(error)
    else:
        raise AssertionError("a wrong key was taken")


if __name__ == "__main__":
    where = "`message.reasoning` of the completion"
    prove("instructor", reasoning=where, plain=plain, streaming=streaming, tools=tools, wrong_key=wrong_key)
