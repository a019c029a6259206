"""Hidden reasoning, event by event: what carries it goes, all else stays, and what stands behind it moves up."""

import json
from typing import Any

import pytest

from gateway.core.budgets.hiding import HidingFilter, hide_whole, hider_of
from gateway.core.dialects import DIALECTS
from gateway.core.errors import BadUpstreamResponse

BY_NAME = {dialect.name: dialect for dialect in DIALECTS}


def events_of(answer: bytes) -> list[dict[str, Any]]:
    lines = [line.removeprefix(b"data: ") for line in answer.splitlines() if line.startswith(b"data: ")]
    return [json.loads(line) for line in lines if line != b"[DONE]"]


def chunk_of(**choice: Any) -> bytes:
    return b"data: " + json.dumps({"id": "c", "choices": [{"index": 0, **choice}]}).encode() + b"\n\n"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (chunk_of(delta={"reasoning": "hm"}), None),
        (chunk_of(delta={"reasoning_content": "hm"}, finish_reason=None, token_ids=[1]), None),
        (chunk_of(delta={"reasoning": None, "content": "a"}), chunk_of(delta={"reasoning": None, "content": "a"})),
        (chunk_of(delta={"content": 'a "reasoning": "b"'}), chunk_of(delta={"content": 'a "reasoning": "b"'})),
        (
            chunk_of(delta={"reasoning": "hm", "content": "a"}, logprobs={}, token_ids=[1, 2]),
            chunk_of(delta={"content": "a"}, logprobs=None, token_ids=None),
        ),
        (
            chunk_of(delta={"reasoning": "hm"}, finish_reason="length"),
            chunk_of(delta={}, finish_reason="length"),
        ),
        (chunk_of(delta={"role": "assistant", "reasoning": "hm"}), chunk_of(delta={"role": "assistant"})),
        (b"data: [DONE]\n\n", b"data: [DONE]\n\n"),
        (b": comment\n\n", b": comment\n\n"),
        (
            b'data: {"error": {"message": "no \\"reasoning"}}\n\n',
            b'data: {"error": {"message": "no \\"reasoning"}}\n\n',
        ),
    ],
)
def test_what_becomes_of_an_event_of_chat(given: bytes, expected: bytes | None) -> None:
    watch = HidingFilter(
        BY_NAME["chat"].stream_filter(BY_NAME["chat"].read(b'{"stream_options":{"include_usage":true}}')),
        hider_of(BY_NAME["chat"]),
    )
    passed = watch.feed(given)
    if expected is None:
        assert passed == b""
    else:
        assert events_of(passed) == events_of(expected)
        assert passed == expected or given != expected


def test_one_of_several_choices_goes_on() -> None:
    watch = HidingFilter(BY_NAME["chat"].stream_filter(BY_NAME["chat"].read(b'{"n":2}')), hider_of(BY_NAME["chat"]))
    both = {"choices": [{"index": 0, "delta": {"reasoning": "hm"}}, {"index": 1, "delta": {"content": "a"}}]}
    assert events_of(watch.feed(b"data: " + json.dumps(both).encode() + b"\n\n")) == [{"choices": [both["choices"][1]]}]


def hiding(name: str) -> HidingFilter:
    dialect = BY_NAME[name]
    return HidingFilter(dialect.stream_filter(dialect.read(b"{}")), hider_of(dialect))


def named(kind: str, **fields: Any) -> bytes:
    return b"event: %b\ndata: " % kind.encode() + json.dumps({"type": kind, **fields}).encode() + b"\n\n"


def test_blocks_of_a_message_behind_thinking_move_up() -> None:
    given = [
        named("content_block_start", index=0, content_block={"type": "text", "text": ""}),
        named("content_block_start", index=1, content_block={"type": "thinking", "thinking": ""}),
        named("content_block_delta", index=1, delta={"type": "thinking_delta", "thinking": "hm"}),
        named("content_block_stop", index=1),
        named("content_block_start", index=2, content_block={"type": "redacted_thinking", "data": "x"}),
        named("content_block_start", index=3, content_block={"type": "text", "text": ""}),
        named("content_block_stop", index=0),
        named("message_stop"),
    ]
    watch = hiding("messages")
    passed = [watch.feed(event) for event in given]
    assert passed[0] == given[0], "nothing was hidden before it"
    assert passed[1:5] == [b""] * 4
    assert events_of(passed[5]) == [{**json.loads(given[5].split(b"data: ")[1]), "index": 1}]
    assert passed[5].startswith(b"event: content_block_start\n")
    assert events_of(passed[6])[0]["index"] == 0
    assert passed[7] == given[7] and watch.ended


