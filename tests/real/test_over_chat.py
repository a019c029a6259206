"""Messages and responses over chat mean what the node's own mean: asked directly, and through a translating gateway.

What may differ is listed in docs/api.md ("Responses and messages over chat"), by name in `tests.support.meaning`.
"""

import json
from collections.abc import Iterator
from typing import Any

import anthropic
import httpx
import openai
import pytest
import yaml

from tests.real.conftest import Server, ready
from tests.real.over_chat_bodies import BODIES, DIFFERENT
from tests.real.processes import running, wait_for
from tests.real.transparency_cases import (
    ANTHROPIC,
    CASES,
    FRANCE,
    MESSAGES,
    MESSAGES_TOOLS,
    MODEL,
    RESPONSES,
    RESPONSES_TOOLS,
    WEATHER,
    Case,
)
from tests.support.meaning import events_of, meaning
from workers.cpu_node import free_port

pytestmark = pytest.mark.real

_PARIS = {"city": "Paris", "days": 1}
_USED = {"type": "tool_use", "id": "t1", "name": "get_weather", "input": _PARIS}
_THOUGHT = {"type": "thinking", "thinking": "The user wants to know.", "signature": "s"}
_SAID = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Paris."}]}
_REASONED: dict[str, Any] = {
    "type": "reasoning",
    "summary": [],
    "content": [{"type": "reasoning_text", "text": "The user wants to know."}],
}
_CALLED = {"type": "function_call", "call_id": "t1", "name": "get_weather", "arguments": json.dumps(_PARIS)}
_CITY = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
_OFF = {"thinking": {"type": "disabled"}}


def _message(name: str, **fields: Any) -> Case:
    body = {"model": MODEL, "messages": FRANCE, "temperature": 0, "max_tokens": 24}
    return Case(f"messages: {name}", MESSAGES, body | fields, headers=ANTHROPIC)


def _response(name: str, **fields: Any) -> Case:
    body = {"model": MODEL, "input": "What is the capital of France?", "temperature": 0, "max_output_tokens": 24}
    return Case(f"responses: {name}", RESPONSES, body | fields)


