"""However a chat stream is cut into pieces, the same events come out; and the text in them is the text that went in."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.dialects.over_chat import OverChat, messages_over_chat, responses_over_chat
from gateway.core.errors import UpstreamError
from tests.dialects.over_chat import chat_streams as recorded
from tests.dialects.over_chat.chat_streams import CALLED, CUT, FAILED, THOUGHT, delta, ending, opening, translated

MESSAGES = messages_over_chat({"model": "m", "max_tokens": 9, "messages": [], "stream": True})
RESPONSES = responses_over_chat({"model": "m", "input": "hi", "stream": True})
BOTH = pytest.mark.parametrize("ask", [MESSAGES, RESPONSES], ids=["messages", "responses"])
CRLF = THOUGHT.replace(b"\n\n", b"\r\n\r\n")

KEYS = (
    *("choices", "delta", "message", "reasoning", "content", "tool_calls", "function", "name", "arguments", "index"),
    *("id", "model", "usage", "prompt_tokens", "prompt_tokens_details", "cached_tokens", "logprobs", "error"),
)

texts = st.text(min_size=1, max_size=8)
kinds = st.sampled_from(["reasoning", "content"])


@BOTH
@given(data=st.data())
def test_any_cut(ask: OverChat, data: st.DataObject) -> None:
    stream = data.draw(st.sampled_from([THOUGHT, CALLED, CUT, FAILED, CRLF]))
    cuts = sorted(data.draw(st.sets(st.integers(1, len(stream) - 1), max_size=12)))
    pieces = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    whole, cut = ask.stream_filter(), ask.stream_filter()
    assert translated(cut, *pieces) == translated(whole, stream)
    assert (cut.ended, cut.failed, cut.usage) == (whole.ended, whole.failed, whole.usage)


@BOTH
@given(said=st.lists(st.tuples(kinds, texts), max_size=8), calls=st.lists(st.lists(texts, max_size=3), max_size=3))
def test_nothing_is_lost_and_nothing_added(ask: OverChat, said: list[tuple[str, str]], calls: list[list[str]]) -> None:
    stream = opening() + b"".join(delta(**{kind: text}) for kind, text in said)
    for index, pieces in enumerate(calls):
        stream += delta(tool_calls=[recorded.call(index, "", f"tool{index}", f"t{index}")])
        stream += b"".join(delta(tool_calls=[recorded.call(index, piece)]) for piece in pieces)
    stream_filter = ask.stream_filter()
    events = translated(stream_filter, stream + delta(finish="stop") + ending())
    assert stream_filter.ended
    for kind in ("reasoning", "content"):
        assert _texts_of(events, kind) == "".join(text for other, text in said if other == kind)
    assert _texts_of(events, "arguments") == "".join(piece for pieces in calls for piece in pieces)


scalars = st.none() | st.booleans() | st.integers() | texts
json_values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=4),
    max_leaves=12,
)


@BOTH
@given(chunks=st.lists(st.dictionaries(st.sampled_from(KEYS), json_values, max_size=4), max_size=3))
def test_chunks_of_any_form_are_told_or_refused(ask: OverChat, chunks: list[dict[str, Any]]) -> None:
    stream_filter = ask.stream_filter()
    translated(stream_filter, opening() + b"".join(recorded.event(chunk) for chunk in chunks))
    assert not stream_filter.ended


@BOTH
@given(answer=st.dictionaries(st.sampled_from(KEYS), json_values, max_size=6))
def test_answers_of_any_form_are_told_or_refused(ask: OverChat, answer: dict[str, Any]) -> None:
    try:
        assert json.loads(ask.plain(200, json.dumps(answer).encode()))
    except UpstreamError as error:
        assert error.message


@BOTH
@given(junk=st.binary(max_size=60))
def test_junk_never_ends_an_answer(ask: OverChat, junk: bytes) -> None:
    stream_filter = ask.stream_filter()
    stream_filter.feed(junk + b"\n\n")
    assert not stream_filter.ended


def _texts_of(events: list[dict[str, Any]], kind: str) -> str:
    """All deltas of one kind, in either dialect."""
    names = {
        "reasoning": ("thinking", "response.reasoning_text.delta"),
        "content": ("text", "response.output_text.delta"),
        "arguments": ("partial_json", "response.function_call_arguments.delta"),
    }
    member, event_type = names[kind]
    told = []
    for event in events:
        part = event.get("delta", "")
        if event["type"] == event_type:
            told.append(part)
        elif isinstance(part, dict) and member in part:
            told.append(part[member])
    return json.loads(json.dumps("".join(told)))  # type: ignore[no-any-return]
