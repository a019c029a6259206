"""Thinking that is ended before its budget: by the gateway's own count of it, or behind a node that holds budgets."""

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.budgets.assembly import AnswerAssembly
from gateway.core.budgets.backstop import ROOM, Backstop
from gateway.core.budgets.continuation import BudgetTerms
from gateway.core.budgets.enforcement import Enforcement
from gateway.core.dialects.chat import ChatFilter
from gateway.core.dialects.stream_filter import STOP, ChainedFilter, StreamFilter
from tests.budgets.test_enforcement import END, PROMPT, chunk, continued, opening, said, terms_for, thinking

TEXTS = ("one", " two", " three", " four", " five", " six")


def thought(stream_filter: StreamFilter) -> int | None:
    return stream_filter.thought


def content(*texts: str) -> bytes:
    return b"".join(chunk({"content": text}, [300 + at]) for at, text in enumerate(texts))


def uncounted(*texts: str) -> bytes:
    """Thinking of a node that was not asked for token ids."""
    return b"".join(chunk({"reasoning": text}, None) for text in texts)


def answer_of(stream_filter: StreamFilter, passed: bytes, first: bytes) -> tuple[bytes, dict[str, Any]]:
    """Feed the rest of the first stream, and the continuation where one is asked for."""
    passed += stream_filter.feed(first)
    body: dict[str, Any] = {}
    while stream_filter.follow_up is not None and stream_filter.follow_up is not STOP:
        follow_up, stream_filter.follow_up = stream_filter.follow_up, None
        if follow_up.path == "/tokenize":
            asked = json.loads(follow_up.body)
            ids = PROMPT if "messages" in asked else [100 + at for at in range(len(asked["prompt"].split()))]
            stream_filter.feed(json.dumps({"tokens": ids}).encode())
            passed += stream_filter.flush()
        else:
            body = json.loads(follow_up.body)
            passed += stream_filter.feed(continued(" an", " answer"))
    return passed, body


@given(st.integers(1, 5))
def test_counted_thinking_ends_with_the_next_token(at: int) -> None:
    stream_filter = Enforcement(terms_for(40))
    assert thought(stream_filter) is None and not stream_filter.end_thinking(), "nothing has come"
    passed = stream_filter.feed(opening() + thinking(*TEXTS[:at]))
    assert thought(stream_filter) == at
    assert stream_filter.end_thinking()
    passed, body = answer_of(stream_filter, passed, thinking(*TEXTS[at:], "more"))
    assert said(passed)[:3] == ("".join(TEXTS[:at]), " an answer", ["stop"])
    assert body["prompt"] == [*PROMPT, *range(100, 100 + at), END]
    assert thought(stream_filter) is None and not stream_filter.end_thinking()


def test_thinking_that_ends_by_itself_is_left_alone() -> None:
    stream_filter = Enforcement(terms_for(40))
    stream_filter.feed(opening() + thinking("one"))
    assert stream_filter.end_thinking()
    passed = stream_filter.feed(content("the answer"))
    assert b"the answer" in passed and stream_filter.follow_up is None
    assert thought(stream_filter) is None and not stream_filter.end_thinking()


@pytest.mark.parametrize(
    "fields",
    [
        {"tools": [{"type": "function", "function": {"name": "f"}}]},
        {"messages": [{"content": [{"type": "image_url"}]}]},
    ],
    ids=["tools", "pictures"],
)
def test_what_could_not_go_on_is_not_ended(fields: dict[str, Any]) -> None:
    for stream_filter in (Enforcement(terms_for(40, **fields)), backstop(40, **fields)):
        stream_filter.feed(opening() + thinking("one", " two"))
        assert thought(stream_filter) == 2 and not stream_filter.end_thinking()
        passed = stream_filter.feed(thinking(" three") + content("an answer"))
        assert b"three" in passed and b"an answer" in passed and stream_filter.follow_up is None


def backstop(limit: int, max_tokens: int = 5000, pace: float = 1.0, **fields: Any) -> Backstop:
    def terms() -> BudgetTerms:
        return replace(terms_for(limit, **fields), max_tokens=max_tokens)

    return Backstop(terms, True, limit, pace)


@given(st.integers(1, 5))
def test_behind_a_node_that_holds_budgets_it_is_no_overrun(at: int) -> None:
    stream_filter = backstop(1000)
    assert thought(stream_filter) is None and not stream_filter.end_thinking()
    passed = stream_filter.feed(opening() + uncounted(*TEXTS[:at]))
    assert thought(stream_filter) == at and stream_filter.end_thinking()
    assert thought(stream_filter) is None and not stream_filter.end_thinking(), "once"
    event = uncounted(*TEXTS)
    assert not stream_filter.passes(event) and not stream_filter.passes_text(event, 10)
    passed, body = answer_of(stream_filter, passed, uncounted(*TEXTS[at:], "more"))
    assert said(passed)[:3] == ("".join(TEXTS[:at]), " an answer", ["stop"])
    assert body["prompt"] == [*PROMPT, *range(100, 100 + at), END]
    assert not stream_filter.overran and stream_filter.pace is None


def test_an_answer_without_room_is_left_alone() -> None:
    stream_filter = backstop(1000, max_tokens=ROOM + 2)
    stream_filter.feed(opening() + thinking("one", " two"))
    assert thought(stream_filter) == 2 and not stream_filter.end_thinking()
    counted = Enforcement(terms_for(1000))
    counted.feed(opening() + thinking(*[" x"] * 48))
    assert thought(counted) == 48 and counted.end_thinking()
    counted = Enforcement(terms_for(1000))
    counted.feed(opening() + thinking(*[" x"] * 49))
    assert thought(counted) == 49 and not counted.end_thinking(), "max_tokens is 50: the marker takes the last"


def test_whoever_wraps_a_filter_passes_both_on() -> None:
    for wrap in (lambda each: AnswerAssembly(each, True), lambda each: ChainedFilter(each, ChatFilter(True))):
        wrapped: StreamFilter = wrap(Enforcement(terms_for(40)))
        assert thought(wrapped) is None and not wrapped.end_thinking()
        wrapped.feed(opening() + thinking("one", " two"))
        assert thought(wrapped) == 2 and wrapped.end_thinking()
        wrapped.feed(thinking(" three"))
        assert wrapped.follow_up is not None and wrapped.follow_up.path == "/v1/completions"
    assert thought(ChatFilter(True)) is None and not ChatFilter(True).end_thinking()