_MORE = (
    _message("thinking ends by itself", max_tokens=80, messages=[{"role": "user", "content": "Is the sky blue?"}]),
    _message("stop sequence", stop_sequences=["of France"], **_OFF),
    _message("stop sequence that does not come", stop_sequences=["zebra"], **_OFF),
    _message("limit within a call", tools=MESSAGES_TOOLS, tool_choice={"type": "any"}, max_tokens=12, **_OFF),
    _message("one tool", tools=MESSAGES_TOOLS, tool_choice={"type": "tool", "name": "get_weather"}, **_OFF),
    _message("no tool", tools=MESSAGES_TOOLS, tool_choice={"type": "none"}, **_OFF),
    _message("tools, as the model likes", tools=MESSAGES_TOOLS, **_OFF),
    _message(
        "thinking and calls in the history",
        tools=MESSAGES_TOOLS,
        messages=[
            *WEATHER,
            {"role": "assistant", "content": [_THOUGHT, {"type": "text", "text": "Let me see."}, _USED]},
            {
                "role": "user",
                "content": [
                    {"type": "tool_result", "tool_use_id": "t1", "content": [{"type": "text", "text": "Sunny"}]},
                    {"type": "text", "text": "And tomorrow?"},
                ],
            },
        ],
    ),
    _message("system in the middle", messages=[*FRANCE, {"role": "system", "content": "Be brief."}, *FRANCE]),
    _message("a template's argument", chat_template_kwargs={"low_effort": True}),
    _message("sampling", top_p=0.5, top_k=1, temperature=0.7),
    _message("JSON schema", output_config={"format": {"type": "json_schema", "schema": _CITY}}, **_OFF),
    _message("effort", output_config={"effort": "high"}),
    _response("thinking ends by itself", max_output_tokens=80, input="Is the sky blue?"),
    _response("history", input=[{"role": "user", "content": "Capital?"}, _REASONED, _SAID, *FRANCE]),
    _response(
        "calls in the history",
        input=[*WEATHER, _REASONED, _CALLED, {"type": "function_call_output", "call_id": "t1", "output": "Sunny"}],
        tools=RESPONSES_TOOLS,
    ),
    _response("limit within a call", tools=RESPONSES_TOOLS, tool_choice="required", max_output_tokens=12),
    _response(
        "one tool", tools=RESPONSES_TOOLS, tool_choice={"type": "function", "name": "get_weather"}, max_output_tokens=70
    ),
    _response("no tool", tools=RESPONSES_TOOLS, tool_choice="none"),
    _response("tools, as the model likes", tools=RESPONSES_TOOLS),
    _response("stop", stop=["of France"], reasoning={"effort": "none"}),
    _response("sampling", top_p=0.5, top_k=1, seed=3, presence_penalty=0.1),
    _response("developer", input=[{"role": "developer", "content": "Be brief."}, *FRANCE]),
    _response("JSON object", text={"format": {"type": "json_object"}}, reasoning={"effort": "none"}),
    _response("effort", reasoning={"effort": "high"}),
    _response("no reasoning in the answer", include_reasoning=False),
    _response(
        "an answer to go on with", input=[*FRANCE, {**_SAID, "status": "incomplete"}], reasoning={"effort": "none"}
    ),
    _response(
        "log probabilities",
        include=["message.output_text.logprobs"],
        top_logprobs=2,
        reasoning={"effort": "none"},
        max_output_tokens=5,
    ),
)
_SHARED = [
    case
    for case in CASES
    if case.path in (MESSAGES, RESPONSES) and case.status == httpx.codes.OK and not case.name.startswith("no model")
]
_BOTH_WAYS = [
    Case(f"{case.name}, {way}", case.path, {**case.body, "stream": way == "streamed"}, headers=case.headers)
    for case in _MORE
    if isinstance(case.body, dict)
    for way in ("plain", "streamed")
]
_SAMPLE = (
    "messages: stop sequence, streamed",
    "messages: limit within a call, streamed",
    "messages: thinking and calls in the history, plain",
    "messages: system in the middle, streamed",
    "responses: thinking ends by itself, streamed",
    "responses: calls in the history, streamed",
    "responses: limit within a call, plain",
    "responses: log probabilities, streamed",
)
TABLE = [
    *_SHARED,
    *(
        case if case.name in _SAMPLE else pytest.param(case, marks=pytest.mark.prove, id=case.name)
        for case in _BOTH_WAYS
    ),
]
REFUSED = tuple(
    case
    for case in CASES
    if case.name
    in ("messages: prompt too long", "messages: prompt too long, streamed", "responses: prompt too long, streamed")
)

EVERY = 10
"""Of the bodies one in so many is asked for each change, and all of those that are listed as different."""

ALL_BODIES = [
    case if number % EVERY == 0 or case.name in DIFFERENT else pytest.param(case, marks=pytest.mark.prove, id=case.name)
    for number, case in enumerate(BODIES)
]


