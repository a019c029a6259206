"""Chat's answers as Anthropic's: events of a stream, plain answers, errors."""

import json
from typing import Any

import pytest
from anthropic.types import RawMessageStreamEvent
from pydantic import TypeAdapter

from gateway.core.dialects.over_chat import messages_over_chat
from gateway.core.errors import UpstreamError
from gateway.core.usage.token_usage import Usage
from tests.dialects.over_chat import chat_streams as recorded
from tests.dialects.over_chat.chat_streams import CALLED, CUT, FAILED, ID, THOUGHT, delta, ending, opening, translated

ASK = messages_over_chat({"model": "m", "max_tokens": 9, "messages": [], "stream": True})


def brief(events: list[dict[str, Any]]) -> list[str]:
    """One word an event: its type, and what it carries."""
    told = []
    for event in events:
        inner = event.get("content_block") or event.get("delta") or {}
        text = inner.get("text") or inner.get("thinking") or inner.get("partial_json") or inner.get("name") or ""
        told.append(" ".join(filter(None, (event["type"], str(event.get("index", "")), inner.get("type", ""), text))))
    return told


def test_thinking_then_an_answer() -> None:
    stream_filter = ASK.stream_filter()
    events = translated(stream_filter, THOUGHT)
    assert brief(events) == [
        "message_start",
        "content_block_start 0 thinking",
        "content_block_delta 0 thinking_delta The",
        "content_block_delta 0 thinking_delta  capital of",
        "content_block_delta 0 signature_delta",
        "content_block_stop 0",
        "content_block_start 1 text",
        "content_block_delta 1 text_delta France is",
        "content_block_delta 1 text_delta  🌍\nParis",
        "content_block_stop 1",
        "message_delta",
        "message_stop",
    ]
    message = events[0]["message"]
    assert (message["id"], message["role"], message["model"]) == (ID, "assistant", "nemotron-3-ultra")
    assert message["usage"] == {"input_tokens": 18, "output_tokens": 0}
    assert events[-2]["delta"] == {"stop_reason": "end_turn", "stop_sequence": None}
    thought = {"output_tokens_details": {"thinking_tokens": 3}}
    assert events[-2]["usage"] == {"input_tokens": 18, "output_tokens": 8, **thought}
    assert (stream_filter.ended, stream_filter.failed, stream_filter.usage) == (True, False, Usage(18, 8, 3, None))


def test_calls_come_as_blocks_of_their_own() -> None:
    events = translated(ASK.stream_filter(), CALLED)
    assert brief(events)[1:-2] == [
        "content_block_start 0 text",
        "content_block_delta 0 text_delta Let me see.",
        "content_block_stop 0",
        "content_block_start 1 tool_use get_weather",
        'content_block_delta 1 input_json_delta {"city": "',
        'content_block_delta 1 input_json_delta Paris"}',
        "content_block_stop 1",
        "content_block_start 2 tool_use get_time",
        'content_block_delta 2 input_json_delta {"zone"',
        "content_block_delta 2 input_json_delta : 1}",
        "content_block_stop 2",
    ]
    assert events[4]["content_block"] == {
        "type": "tool_use",
        "id": "chatcmpl-tool-b1",
        "name": "get_weather",
        "input": {},
    }
    assert events[-2]["delta"]["stop_reason"] == "tool_use"


def test_the_sdk_knows_every_event() -> None:
    parse = TypeAdapter[Any](RawMessageStreamEvent).validate_python
    for stream in (THOUGHT, CALLED):
        for event in translated(ASK.stream_filter(), stream):
            assert parse(event).type == event["type"]


def test_text_within_a_call_waits_for_its_end() -> None:
    within = (
        delta(tool_calls=[recorded.call(0, "{", "look", "t1")])
        + delta(content="hm ")
        + delta(content="hm")
        + delta(tool_calls=[recorded.call(0, "}")], finish="tool_calls")
    )
    assert brief(translated(ASK.stream_filter(), opening() + within + ending()))[1:-2] == [
        "content_block_start 0 tool_use look",
        "content_block_delta 0 input_json_delta {",
        "content_block_delta 0 input_json_delta }",
        "content_block_stop 0",
        "content_block_start 1 text",
        "content_block_delta 1 text_delta hm ",
        "content_block_delta 1 text_delta hm",
        "content_block_stop 1",
    ]


