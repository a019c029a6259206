"""The facts of a request, as the rules of the core leave them."""

from typing import Any

from gateway.core.resume.note import ResumeNote
from gateway.core.telemetry.request_stats import RequestStats, log_table
from gateway.core.usage.token_usage import ObservedWork, Usage


def test_another_attempt_begins_with_nothing_seen_of_the_last_one() -> None:
    stats = RequestStats(reported=Usage(3, 2), lost_events=1)
    stats.work = ObservedWork(events=4)
    stats.begin_again()
    assert (stats.lost_events, stats.reported, stats.work.events) == (5, None, 0)


def test_a_resumed_answer_keeps_what_came_of_it() -> None:
    stats = RequestStats(reported=Usage(3, 2), lost_events=1, node_failed=True)
    stats.work = ObservedWork(events=4)
    stats.go_on(5)
    assert (stats.lost_events, stats.reported, stats.work.events, stats.node_failed) == (1, Usage(3, 2), 0, False)
    assert (stats.resumed_at, stats.made) == (5, 5)
    stats.work.add(2, 1.0, 1.0, 0.0, 0.0)
    assert stats.made == 7


def test_the_line_has_the_declared_fields_rendered() -> None:
    line = log_table(RequestStats).line(RequestStats("r", usage=Usage(3, 2, 1), duration=0.25))
    assert (line["request_id"], line["duration_ms"], line["ttft_ms"]) == ("r", 250.0, None)
    assert (line["input_tokens"], line["output_tokens"], line["reasoning_tokens"]) == (3, 2, 1)


def test_the_line_tells_each_resume() -> None:
    assert log_table(RequestStats).line(RequestStats())["resumes"] is None
    went_on = ResumeNote("cut", "a:1", 412, "b:1", 1.23456, 8000, "resumed")
    line = log_table(RequestStats).line(RequestStats(resumes=(went_on, ResumeNote("silent", "b:1", 500))))
    assert line["resumes"] == [
        {
            "from": "a:1",
            "to": "b:1",
            "token": 412,
            "pause_ms": 1234.6,
            "recomputed_tokens": 8000,
            "cause": "cut",
            "outcome": "resumed",
        },
        {
            "from": "b:1",
            "to": None,
            "token": 500,
            "pause_ms": None,
            "recomputed_tokens": None,
            "cause": "silent",
            "outcome": "refused",
        },
    ]


def test_the_line_lists_the_first_and_the_last_resumes_of_many() -> None:
    for count in (1, 20, 21, 500):
        notes = tuple(ResumeNote("refused", "a:1", number) for number in range(count))
        line: Any = log_table(RequestStats).line(RequestStats(resumes=notes))["resumes"]
        shown = [each["token"] for each in line]
        assert shown == ([*range(count)] if count <= 20 else [*range(10), *range(count - 10, count)])
