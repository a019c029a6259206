"""Budgets held by the gateway: whatever pieces a node's stream comes in, and whatever the node's manners are."""

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.budgets.assembly import AnswerAssembly
from gateway.core.budgets.backstop import Backstop
from gateway.core.budgets.chunks import head_of, slice_delta, take_prompt_ids
from gateway.core.budgets.continuation import BudgetTerms, Overshoot, opening_request
from gateway.core.budgets.enforcement import Enforcement
from gateway.core.budgets.split import TextSplit
from gateway.core.dialects.stream_filter import STOP, StreamFilter
from gateway.core.errors import BadUpstreamResponse, InvalidRequest
from gateway.core.fleet.capabilities import Capabilities

START, END = 7, 8
KNOWN = Capabilities(think_start=(START,), think_end=(END,), window=1000)
PROMPT = [1, 2, START]
FRAME = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m"}
BODY: dict[str, Any] = {"model": "m", "messages": [], "stream": True, "stream_options": {"include_usage": True}}
DONE = b"data: [DONE]\n\n"
TRICKY = 'she said ","token_ids":[9]}]} "usage": {"prompt_tokens": 9}\n\ndata: [DONE]\n\n"delta":{"content":"'


def event(value: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode() + b"\n\n"


def chunk(delta: dict[str, Any], ids: list[int] | None, finish: str | None = None, **more: Any) -> bytes:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish, "token_ids": ids}
    return event({**FRAME, "choices": [choice], **more})


def opening(prompt: list[int] | None = None) -> bytes:
    choice = {"index": 0, "delta": {"role": "assistant", "content": ""}, "logprobs": None, "finish_reason": None}
    return event({**FRAME, "choices": [choice], "prompt_token_ids": PROMPT if prompt is None else prompt})


def thinking(*texts: str) -> bytes:
    return b"".join(chunk({"reasoning": text}, [100 + at]) for at, text in enumerate(texts))


def continued(*texts: str) -> bytes:
    def line(text: str, finish: str | None) -> bytes:
        choice = {"index": 0, "text": text, "logprobs": None, "finish_reason": finish, "stop_reason": None}
        return event({"id": "other", "object": "text_completion", "created": 2, "model": "m", "choices": [choice]})

    usage = {"prompt_tokens": 6, "total_tokens": 9, "completion_tokens": len(texts)}
    ends = [*([None] * (len(texts) - 1)), "stop"]
    lines = [line(text, finish) for text, finish in zip(texts, ends, strict=True)]
    return b"".join(lines) + event({"id": "other", "choices": [], "usage": usage}) + DONE


def terms_for(budget: int, known: Capabilities = KNOWN, **fields: Any) -> BudgetTerms:
    return opening_request({**BODY, **fields}, True, budget, 50, known, stream=True, hide=False)[0]


def in_pieces(stream_filter: StreamFilter, stream: bytes, cuts: list[int]) -> bytes:
    edges = sorted({0, len(stream), *(cut % (len(stream) + 1) for cut in cuts)})
    passed = b""
    for at, end in pairwise(edges):
        passed += stream_filter.feed(stream[at:end])
        if stream_filter.follow_up is not None:
            break
    return passed


def follow(budget: int, first: bytes, second: bytes, cuts: list[int], **fields: Any) -> tuple[bytes, dict[str, Any]]:
    """What the client gets of both requests, and the body of the second."""
    stream_filter = Enforcement(terms_for(budget, **fields))
    passed = in_pieces(stream_filter, first, cuts)
    body: dict[str, Any] = {}
    if stream_filter.follow_up is not None and stream_filter.follow_up is not STOP:
        body = json.loads(stream_filter.follow_up.body)
        stream_filter.follow_up = None
        passed += in_pieces(stream_filter, second, cuts)
        assert stream_filter.follow_up is None
    assert stream_filter.ended
    return passed, body


