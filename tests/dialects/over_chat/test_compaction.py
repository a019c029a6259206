"""Compactions: what the model is asked, and the object or the events that its summary becomes."""

import json
from typing import Any

import pytest
from openai.types.responses import CompactedResponse, Response, ResponseStreamEvent
from pydantic import TypeAdapter

from gateway.core.dialects.compact import Compact
from gateway.core.dialects.opaque_text import COMPACTION, decode_text, encode_text
from gateway.core.dialects.over_chat import compaction_over_chat
from gateway.core.dialects.over_chat.compaction import INSTRUCTION
from gateway.core.dialects.responses import Responses
from gateway.core.dialects.responses_input import SUMMARY_LEAD
from gateway.core.errors import InvalidRequest, NoSummary
from tests.dialects.over_chat.chat_streams import CALLED, CUT, FAILED, THOUGHT, delta, ending, opening, translated

Json = dict[str, Any]
TRIGGER = {"type": "compaction_trigger"}
TOOL = {"type": "function", "name": "look", "parameters": {"type": "object"}, "strict": True}
SAID = {"role": "user", "content": "hi"}
ANSWERED = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "ho"}]}
SUMMARY = "France is 🌍\nParis"
USAGE = {"prompt_tokens": 18, "completion_tokens": 8, "completion_tokens_details": {"reasoning_tokens": 3}}
CHAT = {
    "id": "chatcmpl-1",
    "created": 7,
    "model": "m",
    "choices": [{"message": {"reasoning": "Hm.", "content": SUMMARY}, "finish_reason": "stop"}],
    "usage": USAGE,
}


def chat(**fields: Any) -> Json:
    """What the model is asked for a compaction at its own path."""
    return compaction_over_chat({"model": "m", **fields}, alone=True).chat


def triggered(*items: Json, **fields: Any) -> Any:
    """The translation of a response whose input ends with the trigger."""
    body = {"model": "m", "input": [*items, TRIGGER], **fields}
    return Responses().over_chat(Responses().read(json.dumps(body).encode()).body)


def test_the_conversation_is_asked_for_its_summary() -> None:
    asked = {"role": "user", "content": INSTRUCTION}
    assert chat(input="hi")["messages"] == [SAID, asked]
    made = chat(input=[SAID, ANSWERED], instructions="Be brief.", tools=[TOOL], max_output_tokens=9)
    assert [message["role"] for message in made["messages"]] == ["system", "user", "assistant", "user"]
    assert made["messages"][-1] == asked
    assert [tool["function"]["name"] for tool in made["tools"]] == ["look"], "else the prompt is not in the cache"
    assert (made["tool_choice"], made["max_tokens"]) == ("none", 9)


def test_at_its_own_path_and_by_trigger_the_model_is_asked_the_same() -> None:
    fields: Json = {
        "instructions": "Be brief.",
        "tools": [TOOL],
        "tool_choice": "required",
        "parallel_tool_calls": True,
    }
    assert triggered(SAID, ANSWERED, **fields).chat == chat(input=[SAID, ANSWERED], **fields)


