"""Streams over chat as the strictest client reads them: nothing out of order, and every token exactly once.

However the node's bytes are cut, and whatever comes between.
"""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.dialects.over_chat import OverChat, messages_over_chat, responses_over_chat
from tests.dialects.over_chat import chat_streams as recorded
from tests.dialects.over_chat.drawn_answers import Drawn, answers, cut
from tests.support.strict_readers import MessagesReader, ResponsesReader, StrictReader

Json = dict[str, Any]

MESSAGES = messages_over_chat({"model": "m", "max_tokens": 9, "messages": [], "stream": True})
RESPONSES = responses_over_chat({"model": "m", "input": "hi", "stream": True})
READERS: dict[OverChat, type[StrictReader]] = {MESSAGES: MessagesReader, RESPONSES: ResponsesReader}
BOTH = pytest.mark.parametrize("ask", [MESSAGES, RESPONSES], ids=["messages", "responses"])


def told(ask: OverChat, pieces: list[bytes]) -> tuple[bytes, StrictReader]:
    """What a client gets, and what it reads in that."""
    stream_filter = ask.stream_filter()
    stream = b"".join(map(stream_filter.feed, pieces)) + stream_filter.flush()
    reader = READERS[ask]().read(stream)
    assert stream_filter.ended is (reader.answer is not None)
    assert stream_filter.failed is (reader.error is not None)
    return stream, reader


def said(answer: Json) -> tuple[str, str, list[tuple[str, str, Any]]]:
    """Thinking, text and calls of an answer, in either dialect."""
    parts = answer["content"] if "content" in answer else answer["output"]
    thinking = text = ""
    calls = []
    for part in parts:
        kind = part["type"]
        if kind in ("thinking", "text"):
            thinking += part.get("thinking", "")
            text += part.get("text", "")
        elif kind == "tool_use":
            calls.append((part["id"], part["name"], part.get("partial_json", part.get("input"))))
        elif kind == "function_call":
            calls.append((part["call_id"], part["name"], part["arguments"]))
        else:
            whole = "".join(piece["text"] for piece in part["content"])
            thinking, text = (thinking + whole, text) if kind == "reasoning" else (thinking, text + whole)
    return thinking, text, calls


def made_whole(answer: Json) -> Json:
    """The answer that was read from a stream, as a plain one has it: calls of messages have objects."""
    if "output" in answer:
        return {**answer, "output": [{**item, "status": None} for item in answer["output"]]}
    blocks = [dict(block) for block in answer["content"]]
    for block in blocks:
        if "partial_json" in block:
            block["input"] = json.loads(block.pop("partial_json") or "{}")
    return {**answer, "content": blocks or [{"type": "text", "text": ""}]}


@BOTH
@given(data=st.data())
def test_every_token_exactly_once_and_nothing_out_of_order(ask: OverChat, data: st.DataObject) -> None:
    """Calls by turns, thinking and text between their pieces, several in one chunk, comments, no usage."""
    drawn: Drawn = data.draw(answers())
    _, reader = told(ask, data.draw(cut(drawn.stream)))
    assert reader.error is None and reader.answer is not None
    thinking, text, calls = said(reader.answer)
    assert (thinking, text) == (drawn.thinking, drawn.text)
    assert calls == [(call.id, call.name, call.arguments) for call in drawn.calls]


@BOTH
@given(data=st.data())
def test_the_same_answer_as_a_plain_one(ask: OverChat, data: st.DataObject) -> None:
    """To the last field, where thinking, text and calls come in the order in which a plain answer has them."""
    drawn: Drawn = data.draw(answers(interleaved=False))
    _, reader = told(ask, data.draw(cut(drawn.stream)))
    assert reader.answer is not None
    plain = json.loads(ask.plain(200, drawn.plain()))
    read = made_whole(reader.answer)
    if not drawn.told_usage:
        assert read.pop("usage") != plain.pop("usage")
    assert read == (made_whole(plain) if "output" in plain else plain)


@BOTH
@given(data=st.data())
def test_hidden_thinking_leaves_no_gap(ask: OverChat, data: st.DataObject) -> None:
    hidden = messages_over_chat({"model": "m", "max_tokens": 9, "messages": []}) if ask is MESSAGES else None
    hidden_ask: OverChat = hidden or responses_over_chat({"model": "m", "input": "hi"})
    hidden_ask.hide = True
    drawn: Drawn = data.draw(answers())
    stream_filter = hidden_ask.stream_filter()
    pieces = data.draw(cut(drawn.stream))
    reader = READERS[ask]().read(b"".join(map(stream_filter.feed, pieces)) + stream_filter.flush())
    assert reader.answer is not None
    assert said(reader.answer) == ("", drawn.text, [(call.id, call.name, call.arguments) for call in drawn.calls])


@BOTH
@given(data=st.data())
def test_an_error_in_the_middle_is_the_end(ask: OverChat, data: st.DataObject) -> None:
    """Whatever the node sends behind it; before it there is nothing but what the whole stream says."""
    drawn: Drawn = data.draw(answers())
    events = drawn.stream.split(b"\n\n")
    place = data.draw(st.integers(0, len(events) - 1))
    failed = recorded.event({"error": {"message": "engine died", "code": 500}})
    broken = b"".join(each + b"\n\n" for each in events[:place]) + failed + b"\n\n".join(events[place:])
    whole, _ = told(ask, [drawn.stream])
    stream, reader = told(ask, data.draw(cut(broken)))
    if place < len(events) - 1:
        assert reader.error is not None and reader.answer is None
        assert whole.startswith(stream[: stream.index(b"event: error")])
    else:
        assert reader.answer is not None


@BOTH
@given(data=st.data())
def test_a_stream_that_breaks_off_says_nothing_else(ask: OverChat, data: st.DataObject) -> None:
    """And has no end: the gateway writes an error behind it."""
    drawn: Drawn = data.draw(answers())
    place = data.draw(st.integers(0, len(drawn.stream) - len(b"data: [DONE]\n\n")))
    whole, _ = told(ask, [drawn.stream])
    stream, reader = told(ask, [drawn.stream[:place]])
    assert reader.answer is None and reader.error is None
    assert whole.startswith(stream)