@pytest.fixture(scope="session")
def translating(vllm: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A gateway that asks the node in chat, whatever the dialect."""
    home = tmp_path_factory.mktemp("translating")
    config = {"nodes": [{"url": vllm.url}], "models": [{"name": MODEL, "over_chat": True}]}
    (home / "fleetgate.yaml").write_text(yaml.safe_dump(config))
    server = Server(f"http://127.0.0.1:{free_port('127.0.0.1')}")
    port, admin = server.url.rsplit(":", 1)[1], str(free_port("127.0.0.1"))
    command = ["fleetgate", "serve", "-c", str(home / "fleetgate.yaml"), "--port", port, "--admin-port", admin]
    with running(command, home / "gateway.log") as process:
        wait_for(lambda: ready(server.url), process, home / "gateway.log", 120.0)
        yield server


@pytest.mark.parametrize("case", TABLE, ids=lambda case: case.name)
def test_the_same_meaning(case: Case, vllm: Server, translating: Server) -> None:
    """Same events, texts, calls, usage and stop reasons."""
    if isinstance(case.body, dict) and "tools" in case.body:
        ask(vllm, case)  # a prompt of more than a KV block (128 tokens): both find it in the cache
    direct, through = ask(vllm, case), ask(translating, case)
    assert _meaning(through) == _meaning(direct)


@pytest.mark.parametrize("case", REFUSED, ids=lambda case: case.name)
def test_the_same_refusal(case: Case, vllm: Server, translating: Server) -> None:
    """The node's status and words, in the client's dialect."""
    direct, through = ask(vllm, case), ask(translating, case)
    assert (through.status_code, direct.status_code) == (case.status, case.status)
    assert through.json()["error"]["message"] == direct.json()["error"]["message"]


@pytest.mark.parametrize("case", ALL_BODIES, ids=lambda case: case.name)
def test_over_chat_takes_what_the_node_takes(case: Case, vllm: Server, translating: Server) -> None:
    """And says the same to it, or refuses it as the node does; what is listed differs as listed."""
    if isinstance(case.body, dict) and "tools" in case.body:
        ask(vllm, case)
    direct, through = ask(vllm, case), ask(translating, case)
    listed = DIFFERENT.get(case.name)
    if listed is None:
        assert through.status_code == direct.status_code, through.text
        assert not direct.is_success or _meaning(through) == _meaning(direct)
    else:
        assert (direct.status_code, through.status_code) == (listed.native, listed.over_chat)
        assert not through.is_success or _meaning(through) != _meaning(direct)


def test_every_difference_is_of_a_body() -> None:
    assert DIFFERENT.keys() <= {case.name for case in BODIES}


def test_anthropics_sdk(translating: Server) -> None:
    """The streaming helper with thinking, and with tools."""
    with (
        anthropic.Anthropic(base_url=translating.url, api_key="x", max_retries=0) as client,
        client.messages.stream(model=MODEL, max_tokens=16, messages=FRANCE) as stream,  # type: ignore[arg-type]
    ):
        kinds = {event.type for event in stream}
        thought = stream.get_final_message()
    assert {"thinking", "signature", "message_stop"} <= kinds
    assert thought.content[0].type == "thinking"
    assert thought.usage.output_tokens > 0
    asked: Any = {"messages": WEATHER, "tools": MESSAGES_TOOLS, "tool_choice": {"type": "any"}, **_OFF}
    with (
        anthropic.Anthropic(base_url=translating.url, api_key="x", max_retries=0) as client,
        client.messages.stream(model=MODEL, max_tokens=80, extra_body={"temperature": 0}, **asked) as stream,
    ):
        called = stream.get_final_message()
    assert called.stop_reason == "tool_use"
    assert called.content[-1].type == "tool_use"
    assert called.content[-1].input["city"] in ("Paris", "Rome")


def test_openais_sdk(translating: Server) -> None:
    """The streaming helper with tools, and a structured answer."""
    asked: Any = {"input": WEATHER, "tools": RESPONSES_TOOLS, "tool_choice": "required", "temperature": 0}
    with openai.OpenAI(base_url=f"{translating.url}/v1", api_key="x", max_retries=0) as client:
        with client.responses.stream(
            model=MODEL, max_output_tokens=80, reasoning={"effort": "none"}, **asked
        ) as stream:
            kinds = {event.type for event in stream}
            called = stream.get_final_response()
        form: Any = {"format": {"type": "json_schema", "name": "n", "schema": _CITY}}
        said = client.responses.create(
            model=MODEL, input="How many?", text=form, reasoning={"effort": "none"}, temperature=0, max_output_tokens=40
        )
    assert {"response.function_call_arguments.delta", "response.completed"} <= kinds
    assert called.output[-1].type == "function_call"
    assert json.loads(called.output[-1].arguments)["city"] in ("Paris", "Rome")
    assert said.usage is not None
    if said.status == "completed":
        assert isinstance(json.loads(said.output_text)["n"], int)


def ask(server: Server, case: Case) -> httpx.Response:
    with server.client() as client:
        return client.post(case.path, json=case.body, headers=dict(case.headers))


def _meaning(answer: httpx.Response) -> list[str]:
    if "event-stream" in answer.headers["content-type"]:
        return meaning(events_of(answer.content))
    return [str(answer.status_code), *meaning(answer.json())]
