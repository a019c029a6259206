"""The spans of a request are made of its times, and what is seen of an answer is found in every dialect."""

import pytest

from gateway.core.resume.note import ResumeNote
from gateway.core.telemetry.answer_watch import MOST_REASONS, AnswerWatch
from gateway.core.telemetry.request_stats import RequestStats
from gateway.core.telemetry.request_trace import MOST_ATTEMPTS, RequestTrace
from gateway.core.telemetry.spans import SpanFacts, input_messages, spans_of
from gateway.core.usage.token_usage import Usage

AT = 1_764_000_000.0
SECOND = 1_000_000_000


def made(stats: RequestStats, trace: RequestTrace) -> dict[str, SpanFacts]:
    return {each.name: each for each in spans_of(stats, trace)}


def seconds(span: SpanFacts) -> tuple[float, float]:
    """When it began and ended, from the request's beginning."""
    return round(span.began / 1e9 - AT + 10, 3), round(span.ended / 1e9 - AT + 10, 3)


def test_times_are_those_that_were_noted() -> None:
    trace = RequestTrace(7, 8, None, b"", 100.0)
    trace.route = "/v1/chat/completions"
    trace.begin("choice", 100.5)
    trace.begin("queue", 101.0)
    trace.begin_attempt("n:8000", 9, 102.0, False)
    trace.sent(102.5)
    trace.sent(102.9)
    watch = trace.watch
    assert watch is not None
    watch.see(b'data: {"id":"c-1","choices":[{"delta":{"role":"assistant","content":""}}]}\n\n', 103.0)
    watch.see(b'data: {"choices":[{"delta":{"reasoning":"x"}}]}\n\n', 104.0)
    watch.see(b'data: {"choices":[{"delta":{"content":"x"}}]}\n\n', 106.0)
    watch.see(b'data: {"choices":[{"delta":{"content":"\\"content\\":\\"x"},"finish_reason":"stop"}]}\n\n', 107.0)
    trace.end_attempt("passed", 109.0)
    trace.end_attempt("ok", 110.0)
    usage = Usage(input=5, output=6, reasoning=2, cached=1)
    stats = RequestStats("req_1", "chat", model="m", usage=usage, at=AT, duration=10.0, status=200, attempts=1)
    spans = made(stats, trace)
    assert {name: seconds(span) for name, span in spans.items()} == {
        "POST /v1/chat/completions": (0, 10),
        "choice": (0.5, 1),
        "queue": (1, 2),
        "chat m": (2, 9),
        "prefill": (2.5, 3),
        "thinking": (4, 6),
        "answer": (6, 9),
    }
    facts = spans["chat m"].attributes
    assert facts["gen_ai.response.id"] == "c-1" and facts["gen_ai.response.finish_reasons"] == ("stop",)
    assert facts["gen_ai.usage.cache_read.input_tokens"] == 1 and facts["server.port"] == 8000
    assert spans["thinking"].attributes == {"fleetgate.tokens": 2}
    assert spans["POST /v1/chat/completions"].error is None


def test_what_was_not_ended_ends_with_the_request_and_its_error() -> None:
    trace = RequestTrace(7, 8, None, b"", 0.0)
    trace.begin("choice", 1.0)
    stats = RequestStats("req_1", "embeddings", at=AT, duration=10.0, status=503, ending="overloaded", route="home")
    spans = made(stats, trace)
    assert seconds(spans["choice"]) == (1, 10) and spans["choice"].error == "overloaded"
    trace.begin_attempt("n", 9, 2.0, False)
    trace.end_attempt("refused", 3.0)
    spans = made(stats, trace)
    assert spans["embeddings"].error == "refused" and "prefill" not in spans, "nothing was sent"
    assert spans["choice"].attributes == {"fleetgate.route": "home"}