def said(stream: bytes) -> tuple[str, str, list[Any], Any]:
    """Reasoning, content, finish reasons and usage of a client's stream."""
    reasoning = content = ""
    finish: list[Any] = []
    usage = None
    for line in stream.split(b"\n\n"):
        if line.startswith(b"data: {"):
            told = json.loads(line[6:])
            assert told["id"] == "c"
            usage = told.get("usage") or usage
            for choice in told["choices"]:
                assert choice.get("token_ids") is None
                reasoning += choice["delta"].get("reasoning") or ""
                content += choice["delta"].get("content") or ""
                finish += [choice["finish_reason"]] if choice["finish_reason"] else []
    return reasoning, content, finish, usage


CUTS = st.lists(st.integers(0, 5000), max_size=8)


@given(CUTS)
def test_the_pieces_that_a_stream_comes_in_change_nothing(cuts: list[int]) -> None:
    first = opening() + thinking("one", TRICKY, " two", " three", " four")
    passed, body = follow(3, first, continued(" an", " answer"), cuts)
    assert passed == follow(3, first, continued(" an", " answer"), [])[0]
    reasoning, content, finish, usage = said(passed)
    assert (reasoning, content, finish) == (f"one{TRICKY} two", " an answer", ["stop"])
    assert body["prompt"] == [*PROMPT, 100, 101, 102, END]
    assert body["max_tokens"] == 50 - 3 - 1
    assert usage["prompt_tokens"] == 3
    assert usage["completion_tokens"] == 3 + 1 + 2, "thinking, the marker, the answer"
    assert usage["completion_tokens_details"] == {"reasoning_tokens": 3}


