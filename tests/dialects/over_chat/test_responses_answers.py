"""Chat's answers as responses: events of a stream, plain answers, errors."""

import json
from typing import Any

import pytest
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from gateway.core.dialects.opaque_text import REASONING, decode_text
from gateway.core.dialects.over_chat import responses_over_chat
from gateway.core.usage.token_usage import Usage
from tests.dialects.over_chat import chat_streams as recorded
from tests.dialects.over_chat.chat_streams import CALLED, CUT, FAILED, THOUGHT, delta, ending, opening, translated

Json = dict[str, Any]
TOOLS = [
    {"type": "function", "name": "get_weather", "parameters": {"type": "object"}, "strict": True},
    {"type": "custom", "name": "run"},
    {"type": "namespace", "name": "web", "description": "", "tools": [{"type": "function", "name": "get"}]},
]
ASK = responses_over_chat(
    {"model": "m", "input": "hi", "stream": True, "max_output_tokens": 9, "metadata": {"a": "b"}, "tools": TOOLS}
)
LOGPROBS = {"content": [{"token": "A", "logprob": -0.5, "bytes": [65], "top_logprobs": []}]}


def brief(events: list[Json]) -> list[str]:
    """One word an event: its type, which item it is about, and what it carries."""
    told = []
    for event in events:
        text = event.get("delta") or event.get("text") or event.get("arguments") or event.get("input") or ""
        kind = event.get("item", {}).get("type", "")
        told.append(
            " ".join(
                filter(None, (event["type"].removeprefix("response."), str(event.get("output_index", "")), kind, text))
            )
        )
    return told


def test_thinking_then_an_answer() -> None:
    stream_filter = ASK.stream_filter()
    events = translated(stream_filter, THOUGHT)
    assert brief(events) == [
        "created",
        "in_progress",
        "output_item.added 0 reasoning",
        "content_part.added 0",
        "reasoning_text.delta 0 The",
        "reasoning_text.delta 0  capital of",
        "reasoning_text.done 0 The capital of",
        "content_part.done 0",
        "output_item.done 0 reasoning",
        "output_item.added 1 message",
        "content_part.added 1",
        "output_text.delta 1 France is",
        "output_text.delta 1  🌍\nParis",
        "output_text.done 1 France is 🌍\nParis",
        "content_part.done 1",
        "output_item.done 1 message",
        "completed",
    ]
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert (stream_filter.ended, stream_filter.failed, stream_filter.usage) == (True, False, Usage(18, 8, 3, None))


def test_the_response_at_both_ends() -> None:
    events = translated(ASK.stream_filter(), THOUGHT)
    first, last = events[0]["response"], events[-1]["response"]
    assert (first["status"], first["output"], first["usage"]) == ("in_progress", [], None)
    assert (last["status"], last["incomplete_details"]) == ("completed", None)
    assert [item["id"] for item in last["output"]] == [events[2]["item"]["id"], events[9]["item"]["id"]]
    assert last["output"][1]["content"][0]["text"] == "France is 🌍\nParis"
    assert last["usage"]["input_tokens"] == 18
    assert last["usage"]["output_tokens_details"]["reasoning_tokens"] == 3
    volatile = {"status", "output", "usage"}
    assert {k: v for k, v in first.items() if k not in volatile} == {k: v for k, v in last.items() if k not in volatile}
    assert (last["max_output_tokens"], last["metadata"], last["tools"]) == (9, {"a": "b"}, TOOLS)
    assert last["id"].startswith("resp_")


def test_calls_are_items() -> None:
    events = translated(ASK.stream_filter(), CALLED)
    assert brief(events)[8:-1] == [
        "output_item.added 1 function_call",
        'function_call_arguments.delta 1 {"city": "',
        'function_call_arguments.delta 1 Paris"}',
        'function_call_arguments.done 1 {"city": "Paris"}',
        "output_item.done 1 function_call",
        "output_item.added 2 function_call",
        'function_call_arguments.delta 2 {"zone"',
        "function_call_arguments.delta 2 : 1}",
        'function_call_arguments.done 2 {"zone": 1}',
        "output_item.done 2 function_call",
    ]
    done = events[12]["item"]
    assert (done["name"], done["call_id"], done["status"]) == ("get_weather", "chatcmpl-tool-b1", "completed")
    assert events[8]["item"]["id"] == events[9]["item_id"] == done["id"]
    assert events[-1]["response"]["status"] == "completed"


