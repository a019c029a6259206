"""Dialects: how a stream of each is followed, whatever pieces it comes in, and how errors look in each."""

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.dialects import DIALECTS, Ask, Dialect, ErrorKind, ErrorShape
from gateway.core.dialects.stream_filter import StreamFilter, says_nothing
from gateway.core.http.sse import event_data
from gateway.core.usage.token_usage import Usage

BY_NAME = {dialect.name: dialect for dialect in DIALECTS}
EVERY = pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: dialect.name)


def data(body: dict[str, Any], kind: str | None = None) -> bytes:
    """One event as vLLM writes it."""
    name = b"" if kind is None else f"event: {kind}\n".encode()
    return name + b"data: " + json.dumps(body, separators=(",", ":"), ensure_ascii=False).encode() + b"\n\n"


def delta(text: str, **more: Any) -> bytes:
    choice = {"index": 0, "delta": {"content": text}, "logprobs": None, "finish_reason": None}
    return data({"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice], **more})


def finish(**more: Any) -> bytes:
    choice = {"index": 0, "delta": {}, "logprobs": None, "finish_reason": "stop", "stop_reason": None}
    return data({"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice], **more})


def usage_chunk(**more: Any) -> bytes:
    usage = {"prompt_tokens": 3, "total_tokens": 7, "completion_tokens": 4}
    return data({"id": "c", "object": "chat.completion.chunk", "choices": [], "usage": usage, **more})


DONE = b"data: [DONE]\n\n"
FINGERPRINT = {"system_fingerprint": "vllm-0.32"}
TRICKY = 'she said "usage": {"prompt_tokens": 9} data: [DONE]\n\n{"error": "finish_reason":"stop"}'


def ask(dialect: Dialect, **fields: Any) -> Ask:
    return dialect.read(json.dumps({"model": "m", "stream": True, **fields}).encode())


def follow(dialect: Dialect, asked: Ask, stream: bytes, cuts: list[int]) -> tuple[bytes, StreamFilter]:
    """What a client gets of `stream`, cut at `cuts`, and the filter at its end."""
    stream_filter = dialect.stream_filter(asked)
    edges = sorted({0, len(stream), *(cut % (len(stream) + 1) for cut in cuts)})
    passed = b""
    for at, end in enumerate(edges[1:]):
        passed += stream_filter.feed(stream[edges[at] : end])
    return passed + stream_filter.flush(), stream_filter


def seen_alike(dialect: Dialect, asked: Ask, stream: bytes, expected: bytes) -> StreamFilter:
    """Check that `expected` comes out at every cut, byte by byte and whole; returns the filter of the whole."""
    whole = follow(dialect, asked, stream, [])
    for cuts in (list(range(len(stream))), *([at] for at in range(len(stream)))):
        passed, stream_filter = follow(dialect, asked, stream, cuts)
        assert passed == expected, cuts
        state = (stream_filter.ended, stream_filter.failed, stream_filter.usage)
        assert state == (whole[1].ended, whole[1].failed, whole[1].usage), cuts
    assert whole[0] == expected
    return whole[1]


# Chat and completions


@pytest.mark.parametrize("wanted", [False, True])
def test_usage_beside_the_finish_reason_is_known(wanted: bool) -> None:
    """Some servers tell it there, and send no chunk of its own."""
    dialect = BY_NAME["chat"]
    options = {"stream_options": {"include_usage": True}} if wanted else {}
    stream = delta("a") + finish(usage={"prompt_tokens": 3, "completion_tokens": 4}) + DONE
    stream_filter = seen_alike(dialect, ask(dialect, **options), stream, stream)
    assert (stream_filter.ended, stream_filter.failed, stream_filter.usage) == (True, False, Usage(3, 4))


@pytest.mark.parametrize("name", ["chat", "completions"])
def test_usage_that_the_client_did_not_ask_for_is_taken_out(name: str) -> None:
    dialect = BY_NAME[name]
    stream = delta("a") + delta(TRICKY) + finish() + usage_chunk() + DONE
    stream_filter = seen_alike(dialect, ask(dialect), stream, delta("a") + delta(TRICKY) + finish() + DONE)
    assert (stream_filter.ended, stream_filter.failed, stream_filter.usage) == (True, False, Usage(3, 4))


@pytest.mark.parametrize("name", ["chat", "completions"])
def test_usage_that_the_client_asked_for_stays(name: str) -> None:
    dialect = BY_NAME[name]
    stream = delta("a") + finish() + usage_chunk(**FINGERPRINT) + DONE
    stream_filter = seen_alike(dialect, ask(dialect, stream_options={"include_usage": True}), stream, stream)
    assert (stream_filter.ended, stream_filter.usage) == (True, Usage(3, 4))


def test_continuous_usage_is_followed_and_left_in() -> None:
    dialect = BY_NAME["chat"]
    running = {"usage": {"prompt_tokens": 3, "completion_tokens": 1}}
    stream = delta("a", **running) + delta("b", **running) + finish(**running) + usage_chunk() + DONE
    options = {"include_usage": True, "continuous_usage_stats": True}
    assert seen_alike(dialect, ask(dialect, stream_options=options), stream, stream).usage == Usage(3, 4)


def test_the_fingerprint_is_put_back() -> None:
    """vLLM writes it on the last chunk: without usage, that is the one with the finish reason."""
    dialect = BY_NAME["chat"]
    stream = delta("a") + finish() + usage_chunk(**FINGERPRINT) + DONE
    seen_alike(dialect, ask(dialect), stream, delta("a") + finish(**FINGERPRINT) + DONE)


def test_a_fingerprint_that_is_there_is_not_written_twice() -> None:
    dialect = BY_NAME["chat"]
    stream = delta("a") + finish(**FINGERPRINT) + usage_chunk(**FINGERPRINT) + DONE
    seen_alike(dialect, ask(dialect), stream, delta("a") + finish(**FINGERPRINT) + DONE)


@pytest.mark.parametrize("fields", [{"n": 2}, {"prompt": ["a", "b"]}, {"prompt": [[1], [2]]}, {"n": 2, "prompt": "a"}])
def test_with_several_choices_no_end_is_held_back(fields: dict[str, Any]) -> None:
    dialect = BY_NAME["completions"]
    stream = finish() + delta("the other goes on") + finish() + usage_chunk(**FINGERPRINT) + DONE
    expected = finish() + delta("the other goes on") + finish() + DONE
    stream_filter = dialect.stream_filter(ask(dialect, **fields))
    assert stream_filter.feed(finish()) == finish()
    assert seen_alike(dialect, ask(dialect, **fields), stream, expected).usage == Usage(3, 4)


@pytest.mark.parametrize("fields", [{}, {"n": 1}, {"prompt": "a"}, {"prompt": [1, 2, 3]}, {"prompt": ["a"]}])
def test_with_one_choice_the_end_waits_for_its_fingerprint(fields: dict[str, Any]) -> None:
    stream_filter = BY_NAME["completions"].stream_filter(ask(BY_NAME["completions"], **fields))
    assert stream_filter.feed(finish()) == b""
    assert stream_filter.feed(usage_chunk(**FINGERPRINT)) == finish(**FINGERPRINT)


def test_an_end_that_was_held_back_is_not_lost_where_the_stream_breaks() -> None:
    dialect = BY_NAME["chat"]
    stream_filter = seen_alike(dialect, ask(dialect), delta("a") + finish() + b"data: {half", delta("a") + finish())
    assert (stream_filter.ended, stream_filter.failed) == (False, False)


def test_events_keep_their_order_around_one_that_was_held_back() -> None:
    """Whatever comes behind the finish reason, in the same piece or a later one, comes out behind it."""
    dialect = BY_NAME["chat"]
    stream = finish() + delta("late") + usage_chunk() + DONE
    seen_alike(dialect, ask(dialect), stream, finish() + delta("late") + DONE)


@pytest.mark.parametrize("end", [b"", DONE])
def test_an_error_in_a_stream_is_no_good_end(end: bytes) -> None:
    dialect = BY_NAME["chat"]
    error = data({"error": {"message": "engine died", "type": "InternalServerError", "code": 500}})
    stream_filter = seen_alike(dialect, ask(dialect), delta("a") + error + end, delta("a") + error + end)
    assert (stream_filter.failed, stream_filter.ended) == (True, end == DONE)


def test_a_stream_without_its_end_was_cut() -> None:
    dialect = BY_NAME["chat"]
    for stream in (b"", delta("a"), delta(TRICKY), b": comment\n\n"):
        assert not seen_alike(dialect, ask(dialect), stream, stream).ended


def test_comments_pass() -> None:
    dialect = BY_NAME["chat"]
    stream = b": ping\n\n" + delta("a") + b": ping\n\n" + finish() + usage_chunk() + DONE
    seen_alike(dialect, ask(dialect), stream, b": ping\n\n" + delta("a") + b": ping\n\n" + finish() + DONE)


@pytest.mark.parametrize("end", ["\r\n", "\r"])
def test_other_line_ends(end: str) -> None:
    dialect = BY_NAME["chat"]
    other = end.encode()
    events = [delta("a"), data({"error": {"message": "x"}}), delta("b"), DONE]
    stream = b"".join(events).replace(b"\n", other)
    tail = b": end\n\n"  # without it a last CR might be half of a CRLF
    stream_filter = seen_alike(dialect, ask(dialect), stream + tail, stream + tail)
    assert (stream_filter.failed, stream_filter.ended) == (True, True)


def test_an_error_between_other_line_ends_is_seen() -> None:
    """However like any other the run of events around it ends."""
    stream_filter = BY_NAME["chat"].stream_filter(ask(BY_NAME["chat"]))
    stream_filter.feed(data({"error": {"message": "x"}}).replace(b"\n", b"\r\n") + delta("b"))
    assert stream_filter.failed


TEXTS = st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=12) | st.just(TRICKY), max_size=5)


@given(TEXTS, st.lists(st.integers(0, 5000), max_size=8), st.booleans())
def test_whatever_a_model_says_passes_to_the_letter(texts: list[str], cuts: list[int], wants_usage: bool) -> None:
    dialect = BY_NAME["chat"]
    asked = ask(dialect, stream_options={"include_usage": wants_usage})
    said = b"".join(map(delta, texts)) + finish()
    passed, stream_filter = follow(dialect, asked, said + usage_chunk() + DONE, cuts)
    assert passed == said + (usage_chunk() if wants_usage else b"") + DONE
    assert (stream_filter.ended, stream_filter.failed, stream_filter.usage) == (True, False, Usage(3, 4))


# Responses

CREATED = data({"type": "response.created", "response": {"id": "r", "error": None, "usage": None}}, "response.created")
TEXT = data(
    {"type": "response.output_text.delta", "delta": '"response.completed" "error"'}, "response.output_text.delta"
)


def closing(kind: str) -> bytes:
    usage = {"input_tokens": 3, "output_tokens": 4, "output_tokens_details": {"reasoning_tokens": 2}}
    return data({"type": kind, "response": {"id": "r", "error": None, "usage": usage}}, kind)


@pytest.mark.parametrize(
    ("kind", "failed"),
    [
        ("response.completed", False),
        ("response.incomplete", False),
        ("response.failed", True),
        ("response.cancelled", False),
    ],
)
def test_a_response_ends_with_its_closing_event(kind: str, failed: bool) -> None:
    dialect = BY_NAME["responses"]
    stream = CREATED + TEXT + closing(kind)
    stream_filter = seen_alike(dialect, ask(dialect), stream, stream)
    assert (stream_filter.ended, stream_filter.failed, stream_filter.usage) == (True, failed, Usage(3, 4, reasoning=2))


@pytest.mark.parametrize("reason", ["max_output_tokens", "content_filter"])
def test_a_truncated_response_ends_as_openais(reason: str) -> None:
    """vLLM before 0.33 calls its end `response.completed`. All else of the event stays."""
    dialect = BY_NAME["responses"]
    kind = "response.completed"
    usage = {"input_tokens": 3, "output_tokens": 4, "output_tokens_details": {"reasoning_tokens": 2}}
    details = {"reason": reason}
    whole = {"status": "incomplete", "incomplete_details": details, "metadata": {"a": "é"}, "usage": usage, "t": 0.1}
    event = {"response": whole, "sequence_number": 7}
    tricky = {"text": 'event: response.completed\n"type":"response.completed"'}
    for said in ({}, {"output": [tricky]}, {"tools": [{"parameters": {"type": kind}}]}):
        whole |= said
        for name in (kind, None):
            sent = data({**event, "type": kind}, name)
            expected = data({**event, "type": "response.incomplete"}, "response.incomplete")
            stream_filter = seen_alike(dialect, ask(dialect), CREATED + TEXT + sent, CREATED + TEXT + expected)
            state = (stream_filter.ended, stream_filter.failed, stream_filter.usage)
            assert state == (True, False, Usage(3, 4, reasoning=2))


def test_a_response_without_its_closing_event_was_cut() -> None:
    dialect = BY_NAME["responses"]
    stream_filter = seen_alike(dialect, ask(dialect), CREATED + TEXT, CREATED + TEXT)
    assert (stream_filter.ended, stream_filter.failed) == (False, False)


@pytest.mark.parametrize(
    "error", [data({"type": "error", "message": "x", "code": "y"}, "error"), data({"error": {"message": "x"}})]
)
def test_an_error_in_a_response(error: bytes) -> None:
    dialect = BY_NAME["responses"]
    stream_filter = seen_alike(dialect, ask(dialect), CREATED + error, CREATED + error)
    assert (stream_filter.ended, stream_filter.failed) == (False, True)


# Messages

START = data({"type": "message_start", "message": {"usage": {"input_tokens": 3, "output_tokens": 0}}}, "message_start")
BLOCK = data({"type": "content_block_delta", "delta": {"text": '"message_stop" "usage"'}}, "content_block_delta")
DELTA = data({"type": "message_delta", "usage": {"input_tokens": 3, "output_tokens": 4}}, "message_delta")
STOP = data({"type": "message_stop"}, "message_stop")


def test_a_message_ends_with_message_stop() -> None:
    dialect = BY_NAME["messages"]
    stream = START + BLOCK + DELTA + STOP
    stream_filter = seen_alike(dialect, ask(dialect), stream, stream)
    assert (stream_filter.ended, stream_filter.failed, stream_filter.usage) == (True, False, Usage(3, 4))


def test_a_message_that_breaks_off_keeps_what_was_counted() -> None:
    dialect = BY_NAME["messages"]
    stream_filter = seen_alike(dialect, ask(dialect), START + BLOCK, START + BLOCK)
    assert (stream_filter.ended, stream_filter.failed, stream_filter.usage) == (False, False, Usage(3, 0))


def test_an_error_in_a_message() -> None:
    dialect = BY_NAME["messages"]
    error = data({"type": "error", "error": {"type": "api_error", "message": "x"}}, "error")
    stream_filter = seen_alike(dialect, ask(dialect), START + error, START + error)
    assert (stream_filter.ended, stream_filter.failed) == (False, True)


# Errors


def shape(fault: ErrorKind) -> ErrorShape:
    return ErrorShape('a "message"\nof é\ud800', fault, 400, "a_code", "a_field", "req_1")


@EVERY
@pytest.mark.parametrize("fault", ErrorKind)
def test_every_fault_has_its_form(dialect: Dialect, fault: ErrorKind) -> None:
    body = json.loads(dialect.error(shape(fault)))
    error = body["error"]
    assert error["message"] == shape(fault).message
    assert error["type"].endswith(("_error", "_too_large"))
    if dialect.name in ("messages", "count_tokens"):
        assert body == {"type": "error", "error": error, "request_id": "req_1"} and set(error) == {"type", "message"}
    else:
        assert body == {"error": error} and (error["param"], error["code"]) == ("a_field", "a_code")


@EVERY
def test_the_facts_of_an_error_stand_beside_its_code(dialect: Dialect) -> None:
    error = replace(shape(ErrorKind.INTERNAL), facts={"tokens": 7, "retry_safe": False})
    told = json.loads(dialect.error(error))["error"]
    assert (told["code"], told["tokens"], told["retry_safe"]) == ("a_code", 7, False)
    event = json.loads(event_data(dialect.error_event(error, 0)))
    assert {"code": "a_code", "tokens": 7, "retry_safe": False}.items() <= event.get("error", event).items()


@EVERY
@pytest.mark.parametrize("fault", ErrorKind)
def test_an_error_event_is_one_event_that_its_own_watch_takes_for_a_failure(dialect: Dialect, fault: ErrorKind) -> None:
    event = dialect.error_event(shape(fault), 0)
    assert event.endswith(b"\n\n") and event.count(b"\n\n") == 1
    stream_filter = seen_alike(dialect, ask(dialect), event, event)
    assert (stream_filter.ended, stream_filter.failed) == (False, True)


@EVERY
def test_usage_of_a_plain_answer(dialect: Dialect) -> None:
    counts = {"prompt_tokens": 3, "completion_tokens": 4, "input_tokens": 3, "output_tokens": 4}
    assert dialect.usage(json.dumps({"id": "x", "usage": counts}).encode()) == Usage(3, 4)
    for none in (b'{"count":5}', b'{"usage":null}', b""):
        assert dialect.usage(none) is None


def test_paths_and_names_are_each_dialects_own() -> None:
    assert len({dialect.path for dialect in DIALECTS}) == len({dialect.name for dialect in DIALECTS}) == len(DIALECTS)


# What says nothing of an answer


@pytest.mark.parametrize(
    ("events", "nothing"),
    [
        (b": keep-alive\n\n", True),
        (b": a\r\n\r\n:b\n\n", True),
        (data({"type": "ping"}, "ping"), True),
        (data({"type": "response.created"}, "response.created") + b": a\n\n", True),
        (data({"type": "response.created"}, "response.created") + delta("a"), False),
        (data({"type": "response.output_item.added"}, "response.output_item.added"), False),
        (data({"type": "message_start"}, "message_start"), False),
        (b": a\n" + delta("a"), False),
        (b": a\n\n" + delta("a"), False),
        (delta(": a"), False),
        (DONE, False),
        (b"", False),
    ],
)
def test_what_a_server_says_by_itself_is_known(events: bytes, nothing: bool) -> None:
    assert says_nothing(events) is nothing