@given(CUTS, st.integers(0, 6))
def test_without_a_parser_the_same_comes_out(cuts: list[int], budget: int) -> None:
    texts = ("one", " <", "/thi", " two", " five", " six")
    raw = b"".join(chunk({"content": text}, [100 + at]) for at, text in enumerate(texts))
    end = (
        chunk({"content": "</think>"}, [END])
        + chunk({"content": "an answer"}, [200], "stop")
        + event({**FRAME, "choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 8, "total_tokens": 11}})
    )
    passed, _ = follow(budget, opening() + raw + end + DONE, continued("an answer"), cuts)
    reasoning, content, finish, usage = said(passed)
    assert (reasoning, content, finish) == ("".join(texts[:budget]), "an answer", ["stop"])
    assert usage["completion_tokens_details"]["reasoning_tokens"] == budget


@pytest.mark.parametrize(
    "fields",
    [
        {"tools": [{"type": "function", "function": {"name": "f"}}]},
        {"messages": [{"content": [{"type": "image_url"}]}]},
    ],
    ids=["tools", "pictures"],
)
def test_what_cannot_be_continued_ends_with_length(fields: dict[str, Any]) -> None:
    passed, body = follow(2, opening() + thinking("a", "b", "c", "d"), b"", [], **fields)
    reasoning, content, finish, usage = said(passed)
    assert (reasoning, content, finish, body) == ("ab", "", ["length"], {})
    assert usage["completion_tokens"] == 2 and passed.endswith(DONE)


def test_an_answer_that_has_no_room_left_ends_with_length() -> None:
    first = opening() + thinking(*"abcd")
    stream_filter = Enforcement(opening_request(BODY, True, 2, 3, KNOWN, stream=True, hide=False)[0])
    assert said(stream_filter.feed(first))[:3] == ("ab", "", ["length"])


def test_tools_that_may_not_be_called_do_not_stand_in_the_way() -> None:
    tools = [{"type": "function", "function": {"name": "f"}}]
    _, body = follow(2, opening() + thinking(*"abcd"), continued("x"), [], tools=tools, tool_choice="none")
    assert body["prompt"][-1] == END


def test_the_continuation_samples_as_the_request_did() -> None:
    sampling = {
        "cache_salt": "of the tenant",
        "temperature": 0.3,
        "seed": 5,
        "stop": ["x"],
        "top_k": 3,
        "min_tokens": 30,
        "user": "u",
    }
    form = {"response_format": {"type": "json_object"}}
    _, body = follow(2, opening() + thinking(*"abcd"), continued("x"), [], **sampling, **form, n=1, tool_choice="none")
    assert {key: body[key] for key in (*sampling, *form)} == {**sampling, **form, "min_tokens": 27}
    own = {"model", "prompt", "max_tokens", "stream", "stream_options", "skip_special_tokens"}
    assert body.keys() - sampling.keys() - form.keys() == own and body["skip_special_tokens"] is True


@pytest.mark.parametrize(
    "field", [{"n": 2}, {"logprobs": True}, {"logprobs": 0}, {"echo": True}, {"prompt": ["a", "b"]}]
)
def test_what_cannot_be_counted_is_refused_by_its_name(field: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest) as refused:
        terms_for(5, **field)
    assert refused.value.param == next(iter(field)) and refused.value.code == "thinking_budget_not_enforceable"


def test_a_node_that_sends_no_token_ids_can_be_cut_but_not_continued() -> None:
    first = opening().replace(b'"prompt_token_ids"', b'"other"') + b"".join(
        chunk({"reasoning": t}, None) for t in "abcd"
    )
    passed, body = follow(2, first, b"", [])
    assert said(passed)[:3] == ("ab", "", ["length"]) and not body


def test_an_error_in_mid_stream_is_passed_and_noted() -> None:
    error = event({"error": {"message": "boom", "code": 500}})
    stream_filter = Enforcement(terms_for(5))
    assert stream_filter.feed(opening() + error + DONE).endswith(error + DONE) and stream_filter.failed


def test_a_plain_answer_is_put_together_with_calls_and_usage() -> None:
    calls = [{"index": 0, "id": "t", "type": "function", "function": {"name": "f", "arguments": ""}}]
    more = [{"index": 0, "function": {"arguments": '{"a":1}'}}]
    end = chunk({}, [9], "tool_calls") + event({**FRAME, "choices": [], "usage": {"prompt_tokens": 3}}) + DONE
    stream_filter = AnswerAssembly(Enforcement(terms_for(5)), chat=True)
    assert (
        stream_filter.feed(
            opening() + thinking("a") + chunk({"tool_calls": calls}, [1]) + chunk({"tool_calls": more}, [2]) + end
        )
        == b""
    )
    (choice,) = json.loads(stream_filter.flush())["choices"]
    assert choice["message"]["reasoning"] == "a" and choice["finish_reason"] == "tool_calls"
    assert choice["message"]["tool_calls"] == [
        {"id": "t", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}}
    ]


# The backstop


@given(CUTS)
def test_the_backstop_continues_from_what_the_client_has_seen(cuts: list[int]) -> None:
    def plain(text: str) -> bytes:
        choice = {"index": 0, "delta": {"reasoning": text}, "logprobs": None, "finish_reason": None}
        return event({**FRAME, "choices": [choice]})

    limit = Overshoot(0.5, 2).limit(4)
    assert limit == 8
    texts = [f' "{at}\\é\n' for at in range(20)]
    stream_filter = Backstop(lambda: terms_for(4), True, limit, 1.0)
    passed = in_pieces(stream_filter, opening([]) + b"".join(map(plain, texts)), cuts)
    assert said(passed)[0] == "".join(texts[:limit]) and stream_filter.overran
    for path, expected in (("/tokenize", {"messages": []}), ("/tokenize", {"prompt": "".join(texts[:limit])})):
        turn, stream_filter.follow_up = stream_filter.follow_up, None
        assert turn is not None and turn.path == path
        assert expected.items() <= json.loads(turn.body).items()
        assert in_pieces(stream_filter, b'{"tokens":[1,2,3,4,5,6,7,8,9]}', cuts) == stream_filter.flush() == b""
    turn, stream_filter.follow_up = stream_filter.follow_up, None
    assert turn is not None and json.loads(turn.body)["prompt"] == [*range(1, 10), *range(1, 10), END]
    reasoning, content, finish, usage = said(in_pieces(stream_filter, continued("yes"), cuts))
    assert (reasoning, content, finish) == ("", "yes", ["stop"]) and stream_filter.ended
    assert usage["completion_tokens_details"]["reasoning_tokens"] == 9


# The bytes


def test_only_an_event_that_is_beyond_doubt_is_sliced() -> None:
    head = head_of(opening())
    sure = chunk({"reasoning": TRICKY}, [5, 6])
    delta = slice_delta(sure, head)
    assert delta is not None and delta.reasoning and delta.ids == b"5,6"
    assert delta.event == sure.replace(b'"token_ids":[5,6]', b'"token_ids":null')
    for doubtful in (
        chunk({"reasoning": "a", "content": "b"}, [5]),
        chunk({"content": "b", "tool_calls": []}, [5]),
        chunk({"reasoning": "a"}, [5], "stop"),
        chunk({"reasoning": "a"}, []),
        chunk({"reasoning": "a"}, None),
        chunk({"role": "assistant", "content": ""}, [5]),
        chunk({"reasoning": "a"}, [5]).replace(b'"id":"c"', b'"id":"d"'),
        chunk({"reasoning": "a"}, [5])[:-2],
        DONE,
    ):
        assert slice_delta(doubtful, head) is None, doubtful


def test_prompt_ids_are_taken_out_unparsed() -> None:
    assert take_prompt_ids(b'{"prompt_token_ids":[1, 2,3],"a":1}') == (b'{"prompt_token_ids":[],"a":1}', b"1,2,3")
    assert take_prompt_ids(b'{"prompt_token_ids":null}') == (b'{"prompt_token_ids":null}', None)


@pytest.mark.parametrize(
    ("prompt", "opened"),
    [
        (b"1,7", True),
        (b"1,7,2", True),
        (b"7,8", False),
        (b"7,8,17,78", False),
        (b"8,7", True),
        (b"17,70", False),
        (b"", False),
    ],
)
def test_a_prompt_opens_thinking_where_its_last_marker_does(prompt: bytes, opened: bool) -> None:
    assert TextSplit((START,), (END,)).opened_by(prompt) is opened


def test_a_prompt_may_have_a_million_tokens() -> None:
    """Their ids come in the first event: 7 MB here."""
    stream_filter = Enforcement(terms_for(3))
    stream = opening([123_456] * 1_000_000 + [START]) + thinking("a", "b") + chunk({"content": "c"}, [5]) + DONE
    assert len(stream) > 7_000_000
    told = b"".join(stream_filter.feed(stream[at : at + 65_536]) for at in range(0, len(stream), 65_536))
    assert len(told) < 2000 and told.endswith(DONE) and stream_filter.ended


@pytest.mark.parametrize(
    "event",
    [
        *(b"data: hello\n\n", b"data: [1]\n\n", b"data: null\n\n", b'data: {"choices":{}}\n\n', b"data: {}\n\n"),
        *(b'data: {"choices":[null]}\n\n', b'data: {"choices":[{"delta":[1]}]}\n\n', b'data: {"choices":"x"}\n\n'),
        *(b'data: {"prompt_token_ids":[1,"x"],"choices":[]}\n\n', b'data: {"prompt_token_ids":[1,,2]}\n\n'),
        *(b'data: {"prompt_token_ids":[1', b"data: " + b"[" * 100_000 + b"\n\n"),
    ],
)
def test_what_is_not_a_chunk_is_refused_where_a_budget_is_counted(event: bytes) -> None:
    """It is the node's word for how the answer goes on: it could be put into the next request, or lost in silence."""
    for stream_filter in (Enforcement(terms_for(3)), AnswerAssembly(Enforcement(terms_for(3)), chat=True)):
        if event.endswith(b"\n\n"):
            with pytest.raises(BadUpstreamResponse):
                stream_filter.feed(event)
        else:
            assert stream_filter.feed(event) == b"" and stream_filter.follow_up is None and not stream_filter.ended


def test_empty_data_is_no_chunk_and_comments_pass() -> None:
    stream_filter = Enforcement(terms_for(3))
    assert stream_filter.feed(b"data:\n\ndata: \n\n: c\n\nid: 1\n\n" + opening()) == b": c\n\n" + Enforcement(
        terms_for(3)
    ).feed(opening())
