"""The answers that broke off of late: which node lost them, and whether they went on."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from gateway.core.fleet.peer_view import AnswerBreaks
from gateway.core.resume.note import ResumeNote
from gateway.core.telemetry.request_stats import RequestStats
from gateway.telemetry.recent import BREAK_MINUTES, RecentBreaks


def note(outcome: str = "resumed", source: str = "a:1", cause: str = "cut") -> ResumeNote:
    return ResumeNote(cause, source, 7, "b:1", 0.5, 9, outcome)


def ended(*notes: ResumeNote, **changed: Any) -> RequestStats:
    facts: dict[str, Any] = {"model": "m", "node": "b:1", "stream": True, "status": 200}
    return RequestStats(resumes=notes, **(facts | changed))


def seen(*events: RequestStats) -> dict[str, tuple[AnswerBreaks, ...]]:
    recent = RecentBreaks()
    recent.note(events, 1000.0)
    return recent.by_node(1000.0)


def test_each_break_belongs_to_the_node_that_broke_off() -> None:
    both = ended(note(), note(source="b:1"))
    assert seen(both, ended(note())) == {"a:1": (AnswerBreaks("m", 2, 2, 0),), "b:1": (AnswerBreaks("m", 1, 1, 0),)}
    assert seen(ended(note()), ended(note(), model="n"), ended(note(), model=None)) == {
        "a:1": (AnswerBreaks("m", 1, 1, 0), AnswerBreaks("n", 1, 1, 0), AnswerBreaks("-", 1, 1, 0))
    }
    assert seen(ended(), ended(status=500, ending="upstream_error")) == {}


def test_an_answer_that_ended_with_an_error_was_not_resumed() -> None:
    assert seen(ended(note("refused"), ending="upstream_cut")) == {"a:1": (AnswerBreaks("m", 1, 0, 1),)}
    assert seen(ended(note(), note("refused", "b:1"), ending="upstream_cut")) == {
        "a:1": (AnswerBreaks("m", 1, 1, 0),),
        "b:1": (AnswerBreaks("m", 1, 0, 1),),
    }


def test_a_node_that_failed_to_go_on_has_lost_no_answer() -> None:
    """However often it was asked: the answer broke off once, on another node."""
    tries = [note("broken"), *[note("broken", "b:1", "refused")] * 40]
    assert seen(ended(*tries, note("resumed", "c:1"))) == {"a:1": (AnswerBreaks("m", 1, 1, 0),)}
    assert seen(ended(*tries, ending="upstream_cut")) == {"a:1": (AnswerBreaks("m", 1, 0, 1),)}
    assert seen(ended(*tries, note("resumed", "c:1"), note("broken", "d:1"), note("resumed", "b:1"))) == {
        "a:1": (AnswerBreaks("m", 1, 1, 0),),
        "d:1": (AnswerBreaks("m", 1, 1, 0),),
    }


def test_a_plain_answer_that_was_asked_for_anew_was_lost_and_is_none() -> None:
    assert seen(ended(note("refused"), stream=False)) == {"a:1": (AnswerBreaks("m", 1, 0, 0),)}


def test_who_left_in_the_pause_has_not_lost_an_answer() -> None:
    for outcome in ("refused", "broken"):
        assert seen(ended(note(outcome), ending="client_gone")) == {"a:1": (AnswerBreaks("m", 1, 0, 0),)}


def test_an_answer_that_broke_off_and_was_not_to_be_resumed_is_lost() -> None:
    """With resume switched off there is no note."""
    failed = {"failures": (("a:1", "refused"), ("b:1", "cut"))}
    lost = {"b:1": (AnswerBreaks("m", 1, 0, 1),)}
    assert seen(ended(ending="upstream_cut", **failed)) == lost
    assert seen(ended(ending="upstream_cut", stream=False, **failed)) == {}
    assert seen(ended(ending="upstream_cut", status=502, **failed)) == {}, "it had not begun"
    for ending in ("ok", "client_gone"):
        assert seen(ended(ending=ending, **failed)) == {}, "another attempt answered"


@given(st.lists(st.tuples(st.floats(0, 200), st.sampled_from("ab"), st.sampled_from("mn")), max_size=40))
def test_a_break_is_shown_for_ten_minutes(breaks: list[tuple[float, str, str]]) -> None:
    """To the minute; and what is older is not kept."""
    recent, now, times = RecentBreaks(), 0.0, []
    for passed, source, model in breaks:
        now += passed
        recent.note((ended(note(source=source), model=model),), now)
        times.append((now, source, model))
        shown = {(node, each.model): each.lost for node, found in recent.by_node(now).items() for each in found}
        for node in "ab":
            for name in "mn":
                at = [when for when, *where in times if where == [node, name]]
                least = sum(now - when <= (BREAK_MINUTES - 1) * 60 for when in at)
                assert least <= shown.get((node, name), 0) <= sum(now - when <= BREAK_MINUTES * 60 for when in at)
    assert recent.by_node(now + BREAK_MINUTES * 60) == {}
    assert len(recent) == 0
