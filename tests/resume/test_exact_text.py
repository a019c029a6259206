"""An answer that breaks off anywhere, once or twice: its text is that of the unbroken one."""

import json
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core.dialects.stream_filter import STOP, FollowUpRequest, StreamFilter
from gateway.core.fleet.capabilities import Capabilities
from gateway.core.http.sse import split_events
from gateway.core.resume.checkpoint import Checkpoint
from gateway.core.resume.followed_request import FollowedRequest
from tests.resume.plain_node import EOS, OTHER, THINK, THINK_END, PlainNode

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"

pytestmark = pytest.mark.source_only("its filters inherit from a compiled class")

PIECES = [
    b"a", b" b", b"\n", b".\n\n", b"  ", b"st", b"op", b"p", b"the end", b".<", b"<", b"tool", b"_call", b" >", b'"',
    b"\\", b"\xf0\x9f", b"\x9a", b"\x80", b" \xe2", b"\x82\xac", "ß".encode(), b"\x01", b"</", b"END", b"EN", b"D",
]  # fmt: skip
WORDS = dict(enumerate(PIECES, 10))
KNOWN = Capabilities(think_start=(THINK,), think_end=(THINK_END,), splits_reasoning=True, marker_shown=False)


class Passing(StreamFilter):
    def feed(self, data: bytes) -> bytes:
        self.ended = self.ended or b"data: [DONE]" in data
        return data


class Forgetting(StreamFilter):
    """Holds the answer itself until its end."""

    def __init__(self) -> None:
        super().__init__()
        self._events: list[bytes] = []

    def feed(self, data: bytes) -> bytes:
        self.ended = self.ended or b"data: [DONE]" in data
        self._events += split_events(self._splitter.feed(data))
        return b""

    def forget_answer(self) -> bool:
        self._events = [event for event in self._events if b'"content":"' not in event or b'"role"' in event]
        return True

    def flush(self) -> bytes:
        return b"".join(self._events)


@dataclass
class Client:
    """An answer as its client reads it."""

    reasoning: str = ""
    content: str = ""
    finish: tuple[Any, ...] = ()
    usage: tuple[int, int] = (0, 0)
    done: int = 0


def read(stream: bytes) -> Client:
    client = Client()
    for event in split_events(stream):
        if event == b"data: [DONE]\n\n":
            client.done += 1
            continue
        chunk = json.loads(event[6:])
        assert chunk["id"] == "x" and chunk["object"] in ("chat.completion.chunk", "text_completion")
        if usage := chunk.get("usage"):
            client.usage = usage["prompt_tokens"], usage["completion_tokens"]
        for choice in chunk["choices"]:
            assert not client.finish
            assert not choice.get("token_ids")
            said = choice.get("delta", choice)
            client.reasoning += said.get("reasoning") or ""
            client.content += said.get("content") or said.get("text") or ""
            if choice["finish_reason"]:
                client.finish = choice["finish_reason"], choice["stop_reason"]
    return client


def unbroken(node: PlainNode, path: str, body: dict[str, Any]) -> Client:
    events = [event.replace(b'"token_ids":[', b'"ids":[') for event in node.stream(path, body)]
    return read(b"".join(events))


def broken(
    node: PlainNode, path: str, body: dict[str, Any], cuts: list[int], step: int | None, grammar: bool = False
) -> Client:
    """The answer where the connection breaks after the bytes of `cuts`, one a request. `step`: bytes of a piece of a
    stream; None: an event."""
    inner = Forgetting() if grammar else Passing()
    checkpoint = Checkpoint(inner, FollowedRequest(path, json.dumps(body).encode()), KNOWN, False, grammar)
    passed = b""
    begun = False
    follow_up = FollowUpRequest(path, json.dumps(body).encode())
    while True:
        stream = node.ask(follow_up.path, json.loads(follow_up.body))
        generates = follow_up.path in (CHAT, COMPLETIONS)
        least = len(split_events(stream)[0]) if generates and not begun else 0  # else it is asked for anew
        begun = True
        cut = least + cuts.pop(0) % (len(stream) + 1 - least) if generates and cuts else None
        passed += feed(checkpoint, stream if cut is None else stream[:cut], step)
        if checkpoint.follow_up is STOP:
            return read(passed + checkpoint.flush())
        if cut is not None and not checkpoint.ended:
            follow_up = checkpoint.resume(KNOWN)
            continue
        passed += checkpoint.flush()
        if checkpoint.follow_up is None:
            assert checkpoint.ended
            return read(passed)
        follow_up, checkpoint.follow_up = checkpoint.follow_up, None


def feed(checkpoint: Checkpoint, stream: bytes, step: int | None) -> bytes:
    pieces = split_events(stream) if step is None else [stream[at : at + step] for at in range(0, len(stream), step)]
    passed = b""
    for piece in pieces:
        quick = checkpoint.pass_event(piece) if step is None else None
        passed += checkpoint.feed(piece) if quick is None else quick
        if checkpoint.follow_up is not None:
            break
    return passed


def body_of(path: str, **fields: Any) -> dict[str, Any]:
    prompt: dict[str, Any] = {"messages": []} if path == CHAT else {"prompt": "?"}
    return {"model": "m", **prompt, "stream": True, "max_tokens": 1000, **fields}


ids = st.sampled_from(sorted(WORDS))