def test_custom_tools_and_namespaces() -> None:
    calls = [recorded.call(0, '{"input": "1 +', "run", "c1"), recorded.call(0, ' 1"}')]
    stream = opening() + delta(tool_calls=calls) + delta(tool_calls=[recorded.call(1, "{}", "web__get", "c2")])
    events = translated(ASK.stream_filter(), stream + delta(finish="tool_calls") + ending())
    assert brief(events)[2:7] == [
        "output_item.added 0 custom_tool_call",
        "custom_tool_call_input.delta 0 1 + 1",
        "custom_tool_call_input.done 0 1 + 1",
        "output_item.done 0 custom_tool_call",
        "output_item.added 1 function_call",
    ]
    run, get = events[-1]["response"]["output"]
    assert (run["name"], run["input"]) == ("run", "1 + 1")
    assert (get["name"], get["namespace"]) == ("get", "web")


def test_the_sdk_knows_every_event() -> None:
    parse = TypeAdapter[Any](ResponseStreamEvent).validate_python
    for stream in (THOUGHT, CALLED):
        for event in translated(ASK.stream_filter(), stream):
            assert parse(event).type == event["type"]


CUTS = {
    "a thought": (delta(reasoning="The", finish="length"), ["incomplete"]),
    "an answer": (delta(reasoning="Hm") + delta(content="It", finish="length"), ["completed", "incomplete"]),
    "a call": (
        delta(content="So") + delta(tool_calls=[recorded.call(0, '{"ci', "get_weather", "c1")], finish="length"),
        ["completed", "incomplete"],
    ),
    "nothing": (delta(finish="length"), []),
}


@pytest.mark.parametrize(("cut", "statuses"), CUTS.values(), ids=CUTS.keys())
def test_at_the_limit(cut: bytes, statuses: list[str]) -> None:
    """As vLLM ends it since 0.33: with response.incomplete, and the last item is incomplete."""
    stream_filter = ASK.stream_filter()
    *events, last = translated(stream_filter, opening() + cut + ending())
    assert (last["type"], stream_filter.ended) == ("response.incomplete", True)
    assert (last["response"]["status"], last["response"]["incomplete_details"]) == (
        "incomplete",
        {"reason": "max_output_tokens"},
    )
    assert [item["status"] for item in last["response"]["output"]] == statuses
    assert [e["item"] for e in events if e["type"] == "response.output_item.done"] == last["response"]["output"]
    assert TypeAdapter[Any](ResponseStreamEvent).validate_python(last).type == last["type"]


def test_a_plain_answer_at_the_limit() -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "get_weather", "arguments": '{"ci'}}
    said = json.loads(ASK.plain(200, recorded.plain("length", reasoning="Hm.", content="It")))
    called = json.loads(ASK.plain(200, recorded.plain("length", content="So", tool_calls=[call])))
    assert [item["status"] for item in said["output"]] == [None, "incomplete"]
    assert [item["status"] for item in called["output"]] == ["completed", "incomplete"]
    assert said["incomplete_details"] == called["incomplete_details"] == {"reason": "max_output_tokens"}
    assert said["status"] == called["status"] == "incomplete"


def test_log_probabilities() -> None:
    ask = responses_over_chat(
        {"model": "m", "input": "hi", "include": ["message.output_text.logprobs"], "top_logprobs": 1}
    )
    events = translated(
        ask.stream_filter(), opening() + delta(content="A", logprobs=LOGPROBS, finish="stop") + ending()
    )
    told = [{"token": "A", "logprob": -0.5, "bytes": [65], "top_logprobs": []}]
    assert events[4]["logprobs"] == [{"token": "A", "logprob": -0.5, "top_logprobs": []}]
    assert events[-1]["response"]["output"][0]["content"][0]["logprobs"] == told
    assert events[-1]["response"]["top_logprobs"] == 1