def test_items_of_a_response_behind_reasoning_move_up() -> None:
    reasoning, message = {"type": "reasoning", "id": "r"}, {"type": "message", "id": "m"}
    given = [
        named("response.created", sequence_number=0, response={"output": []}),
        named("response.output_item.added", sequence_number=1, output_index=0, item=reasoning),
        named("response.reasoning_text.delta", sequence_number=2, output_index=0, delta="hm"),
        named("response.output_item.done", sequence_number=3, output_index=0, item=reasoning),
        named("response.output_item.added", sequence_number=4, output_index=1, item=message),
        named("response.completed", sequence_number=5, response={"output": [reasoning, message]}),
        named("response.unheard_of"),
        b": comment\n\n",
    ]
    watch = hiding("responses")
    passed = [watch.feed(event) for event in given]
    assert passed[0] == given[0], "nothing was hidden before it"
    assert passed[1:4] == [b""] * 3
    [added], [completed], [unknown] = map(events_of, passed[4:7])
    assert (added["sequence_number"], added["output_index"]) == (1, 0)
    assert (completed["sequence_number"], completed["response"]["output"]) == (2, [message])
    assert unknown == {"type": "response.unheard_of"}
    assert passed[7] == given[7]


@pytest.mark.parametrize(
    ("name", "event"),
    [
        ("chat", b'data: {"choices":[{"delta":{"reasoning":\n\n'),
        ("messages", b'data: {"type":"content_block_start","content_block":{"type":"thinking"}}\n\n'),
        ("responses", b"data: [1]\n\n"),
    ],
)
def test_an_event_in_which_reasoning_cannot_be_told_is_not_shown(name: str, event: bytes) -> None:
    with pytest.raises(BadUpstreamResponse):
        hider_of(BY_NAME[name]).event(event)


@pytest.mark.parametrize(
    ("name", "answer", "expected"),
    [
        (
            "chat",
            {"choices": [{"message": {"content": "a", "reasoning": "hm"}, "logprobs": {}, "token_ids": [1]}]},
            {"choices": [{"message": {"content": "a", "reasoning": None}, "logprobs": None, "token_ids": None}]},
        ),
        ("chat", {"choices": [{"message": {"content": "a"}}]}, {"choices": [{"message": {"content": "a"}}]}),
        ("chat", {"choices": None}, {"choices": None}),
        (
            "messages",
            {"content": [{"type": "thinking"}, {"type": "redacted_thinking"}, {"type": "text"}]},
            {"content": [{"type": "text"}]},
        ),
        ("messages", {"type": "error"}, {"type": "error"}),
        ("responses", {"output": [{"type": "reasoning"}, {"type": "message"}]}, {"output": [{"type": "message"}]}),
        ("responses", {"status": "queued"}, {"status": "queued"}),
        ("completions", {"choices": [{"text": "<think>hm"}]}, {"choices": [{"text": "<think>hm"}]}),
    ],
)
def test_a_plain_answer_without_its_reasoning(name: str, answer: dict[str, Any], expected: dict[str, Any]) -> None:
    assert json.loads(hide_whole(hider_of(BY_NAME[name]), json.dumps(answer).encode())) == expected


@pytest.mark.parametrize("body", [b"", b"[]", b"no JSON"])
def test_a_plain_answer_that_cannot_be_read_is_not_shown(body: bytes) -> None:
    with pytest.raises(BadUpstreamResponse):
        hide_whole(hider_of(BY_NAME["chat"]), body)


def test_raw_text_passes_as_it_is() -> None:
    event = b'data: {"choices":[{"text":"<think>"}]}\n\n'
    assert hider_of(BY_NAME["completions"]).event(event) == event


def test_what_the_inner_watch_held_back_is_shown_without_reasoning() -> None:
    """Chat's last event waits for its fingerprint; here it carries the last of the thinking."""
    watch = hiding("chat")
    first = {"id": "c", "system_fingerprint": "f", "choices": [{"index": 0, "delta": {"role": "assistant"}}]}
    watch.feed(b"data: " + json.dumps(first).encode() + b"\n\n")
    passed = watch.feed(chunk_of(delta={"reasoning": "hm"}, finish_reason="stop")) + watch.flush()
    assert [choice for event in events_of(passed) for choice in event["choices"]] == [
        {"index": 0, "delta": {}, "finish_reason": "stop"}
    ]


@pytest.mark.parametrize("index", [0, None, "x"])
def test_ids_of_half_a_character_are_hidden_with_the_thinking(index: Any) -> None:
    """They come without text. Those of the answer are the client's."""
    hider = hider_of(BY_NAME["chat"])
    half = chunk_of(delta={}, finish_reason=None, token_ids=[240], index=index)
    thought = chunk_of(delta={"reasoning": "x"}, finish_reason=None, token_ids=[159], index=index)
    answer = chunk_of(delta={"content": "a"}, finish_reason=None, token_ids=[7], index=index)
    tight = half.replace(b": ", b":")
    assert [hider.event(each) for each in (half, tight, thought, half)] == [b"", b"", b"", b""]
    last = chunk_of(delta={}, finish_reason="length", token_ids=[240], index=index)
    assert events_of(hider_of(BY_NAME["chat"]).event(last))[0]["choices"][0]["token_ids"] is None
    assert [hider.event(each) for each in (answer, half, last)] == [answer, half, last]


def test_each_choice_begins_its_answer_by_itself() -> None:
    hider = hider_of(BY_NAME["chat"])
    hider.event(chunk_of(delta={"content": "a"}, token_ids=[7]))
    assert hider.event(chunk_of(delta={}, token_ids=[240], index=1)) == b""