@st.composite
def answers(draw: st.DrawFn) -> list[int]:
    thought, answer = draw(st.lists(ids, max_size=12)), draw(st.lists(ids, max_size=12))
    if not draw(st.booleans()):
        return [*thought, *answer, EOS]
    clean = not b"".join(WORDS[token] for token in thought).decode("utf-8", "replace").endswith("\ufffd")
    return [*thought, *([] if clean else [10]), THINK_END, *answer, EOS]


@st.composite
def requests(draw: st.DrawFn) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    if draw(st.booleans()):
        fields["stop"] = draw(st.lists(st.sampled_from(["stop", "p", "END", "the endEND", "<tool"]), min_size=1))
        fields["include_stop_str_in_output"] = draw(st.booleans())
    if draw(st.integers(0, 3)) == 0:
        fields["max_tokens"] = draw(st.integers(1, 25))
    if draw(st.integers(0, 3)) == 0:
        fields["min_tokens"] = draw(st.integers(1, 12))
    return fields


sizes = st.one_of(st.just([1]), st.just([4]), st.lists(st.integers(1, 4), min_size=1, max_size=5))


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
@settings(max_examples=400, deadline=None)
@given(
    answers(),
    sizes,
    requests(),
    st.booleans(),
    st.lists(st.integers(0, 1 << 20), max_size=3),
    st.one_of(st.none(), st.integers(1, 300)),
)
def test_cut_anywhere(
    path: str,
    answer: list[int],
    sizes: list[int],
    fields: dict[str, Any],
    trims: bool,
    cuts: list[int],
    step: int | None,
) -> None:
    # A stop string at the last token that an answer must have is found in the wrong event, where that has several.
    node = PlainNode(WORDS, answer, [1] if "min_tokens" in fields else sizes, trims)
    body = body_of(path, **fields)
    got, expected = broken(node, path, body, cuts, step), unbroken(node, path, body)
    if not trims:  # a node is taken for one that trims until it shows otherwise
        got.reasoning, expected.reasoning = got.reasoning.rstrip(), expected.reasoning.rstrip()
    if expected.finish[1:] != (None,):  # the tokens of the event with a stop string are counted
        assert 0 <= got.usage[1] - expected.usage[1] < max(sizes)
        got.usage = expected.usage
    assert got == expected


THOUGHT = [13, 10, 11, 26, 27, 28, 13, 12, 10, 24, 25, 19, 21, 10, 13]
ANSWER = [12, 10, 15, 34, 26, 27, 28, 30, 31, 19, 21, 22, 10, 16, 32, 10, 35, 36, 10, 29]
WHOLE = [*THOUGHT, THINK_END, *ANSWER, EOS]


@pytest.mark.parametrize("cut", range(1, 7))
def test_special_tokens_that_no_text_shows(cut: int) -> None:
    node = PlainNode(WORDS, [10, OTHER, 11, 15, OTHER, 11, EOS], [1])
    body = body_of(COMPLETIONS)
    events = node.stream(COMPLETIONS, body)
    got = broken(node, COMPLETIONS, body, [sum(map(len, events[1:cut]))], None)
    assert got == unbroken(node, COMPLETIONS, body)


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("stop", [None, "never there, it is that long"])
def test_an_answer_with_a_grammar_begins_anew(count: int, stop: str | None) -> None:
    node = PlainNode(WORDS, WHOLE, [count], grammar=True)
    body = body_of(CHAT, stop=stop)
    expected = unbroken(node, CHAT, body)
    events = node.stream(CHAT, body)
    ends = [sum(map(len, events[1:number])) for number in range(1, len(events))]
    for end in ends:
        for cuts in ([end], [end, 0], [end, 500], [end, 1100, 200]):
            assert broken(node, CHAT, body, cuts, None, grammar=True) == expected, cuts


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
@pytest.mark.parametrize("cut", [1, 2, 3, 4])
def test_half_a_character_before_a_special_token(path: str, cut: int) -> None:
    """The node leaves the token out, so that its prompt ends in half a character: it would show it all."""
    node = PlainNode(WORDS, [11, 26, THINK_END, 11, EOS], [1])
    body = body_of(path)
    events = node.stream(path, body)
    expected = unbroken(node, path, body)
    assert broken(node, path, body, [sum(map(len, events[1 : cut + 1]))], None) == expected
    assert broken(node, path, body, [sum(map(len, events[1 : cut + 1])), 0, 0], None) == expected


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
@pytest.mark.parametrize("count", [1, 2, 3, 4])
@pytest.mark.parametrize("fields", [{}, {"stop": "ßEND"}, {"stop": ["never there"]}, {"max_tokens": 20}], ids=str)
def test_cut_at_every_event(path: str, count: int, fields: dict[str, Any]) -> None:
    node = PlainNode(WORDS, WHOLE, [count])
    body = body_of(path, **fields)
    expected = unbroken(node, path, body)
    events = node.stream(path, body)
    first = len(events[0])
    ends = [sum(map(len, events[:number])) - first for number in range(1, len(events))]
    for end in ends:
        for cuts in ([end], [end + 90], [end, 0], [end, 400], [end, 1700, 650]):
            got = broken(node, path, body, cuts, None)
            got.usage = expected.usage if expected.finish[1] else got.usage
            assert got == expected, cuts
