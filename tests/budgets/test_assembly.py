"""One plain answer out of a stream: every field that the stream tells, wherever it tells it."""

import json
from typing import Any

import pytest

from gateway.core.budgets.assembly import AnswerAssembly
from gateway.core.dialects.stream_filter import STOP, StreamFilter
from gateway.core.errors import BadUpstreamResponse
from gateway.core.usage.token_usage import Usage

pytestmark = pytest.mark.source_only("its filters inherit from a compiled class")

DONE = b"data: [DONE]\n\n"
FRAME = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m"}
USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}


class Recorded(StreamFilter):
    """An inner watch that passes everything, and holds back `held` until the end."""

    def __init__(self, held: bytes = b"") -> None:
        super().__init__()
        self.held = held

    def feed(self, data: bytes) -> bytes:
        return data

    def flush(self) -> bytes:
        return self.held


def event(choice: dict[str, Any] | None = None, **more: Any) -> bytes:
    choices = [] if choice is None else [{"index": 0, **choice}]
    return b"data: " + json.dumps({**FRAME, "choices": choices, **more}).encode() + b"\n\n"


def assembled(*events: bytes, chat: bool = True, held: bytes = b"") -> dict[str, Any]:
    watch = AnswerAssembly(Recorded(held), chat)
    for one in events:
        assert watch.feed(one) == b""
    answer: dict[str, Any] = json.loads(watch.flush())
    return answer


def test_a_chat_answer_has_all_that_the_stream_told() -> None:
    answer = assembled(
        event({"delta": {"role": "assistant", "content": ""}}, prompt_token_ids=[1, 2, 3], system_fingerprint=None),
        b": comment\n\n",
        event({"delta": {"reasoning": "h"}, "token_ids": [4]}),
        event({"delta": {"reasoning": "m"}, "token_ids": [5, 6]}),
        event({"delta": {"content": "he"}}),
        event({"delta": {"content": "llo"}, "finish_reason": "stop", "stop_reason": 9}, system_fingerprint="f"),
        event(usage=USAGE, system_fingerprint=None),
        DONE,
    )
    assert answer == {
        **FRAME,
        "object": "chat.completion",
        "system_fingerprint": "f",
        "choices": [
            {
                "index": 0,
                "message": {
                    "role": "assistant",
                    "content": "hello",
                    "refusal": None,
                    "tool_calls": [],
                    "reasoning": "hm",
                },
                "logprobs": None,
                "finish_reason": "stop",
                "stop_reason": 9,
                "token_ids": [4, 5, 6],
            }
        ],
        "usage": USAGE,
        "prompt_logprobs": None,
        "prompt_token_ids": [1, 2, 3],
    }


def test_the_older_name_of_reasoning_stays_as_the_node_calls_it() -> None:
    message = assembled(event({"delta": {"reasoning_content": "hm"}}), DONE)["choices"][0]["message"]
    assert message["reasoning_content"] == "hm" and "reasoning" not in message


def test_tool_calls_are_put_together_by_their_index() -> None:
    calls = [
        {"index": 1, "id": "b", "type": "function", "function": {"name": "g", "arguments": "{"}},
        {"index": 0, "id": "a", "type": "function", "function": {"name": "f"}},
        {"index": 1, "function": {"arguments": "}"}},
        {"index": 0, "function": None},
    ]
    events = [event({"delta": {"tool_calls": [call]}}) for call in calls]
    assert assembled(*events, DONE)["choices"][0]["message"]["tool_calls"] == [
        {"id": "a", "type": "function", "function": {"name": "f", "arguments": ""}},
        {"id": "b", "type": "function", "function": {"name": "g", "arguments": "{}"}},
    ]


def test_completions_have_a_text_and_the_prompts_ids_in_their_choice() -> None:
    answer = assembled(
        event({"text": "he", "prompt_token_ids": [1, 2]}),
        event({"text": "llo", "token_ids": [4], "finish_reason": "length"}),
        event(usage=USAGE),
        DONE,
        chat=False,
    )
    assert (answer["object"], answer["usage"]) == ("text_completion", USAGE)
    assert answer["choices"] == [
        {
            "index": 0,
            "text": "hello",
            "logprobs": None,
            "finish_reason": "length",
            "stop_reason": None,
            "token_ids": [4],
            "prompt_logprobs": None,
            "prompt_token_ids": [1, 2],
        }
    ]
    assert assembled(DONE, chat=False)["choices"][0]["text"] == ""


def test_an_error_in_the_stream_is_the_answer() -> None:
    error = {"error": {"message": "no", "code": 500}}
    assert assembled(event({"delta": {"content": "he"}}), b"data: " + json.dumps(error).encode() + b"\n\n") == error


def test_what_the_inner_watch_held_back_belongs_to_the_answer() -> None:
    answer = assembled(event({"delta": {"content": "he"}}), held=event({"delta": {"content": "llo"}}) + DONE)
    assert answer["choices"][0]["message"]["content"] == "hello"


def test_how_the_stream_ended_is_told_as_the_inner_watch_saw_it() -> None:
    inner = Recorded()
    watch = AnswerAssembly(inner, True)
    inner.ended, inner.failed, inner.usage, inner.wasted, inner.follow_up = True, True, Usage(3, 2, None, None), 7, STOP
    watch.feed(b"")
    assert (watch.ended, watch.failed, watch.usage, watch.wasted) == (True, True, Usage(3, 2, None, None), 7)
    assert watch.follow_up is STOP and inner.follow_up is None, "who sends it sees it once"


@pytest.mark.parametrize("data", [b"[]", b"{", b'{"choices":{}}', b'{"choices":[1]}', b'{"choices":[{"delta":[1]}]}'])
def test_what_is_no_chunk_is_refused(data: bytes) -> None:
    with pytest.raises(BadUpstreamResponse):
        AnswerAssembly(Recorded(), True).feed(b"data: " + data + b"\n\n")