def test_a_resume_lasts_from_the_break_to_the_next_token() -> None:
    trace = RequestTrace(7, 8, None, b"", 0.0)
    trace.begin_attempt("a:1", 9, 1.0, False)
    trace.sent(1.0)
    trace.end_attempt("cut", 3.0)
    trace.begin_attempt("b:1", 10, 4.0, True)
    trace.sent(4.0)
    assert trace.watch is not None
    trace.watch.see(b'data: {"choices":[{"text":"x"}]}', 5.0)
    trace.end_attempt("passed", 9.0)
    note = ResumeNote("cut", "a:1", 40, "b:1", 2.0, 90, "resumed")
    stats = RequestStats("req_1", "chat", at=AT, duration=10.0, status=200, resumes=(note,))
    resume = made(stats, trace)["resume"]
    assert seconds(resume) == (3, 5) and resume.error is None
    assert resume.attributes["fleetgate.recomputed_tokens"] == 90 and resume.attributes["fleetgate.to"] == "b:1"
    trace.attempts[-1].watch.first = None
    assert made(stats, trace)["resume"].error == "not_resumed"


def test_attempts_are_bounded() -> None:
    trace = RequestTrace(7, 8, None, b"", 0.0)
    for number in range(200):
        trace.begin_attempt(f"n:{number}", number + 1, float(number), False)
        trace.end_attempt("refused", number + 0.5)
    stats = RequestStats("req_1", "chat", at=AT, duration=200.0, status=503, ending="node_down")
    spans = spans_of(stats, trace)
    assert len(spans) == MOST_ATTEMPTS + 1 and spans[-1].attributes["fleetgate.node"] == "n:199"
    assert spans[0].attributes["fleetgate.attempts_not_shown"] == 200 - MOST_ATTEMPTS


@pytest.mark.parametrize(
    ("event", "part"),
    [
        (b'{"delta":{"reasoning_content":"x"}}', "thinking"),
        (b'{"delta":{"reasoning":""}}', None),
        (b'{"delta":{"content":""}}', None),
        (b'{"delta":{"tool_calls":[{"index":0}]}}', "answer"),
        (b'{"delta":{"tool_calls":[]}}', None),
        (b'{"type":"content_block_delta","delta":{"type":"thinking_delta","thinking":"x"}}', "thinking"),
        (b'{"type":"content_block_delta","delta":{"type":"input_json_delta","partial_json":"{"}}', "answer"),
        (b'{"type":"response.reasoning_text.delta","delta":"x"}', "thinking"),
        (b'{"type": "response.output_text.delta", "delta": "x"}', "answer"),
        (b'{"type":"response.function_call_arguments.delta","delta":"x"}', "answer"),
        (b'{"delta":{"reasoning":"say \\"content\\":\\"x\\""}}', "thinking"),
    ],
)
def test_a_part_begins_with_its_first_text(event: bytes, part: str | None) -> None:
    watch = AnswerWatch()
    watch.see(b"data: " + event + b"\n\n", 2.0)
    assert (watch.first, watch.thinking, watch.answer) == (
        2.0,
        2.0 if part == "thinking" else None,
        2.0 if part == "answer" else None,
    )


def test_reasons_are_bounded_and_content_too() -> None:
    watch = AnswerWatch(content=10)
    watch.see_plain(
        b'{"id":"x","choices":[' + b'{"finish_reason":"stop","content":"\\u00e4bcdefghijkl"},' * 40 + b"]}", 1.0
    )
    assert watch.reasons == ["stop"] * MOST_REASONS and watch.texts() == ("", "äbcdefghi") and watch.id == "x"
    watch = AnswerWatch(content=10)
    watch.see(b'{"type":"response.reasoning_text.delta","delta":"think"}', 1.0)
    watch.see(b'{"type":"response.output_text.delta","delta":"say"}', 1.0)
    watch.see(b'{"type":"response.completed"}', 1.0)
    assert watch.texts() == ("think", "say") and watch.reasons == ["completed"]
    silent = AnswerWatch()
    silent.see(b'{"content":"secret"}', 1.0)
    assert silent.texts() == ("", "")


@pytest.mark.parametrize(
    ("body", "kept"),
    [
        ({"messages": [{"role": "user", "content": "abcdef"}, {"role": "user", "content": "xyz"}]}, ["def", "xyz"]),
        ({"prompt": "abcdefgh"}, ["cdefgh"]),
        ({"input": [{"role": "user", "content": [{"type": "input_text", "text": "ab"}, {"image": 1}]}, 5]}, ["ab"]),
        ({"messages": [{"role": 5, "content": "x"}, {"content": {}}]}, []),
        ({}, []),
    ],
)
def test_the_end_of_a_prompt_is_recorded(body: dict[str, object], kept: list[str]) -> None:
    assert [turn["parts"][0]["content"] for turn in input_messages(body, 6)] == kept