def test_hidden_thinking_is_not_spelled_out_either() -> None:
    ask = responses_over_chat({"model": "m", "input": "hi", "include": ["message.output_text.logprobs"]})
    ask.hide = True
    both = delta(reasoning="A", content="B", logprobs=LOGPROBS) + delta(reasoning="A", logprobs=LOGPROBS)
    events = translated(ask.stream_filter(), opening() + both + delta(content="C", finish="stop") + ending())
    assert brief(events)[2:] == [
        "output_item.added 0 message",
        "content_part.added 0",
        "output_text.delta 0 B",
        "output_text.delta 0 C",
        "output_text.done 0 BC",
        "content_part.done 0",
        "output_item.done 0 message",
        "completed",
    ]
    assert '"A"' not in json.dumps(events)


def test_a_cut_stream_has_no_end() -> None:
    stream_filter = ASK.stream_filter()
    assert translated(stream_filter, CUT)[-1]["type"] == "response.output_text.delta"
    assert not stream_filter.ended
    assert stream_filter.usage == Usage(18, 8, 3, None)


@pytest.mark.parametrize("stream", [FAILED, opening() + delta(reasoning="The") + delta(finish="abort") + ending()])
def test_a_nodes_error_ends_the_stream(stream: bytes) -> None:
    stream_filter = ASK.stream_filter()
    events = translated(stream_filter, stream)
    assert events[-1]["type"] == "error"
    assert events[-1]["message"]
    assert events[-1]["sequence_number"] == len(events) - 1
    assert (stream_filter.ended, stream_filter.failed) == (False, True)


def test_a_plain_answer() -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "get_weather", "arguments": "{}"}}
    answer = recorded.plain("tool_calls", reasoning="Hm.", content="See:", tool_calls=[call])
    made = json.loads(ASK.plain(200, answer))
    assert [item["type"] for item in made["output"]] == ["reasoning", "message", "function_call"]
    assert made["output"][0]["content"] == [{"type": "reasoning_text", "text": "Hm."}]
    assert made["output"][2]["arguments"] == "{}"
    assert (made["status"], made["usage"]["output_tokens"]) == ("completed", 8)
    assert Response.model_validate(made).output_text == "See:"


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({}, "auto"),
        ({"tools": []}, "none"),
        ({"tools": [], "tool_choice": "auto"}, "none"),
        ({"tool_choice": {"type": "function", "name": "get"}}, {"type": "function", "name": "web__get"}),
        ({"tool_choice": {"type": "web_search_preview"}}, {"type": "web_search_preview"}),
    ],
)
def test_the_tool_choice_that_holds_is_repeated(asked: Json, told: object) -> None:
    over = responses_over_chat({"model": "m", "input": "hi", "tools": TOOLS, "parallel_tool_calls": "off", **asked})
    made = json.loads(over.plain(200, recorded.plain("stop", content="A")))
    assert (made["tool_choice"], made["parallel_tool_calls"]) == (told, False)


def test_an_error_names_the_clients_field() -> None:
    node = {"error": {"message": "too long", "type": "BadRequestError", "param": "messages", "code": 400}}
    assert json.loads(ASK.plain(400, json.dumps(node).encode()))["error"] == {**node["error"], "param": "input"}


KEEPING = responses_over_chat({"input": "hi", "include": ["reasoning.encrypted_content"]})


def test_thinking_is_kept_for_the_client_where_it_asks_for_that() -> None:
    """In `encrypted_content`, which Codex sends back, unlike the content."""
    streamed = translated(KEEPING.stream_filter(), THOUGHT)
    added = next(event["item"] for event in streamed if event["type"] == "response.output_item.added")
    assert "encrypted_content" not in added
    done = next(event["item"] for event in streamed if event["type"] == "response.output_item.done")
    assert done == streamed[-1]["response"]["output"][0]
    choice = {"message": {"reasoning": "The capital of", "content": "Paris"}, "finish_reason": "stop"}
    plain = KEEPING.answer({"id": "c", "choices": [choice]})["output"][0]
    for item in (done, plain):
        assert decode_text(REASONING, item["encrypted_content"]) == "The capital of" == item["content"][0]["text"]
    assert "encrypted_content" not in json.dumps(translated(ASK.stream_filter(), THOUGHT))