@pytest.mark.parametrize(
    ("finish", "stop", "arguments", "told"),
    [
        ("stop", None, None, ("end_turn", None)),
        ("stop", 151645, None, ("end_turn", None)),
        ("stop", "Paris", None, ("stop_sequence", "Paris")),
        ("length", None, None, ("max_tokens", None)),
        ("tool_calls", None, "{}", ("tool_use", None)),
        ("stop", None, "{}", ("tool_use", None)),
        ("tool_calls", "Paris", "{}", ("tool_use", None)),
        ("stop", "Paris", '{"ci', ("stop_sequence", "Paris")),
        ("length", None, '{"ci', ("max_tokens", None)),
    ],
)
def test_why_it_stopped(finish: str, stop: object, arguments: str | None, told: tuple[str | None, str | None]) -> None:
    calls = [] if arguments is None else [recorded.call(0, arguments, "look", "t1")]
    stream = opening() + delta(tool_calls=calls) + delta(finish=finish, stop=stop) + ending()
    assert translated(ASK.stream_filter(), stream)[-2]["delta"] == {"stop_reason": told[0], "stop_sequence": told[1]}
    made = json.loads(ASK.plain(200, recorded.plain(finish, stop, tool_calls=calls)))
    assert (made["stop_reason"], made["stop_sequence"]) == told


def test_cached_tokens_are_counted_beside_the_others() -> None:
    usage = {"prompt_tokens": 200, "completion_tokens": 1, "prompt_tokens_details": {"cached_tokens": 128}}
    told = translated(ASK.stream_filter(), opening() + delta(finish="stop") + ending(usage))[-2]["usage"]
    assert told == {"input_tokens": 72, "output_tokens": 1, "cache_read_input_tokens": 128}


def test_an_older_node_and_one_that_tells_no_usage() -> None:
    stream = opening(usage=False) + delta(reasoning_content="Hm.") + delta(content="Hi.", finish="stop") + ending(None)
    events = translated(ASK.stream_filter(), stream)
    assert events[0]["message"]["usage"] == {"input_tokens": 0, "output_tokens": 0}
    assert brief(events)[2] == "content_block_delta 0 thinking_delta Hm."
    assert events[-1]["type"] == "message_stop"


def test_a_cut_stream_has_no_end() -> None:
    stream_filter = ASK.stream_filter()
    assert translated(stream_filter, CUT)[-1]["type"] == "content_block_delta"
    assert not stream_filter.ended
    assert stream_filter.usage == Usage(18, 8, 3, None)
    unfinished = ASK.stream_filter()
    assert "message_stop" not in brief(translated(unfinished, opening() + delta(content="It") + ending()))
    assert not unfinished.ended


def test_a_nodes_error_ends_the_stream() -> None:
    stream_filter = ASK.stream_filter()
    events = translated(stream_filter, FAILED)
    assert events[-1] == {"type": "error", "error": {"type": "api_error", "message": "engine died"}}
    assert (stream_filter.ended, stream_filter.failed) == (False, True)


def test_an_error_keeps_its_kind() -> None:
    refused = recorded.event({"error": {"message": "no", "type": "BadRequestError", "code": 400}})
    assert translated(ASK.stream_filter(), refused)[0]["error"]["type"] == "invalid_request_error"


def test_what_cannot_be_told_right_is_an_error() -> None:
    """Nothing follows in a call that is whole, and no call begins without a name."""
    late = [recorded.call(0, "{}", "look", "t1"), recorded.call(1, "{", "see", "t2"), recorded.call(0, "}")]
    nameless = [recorded.call(0, "{}"), recorded.call(1, "{", "see", "t2")]
    for calls in (late, nameless):
        stream_filter = ASK.stream_filter()
        events = translated(stream_filter, opening() + delta(tool_calls=calls, content="So") + ending())
        assert [event["type"] for event in events].count("error") == 1
        assert events[-1]["type"] == "error"
        assert stream_filter.failed


