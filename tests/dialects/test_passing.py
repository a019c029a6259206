"""An event that passes at sight is one that `feed` would have passed as it is, with its filter in the same state."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core.budgets.assembly import AnswerAssembly
from gateway.core.budgets.backstop import Backstop
from gateway.core.budgets.continuation import BudgetTerms, budget_terms
from gateway.core.budgets.enforcement import Enforcement
from gateway.core.budgets.hiding import HidingFilter
from gateway.core.budgets.messages_backstop import MessagesBackstop
from gateway.core.dialects.chat import ChatFilter
from gateway.core.dialects.messages import MessagesFilter
from gateway.core.dialects.over_chat.stream import ChatStream
from gateway.core.dialects.responses import ResponsesFilter
from gateway.core.dialects.stream_filter import StreamFilter
from gateway.core.fleet.capabilities import Capabilities

BODY = b'{"model":"m","messages":[{"role":"user","content":"a"}],"stream":true}'
KINDS: dict[str, Callable[[], StreamFilter]] = {
    "chunks, usage passed": lambda: ChatFilter(True),
    "chunks, usage kept": lambda: ChatFilter(False),
    "chunks, several choices": lambda: ChatFilter(False, 2),
    "messages": MessagesFilter,
    "responses": ResponsesFilter,
    "backstop": lambda: Backstop(_terms, True, 12, 1.0),
    "backstop, usage kept": lambda: Backstop(_terms, False, 12, 1.0),
    "messages' backstop": lambda: MessagesBackstop(5, 1.0),
}


def _terms() -> BudgetTerms:
    return budget_terms(BODY, 12, None, Capabilities(native_budget=True, splits_reasoning=True, think_end=(7,)), True)


def chunk(delta: dict[str, Any], finish: str | None = None, **more: Any) -> bytes:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish, "token_ids": None}
    told = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice], **more}
    return b"data: " + json.dumps(told, separators=(",", ":")).encode() + b"\n\n"


TEXTS = ["word", '"usage"', "\\n\\n", "[DONE]", '{"error"', "", "\r", "\x00", "\ud800", 'x"},"logprobs":null']
EVENTS = [
    *(chunk({field: text}) for field in ("reasoning", "content") for text in TEXTS),
    chunk({"role": "assistant", "content": ""}),
    chunk({"reasoning_content": "older"}),
    chunk({"tool_calls": [{"index": 0}]}),
    chunk({}, "stop"),
    chunk({"content": "."}, "length"),
    chunk({"reasoning": "one"}) + chunk({"reasoning": "two"}),
    chunk({"reasoning": "one"}, usage={"prompt_tokens": 1, "completion_tokens": 2}),
    b'data: {"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":2}}\n\n',
    b'data: {"error":{"message":"x"}}\n\n',
    b"data: [DONE]\n\n",
    b": comment\n\n",
    b'data: {"usage":{"prompt_tokens":3}}\r\r' + chunk({"content": "a"}),
    b"\n" + chunk({"content": "a"}),
    chunk({"content": "half"})[:-20],
    b"\xff",
    chunk({"content": "half"})[:-20] + b"\xff",
    b"\n: comment\n\n",
    chunk({"content": "half"})[-20:],
    chunk({"reasoning": ""}).replace(b'""}', b'"}'),  # one quote opens and ends the text
    b'event: message_stop\ndata: {"type":"message_stop"}\n\n',
    b'event: content_block_delta\ndata: {"type":"content_block_delta","delta":{"type":"thinking_delta"}}\n\n',
    b'event: response.completed\ndata: {"type":"response.completed","response":{"usage":{"input_tokens":1}}}\n\n',
    b'event: response.output_text.delta\ndata: {"type":"response.output_text.delta","delta":"x"}\n\n',
]


def state(stream_filter: StreamFilter) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for kind in type(stream_filter).__mro__:
        for name in getattr(kind, "__slots__", ()):
            found[name] = getattr(stream_filter, name)
    found["_splitter"] = stream_filter._splitter.rest
    return found


@pytest.mark.parametrize("kind", KINDS)
@given(events=st.lists(st.sampled_from(EVENTS), min_size=1, max_size=80))
@settings(deadline=None, max_examples=150)
def test_what_passes_at_sight_is_what_feeding_it_would_give(kind: str, events: list[bytes]) -> None:
    one, other = KINDS[kind](), KINDS[kind]()
    for event in events:
        told = event if one.passes(event) else one.feed(event)
        assert told == other.feed(event)
        assert state(one) == state(other)
        if one.follow_up is not None:
            return


def test_a_text_that_ends_before_it_begins_is_no_thinking() -> None:
    """The pieces around it are those of an event of thinking, and share a quote. The client gets it as it is."""
    stream_filter = Backstop(_terms, True, 12, 1.0)
    stream_filter.feed(chunk({"reasoning": "word"}))
    broken = chunk({"reasoning": ""}).replace(b'""}', b'"}')
    assert not stream_filter.passes(broken)
    assert stream_filter.feed(broken) == broken
    assert stream_filter._text == b"word"


def every(kind: type[Any]) -> Iterator[type[Any]]:
    for below in kind.__subclasses__():
        yield below
        yield from every(below)


def test_who_has_a_feed_of_its_own_says_itself_what_passes() -> None:
    filters = set(every(StreamFilter))
    assert {AnswerAssembly, Backstop, ChatStream, Enforcement, HidingFilter} <= filters
    own = {kind for kind in filters if "feed" in vars(kind) and kind.passes is not StreamFilter.passes}
    assert {kind.__name__ for kind in own if "passes" not in vars(kind)} == set()


@pytest.mark.parametrize("kind", KINDS)
@given(events=st.lists(st.sampled_from(EVENTS), min_size=1, max_size=40))
@settings(deadline=None, max_examples=50)
def test_who_passes_all_texts_counts_none(kind: str, events: list[bytes]) -> None:
    """A checkpoint asks no more then, until it feeds something."""
    stream_filter = KINDS[kind]()
    text = chunk({"reasoning": "word"})
    for event in events:
        if not stream_filter.passes(event):
            stream_filter.feed(event)
        if stream_filter.follow_up is not None:
            return
        if stream_filter.passes_texts:
            before = state(stream_filter)
            assert stream_filter.passes_text(text, text.index(b'"},"logprobs"'))
            assert stream_filter.passes_texts and state(stream_filter) == before


def test_who_counts_texts_says_when_it_does() -> None:
    own = [kind for kind in every(StreamFilter) if "passes_text" in vars(kind)]
    assert Backstop in own and [kind.__name__ for kind in own if "passes_texts" not in vars(kind)] == []


def test_nearly_every_event_of_a_stream_passes() -> None:
    stream_filter = Backstop(_terms, True, 10_000, 1.0)
    events = [chunk({"role": "assistant", "content": ""}), *[chunk({"reasoning": "word"})] * 500]
    events += [chunk({"content": "word"})] * 500
    fed = 0
    for event in events:
        if not stream_filter.passes(event):
            stream_filter.feed(event)
            fed += 1
    assert fed <= 3 + 500 // 256  # the role, the first thought, the first word of the answer; and now and then a count