def test_a_summary_has_no_form() -> None:
    form = {"format": {"type": "json_object"}}
    fields: Json = {"text": form, "include": ["message.output_text.logprobs"], "top_logprobs": 3}
    assert chat(input="hi", **fields) == chat(input="hi")
    for odd in (True, 1, [1], {"a": 1}):  # nothing of it is read
        shapeless = triggered(SAID, include=odd, top_logprobs=odd, text=odd, tool_choice=odd)
        assert shapeless.chat == chat(input=[SAID])


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({}, "input"),
        ({"input": 3}, "input"),
        ({"input": [3]}, "input.0"),
        ({"input": "hi", "previous_response_id": "resp_1"}, "previous_response_id"),
        ({"input": [{"type": "item_reference", "id": "x"}]}, "input.0.type"),
    ],
)
def test_what_cannot_be_compacted_is_refused_by_name(fields: Json, param: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        chat(**fields)
    assert refused.value.param == param


def test_the_object() -> None:
    earlier = {"type": "message", "role": "user", "content": SUMMARY_LEAD + "Before."}
    parts = [{"type": "input_text", "text": "a"}, {"type": "input_image", "image_url": "data:,", "detail": "auto"}]
    called = {"type": "function_call", "call_id": "c", "name": "look", "arguments": "{}"}
    shown = {"type": "message", "id": "msg_7", "role": "user", "content": parts}
    developer = {"role": "developer", "content": "Hm."}
    asked = {"model": "m", "input": [earlier, developer, SAID, ANSWERED, called, shown]}
    made = compaction_over_chat(asked, alone=True).answer(CHAT)
    CompactedResponse.model_validate(
        {**made, "output": made["output"][-1:]}
    )  # OpenAI's SDK has no user's message there
    assert (made["object"], made["created_at"]) == ("response.compaction", 7)
    *kept, item = made["output"]
    assert [message["content"] for message in kept] == [[{"type": "input_text", "text": "hi"}], parts]
    assert kept[1]["id"] == "msg_7" and {message["status"] for message in kept} == {"completed"}
    assert item["type"] == "compaction" and decode_text(COMPACTION, item["encrypted_content"]) == SUMMARY
    assert made["usage"]["total_tokens"] == 26 and made["usage"]["output_tokens_details"]["reasoning_tokens"] == 3


def test_it_is_the_input_of_what_comes_next() -> None:
    made = compaction_over_chat({"model": "m", "input": "hi"}, alone=True).answer(CHAT)
    body = {"model": "m", "input": [*made["output"], {"role": "user", "content": "go on"}]}
    sent = Responses().over_chat(Responses().read(json.dumps(body).encode()).body)
    assert sent is not None
    assert [message["role"] for message in sent.chat["messages"]] == ["user"] * 3
    assert sent.chat["messages"][1]["content"] == SUMMARY_LEAD + SUMMARY


def test_a_plain_response_with_the_trigger() -> None:
    made = triggered(SAID).answer(CHAT)
    Response.model_validate(made)
    assert (made["object"], made["status"], [item["type"] for item in made["output"]]) == (
        "response",
        "completed",
        ["compaction"],
    )
    assert decode_text(COMPACTION, made["output"][0]["encrypted_content"]) == SUMMARY


def test_the_events() -> None:
    stream_filter = triggered(SAID, stream=True).stream_filter()
    events = translated(stream_filter, THOUGHT)
    for event in events:
        TypeAdapter(ResponseStreamEvent).validate_python(event)
    assert [event["type"].removeprefix("response.") for event in events] == [
        "created",
        "in_progress",
        "output_item.added",
        "compaction.compacting",
        "compaction.compacting",
        "output_item.done",
        "completed",
    ]
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    item = events[-2]["item"]
    assert decode_text(COMPACTION, item["encrypted_content"]) == SUMMARY
    assert events[2]["item"] == {**item, "encrypted_content": ""}
    assert events[-1]["response"]["output"] == [item]
    assert "capital" not in json.dumps(events), "thinking is no part of it"
    assert (stream_filter.ended, stream_filter.failed) == (True, False)


@pytest.mark.parametrize("finish", ["stop", "length"])
def test_a_summary_that_ran_into_its_limit_is_better_than_none(finish: str) -> None:
    stream = opening() + delta(content="Half", finish=finish) + ending()
    assert translated(triggered(SAID).stream_filter(), stream)[-1]["type"] == "response.completed"
    half = {**CHAT, "choices": [{"message": {"content": "Half"}, "finish_reason": finish}]}
    assert triggered(SAID).answer(half)["status"] == "completed"


@pytest.mark.parametrize("said", ["", None])
def test_no_summary_is_an_error(said: Any) -> None:
    """Else the client would throw its conversation away for nothing."""
    empty = {**CHAT, "choices": [{"message": {"reasoning": "Hm.", "content": said}, "finish_reason": "length"}]}
    for over in (triggered(SAID), compaction_over_chat({"input": "hi"}, alone=True)):
        with pytest.raises(NoSummary):
            over.plain(200, json.dumps(empty).encode())
    stream_filter = triggered(SAID).stream_filter()
    events = translated(stream_filter, opening() + delta(reasoning="Hm.", finish="length") + ending())
    assert (events[-1]["type"], events[-1]["code"]) == ("error", "no_summary")
    assert (stream_filter.ended, stream_filter.failed) == (True, False), "the node did its work"
    assert not any(event["type"] == "response.completed" for event in events)


@pytest.mark.parametrize("stream", [CUT, FAILED, opening() + delta(content="Half")])
def test_a_stream_that_breaks_has_no_end(stream: bytes) -> None:
    events = translated(triggered(SAID).stream_filter(), stream)
    assert not any(event["type"] == "response.completed" for event in events)


def test_errors_are_in_the_form_that_sdks_raise() -> None:
    event = translated(triggered(SAID).stream_filter(), FAILED)[-1]
    assert event["type"] == "error" and event["error"]["message"] == event["message"]
    assert event["error"]["code"] == event["code"]


def test_a_message_without_a_type_is_kept() -> None:
    made = compaction_over_chat({"input": [{"type": None, "role": "user", "content": "hi"}]}, alone=True).answer(CHAT)
    assert [item["type"] for item in made["output"]] == ["message", "compaction"]


def test_a_call_is_no_part_of_a_summary() -> None:
    events = translated(triggered(SAID).stream_filter(), CALLED)
    assert [item["type"] for item in events[-1]["response"]["output"]] == ["compaction"]
    assert decode_text(COMPACTION, events[-1]["response"]["output"][0]["encrypted_content"]) == "Let me see."


def test_what_nodes_do_not_know_is_taken_here_too() -> None:
    kept = {"type": "compaction", "encrypted_content": encode_text(COMPACTION, "Before.")}
    ask = Compact().read(json.dumps({"model": "m", "input": [kept, SAID], "stream": True}).encode())
    over = Compact().over_chat(ask.body)
    assert over is not None and not ask.stream and "stream" not in over.chat
    assert over.chat["messages"][0]["content"] == SUMMARY_LEAD + "Before."