def test_calls_by_turns_come_one_after_the_other() -> None:
    """The first goes on as it comes; the others wait until it is whole, and so does the text between them."""
    turns = [
        delta(tool_calls=[recorded.call(0, "", "look", "t1"), recorded.call(1, "", "see", "t2")]),
        delta(tool_calls=[recorded.call(0, '{"at"')], content="So"),
        delta(tool_calls=[recorded.call(1, '{"of"'), recorded.call(0, ": 1")]),
        delta(tool_calls=[recorded.call(0, "}")]),
        delta(tool_calls=[recorded.call(1, ": 2}")]),
        delta(reasoning="Hm", finish="tool_calls"),
    ]
    assert brief(translated(ASK.stream_filter(), opening() + b"".join(turns) + ending()))[1:-2] == [
        "content_block_start 0 tool_use look",
        'content_block_delta 0 input_json_delta {"at"',
        "content_block_delta 0 input_json_delta : 1",
        "content_block_delta 0 input_json_delta }",
        "content_block_stop 0",
        "content_block_start 1 tool_use see",
        'content_block_delta 1 input_json_delta {"of"',
        "content_block_delta 1 input_json_delta : 2}",
        "content_block_stop 1",
        "content_block_start 2 text",
        "content_block_delta 2 text_delta So",
        "content_block_stop 2",
        "content_block_start 3 thinking",
        "content_block_delta 3 thinking_delta Hm",
        "content_block_delta 3 signature_delta",
        "content_block_stop 3",
    ]


def test_comments_pass() -> None:
    assert ASK.stream_filter().feed(b": keep-alive\n\n") == b": keep-alive\n\n"


def test_a_plain_answer() -> None:
    call = {"id": "t1", "type": "function", "function": {"name": "look", "arguments": '{"at": "Paris"}'}}
    made = json.loads(ASK.plain(200, recorded.plain("tool_calls", reasoning="Hm.", content="See:", tool_calls=[call])))
    signature = made["content"][0].pop("signature")
    assert len(signature) >= 16
    assert made == {
        "id": ID,
        "type": "message",
        "role": "assistant",
        "content": [
            {"type": "thinking", "thinking": "Hm."},
            {"type": "text", "text": "See:"},
            {"type": "tool_use", "id": "t1", "name": "look", "input": {"at": "Paris"}},
        ],
        "model": "nemotron-3-ultra",
        "stop_reason": "tool_use",
        "stop_sequence": None,
        "usage": {"input_tokens": 18, "output_tokens": 8, "output_tokens_details": {"thinking_tokens": 3}},
    }


def test_numbers_in_a_call_keep_their_digits() -> None:
    arguments = '{"id":123456789012345678901234567890,"of":[{"at":-9223372036854775809}],"x":1e300}'
    call = {"id": "t1", "function": {"name": "look", "arguments": arguments}}
    made = ASK.plain(200, recorded.plain("tool_calls", tool_calls=[call]))
    assert b"123456789012345678901234567890" in made
    assert json.loads(made)["content"][0]["input"] == json.loads(arguments)


def test_an_empty_answer_has_a_block() -> None:
    assert json.loads(ASK.plain(200, recorded.plain()))["content"] == [{"type": "text", "text": ""}]


def test_a_call_that_is_not_json_is_the_nodes_fault() -> None:
    call = {"id": "t1", "function": {"name": "look", "arguments": '{"at'}}
    with pytest.raises(UpstreamError):
        ASK.plain(200, recorded.plain("tool_calls", tool_calls=[call]))
    cut = json.loads(ASK.plain(200, recorded.plain("length", tool_calls=[call])))
    assert (cut["stop_reason"], cut["content"][0]["input"]) == ("max_tokens", {})


@pytest.mark.parametrize(
    ("status", "kind"), [(400, "invalid_request_error"), (404, "not_found_error"), (500, "api_error")]
)
def test_errors(status: int, kind: str) -> None:
    node = json.dumps({"error": {"message": "no", "type": "BadRequestError", "param": None, "code": status}}).encode()
    assert json.loads(ASK.plain(status, node)) == {"type": "error", "error": {"type": kind, "message": "no"}}
    assert ASK.plain(status, b"<html>") == b"<html>"
