"""A stream whose thought loops is that of a model which ended its thinking there by itself."""

import json
from dataclasses import replace
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core.dialects.chat import ChatFilter
from gateway.core.dialects.stream_filter import STOP
from gateway.core.fleet.capabilities import UNKNOWN, Capabilities
from gateway.core.resume.followed_request import CHAT, COMPLETIONS, FollowedRequest
from gateway.core.resume.loop_checkpoint import LoopCheckpoint
from gateway.core.thinking.loop_detector import GUARD
from gateway.core.thinking.loops import LoopBounds, LoopNote
from tests.resume.node_model import END, EOS, Answer
from tests.resume.test_checkpoint import BODY, CAPABILITIES, same, unbroken

SAID = (400, 401, 402)
ANSWER_TOO = LoopBounds(answer=True)


def checkpoint(
    answer: Answer,
    bounds: LoopBounds = LoopBounds(),  # noqa: B008 -- frozen
    known: Capabilities = CAPABILITIES,
    grammar: bool = False,
    comments: bool = False,
    **fields: Any,
) -> LoopCheckpoint:
    options = {"include_usage": True, "continuous_usage_stats": answer.counts}
    body = {**BODY, "max_tokens": 2000, "stream_options": options, "return_token_ids": True, **fields}
    followed = FollowedRequest(CHAT, json.dumps(body).encode())
    inner = ChatFilter(answer.usage)
    return LoopCheckpoint(inner, followed, known, False, grammar, True, bounds, comments)


def loop(rng: Random, period: int, length: int) -> list[int]:
    block = [rng.randrange(1000, 40_000) for _ in range(period)]
    return [block[at % period] for at in range(length)]


class Looper:
    """Feeds a checkpoint with an answer whose thought loops, and answers its follow-ups."""

    def __init__(self, answer: Answer, watched: LoopCheckpoint, rng: Random) -> None:
        self.answer, self.checkpoint, self.rng = answer, watched, rng
        self.told = bytearray()

    def push(self, events: list[str]) -> bool:
        """Feed events in some pieces; whether the checkpoint asked for something else before their end."""
        raw, at = [event.encode() for event in events], 0
        while at < len(raw):
            size = self.rng.choice((1, 1, 1, 2, 5, 300))
            piece = b"".join(raw[at : at + size])
            at += size
            passed = self.checkpoint.pass_event(piece) if size == 1 else None
            if passed is not None:
                self.told += passed
                continue
            cut = self.rng.choice((0, self.rng.randint(0, len(piece))))
            for part in (piece[:cut], piece[cut:]):
                if part and self.checkpoint.follow_up is None:
                    self.told += self.checkpoint.feed(part)
            if self.checkpoint.follow_up is not None:
                return True
        return False

    def go_on(self, said: tuple[int, ...] = SAID) -> Answer:
        """Answer the follow-ups behind the loop with `said`; returns the answer as a whole."""
        while True:
            asked, self.checkpoint.follow_up = self.checkpoint.follow_up, None
            assert asked is not None
            if asked.path == COMPLETIONS:
                break
            self.told += self.checkpoint.feed(self.answer.reply(*asked)) + self.checkpoint.flush()
        body = json.loads(asked.body)
        kept = tuple(body["prompt"][5:])
        assert kept[-1] == END and kept[:-1] == self.answer.tokens[: len(kept) - 1]
        whole = replace(self.answer, tokens=(*kept, *said, EOS), finish="stop")
        assert not self.push(whole.completions(body))
        self.told += self.checkpoint.flush()
        return whole


@given(
    seed=st.integers(0, 1 << 32),
    period=st.one_of(st.integers(4, 12), st.integers(4, 128)),
    size=st.sampled_from([1, 1, 3]),
    counts=st.booleans(),
    usage=st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_the_stream_is_that_of_a_thought_that_ended(
    seed: int, period: int, size: int, counts: bool, usage: bool
) -> None:
    rng = Random(seed)
    before = [rng.randrange(300, 49_000) for _ in range(rng.randint(0, 60))]
    tokens = (*before, *loop(rng, period, 3 * period + 200))
    answer = Answer(tokens, "length", size, usage, counts)
    client = Looper(answer, checkpoint(answer), rng)
    assert client.push(replace(answer, usage=True).chat(ids=True))
    whole = client.go_on()
    if size == 1:
        assert same(client.told) == same(unbroken(whole))
    kept = len(whole.tokens) - len(SAID) - 2
    assert kept - len(before) <= 3 * period + 64
    assert client.checkpoint.loops == (LoopNote("reasoning", period, kept),)
    assert client.checkpoint.usage is not None
    assert client.checkpoint.usage.output == len(whole.tokens) and client.checkpoint.usage.reasoning == kept


def watched(tokens: tuple[int, ...], *options: Any, **fields: Any) -> Looper:
    answer = Answer(tokens, "stop")
    return Looper(answer, checkpoint(answer, *options, **fields), Random(5))


THOUGHT = (*range(300, 320), *loop(Random(1), 10, 150))
TALK = (300, 301, END, *range(400, 420), *loop(Random(2), 10, 150), EOS)


@pytest.mark.parametrize(
    ("bounds", "known"),
    [
        (LoopBounds(reasoning=False), CAPABILITIES),
        (LoopBounds(reasoning=False, answer=True), CAPABILITIES),
        (LoopBounds(repeats=20), CAPABILITIES),
        (ANSWER_TOO, UNKNOWN),
    ],
    ids=["off", "the answer alone", "more repeats", "markers not known"],
)
def test_a_thought_that_goes_on(bounds: LoopBounds, known: Capabilities) -> None:
    client = watched((*THOUGHT, END, *SAID, EOS), bounds, known)
    assert not client.push(client.answer.chat(ids=True))
    assert same(client.told) == same(unbroken(client.answer)) and client.checkpoint.loops == ()


def test_a_loop_that_ends_by_itself_at_the_next_event_is_left() -> None:
    """It is found with the event after the one that completes it; that event may be the end of thinking."""
    tokens = (*range(300, 320), *loop(Random(1), 10, 30 + GUARD), END, *SAID, EOS)
    client = watched(tokens)
    for event in client.answer.chat(ids=True):
        passed = client.checkpoint.pass_event(event.encode())
        client.told += client.checkpoint.feed(event.encode()) if passed is None else passed
        assert client.checkpoint.follow_up is None
    assert same(client.told) == same(unbroken(client.answer))


@pytest.mark.parametrize("pieces", [1, 1000])
def test_a_loop_in_the_answer_ends_it(pieces: int) -> None:
    client = watched(TALK, ANSWER_TOO, comments=True)
    events = [event.encode() for event in client.answer.chat(ids=True)]
    if pieces > 1:
        events = [b"".join(events)]
    for event in events:
        passed = client.checkpoint.pass_event(event)
        client.told += client.checkpoint.feed(event) if passed is None else passed
        if client.checkpoint.follow_up is not None:
            break
    assert client.checkpoint.follow_up is STOP and client.checkpoint.ended
    assert client.checkpoint.flush() == b""
    (note,) = client.checkpoint.loops
    assert note.part == "answer" and note.period == 10
    told = bytes(client.told).decode()
    assert told.count('"finish_reason":"stop"') == told.count("[DONE]") == 1 and told.endswith("data: [DONE]\n\n")
    assert f": answer ended after {note.token} tokens" in told
    assert client.checkpoint.usage is not None and client.checkpoint.usage.output == note.token


def test_a_loop_in_the_answer_is_left_alone() -> None:
    client = watched(TALK)
    assert not client.push(client.answer.chat(ids=True))
    assert same(client.told) == same(unbroken(client.answer))


def test_a_loop_in_a_tool_call_is_left_alone() -> None:
    client = watched(TALK, ANSWER_TOO)
    for event in client.answer.chat(ids=True):
        called = event.replace('"delta":{"content":"', '"delta":{"tool_calls":[{"index":0,"function":{"arguments":"')
        if called != event:
            called = called.replace('"},"logprobs"', '"}}]},"logprobs"')
        client.told += client.checkpoint.feed(called.encode())
        assert client.checkpoint.follow_up is None
    assert client.checkpoint.loops == ()


def test_a_thought_bounded_by_a_grammar_is_ended() -> None:
    client = watched(THOUGHT, LoopBounds(), CAPABILITIES, True, response_format={"type": "json_object"})
    assert client.push(client.answer.chat(ids=True))
    client.go_on()
    assert client.checkpoint.ended


@pytest.mark.parametrize("state", ["/tokenize", COMPLETIONS])
def test_a_break_while_the_thought_is_ended(state: str) -> None:
    client = watched(THOUGHT)
    assert client.push(client.answer.chat(ids=True))
    asked = client.checkpoint.follow_up
    assert asked is not None
    if state == COMPLETIONS:
        client.checkpoint.follow_up = None
        client.told += client.checkpoint.feed(client.answer.reply(*asked)) + client.checkpoint.flush()
    client.checkpoint.follow_up = client.checkpoint.resume(CAPABILITIES)
    whole = client.go_on()
    assert same(client.told) == same(unbroken(whole))
    assert len(client.checkpoint.loops) == 1


def test_without_room_the_answer_ends_with_length() -> None:
    client = watched(THOUGHT, max_tokens=20 + 30 + GUARD + 1)
    client.rng = Random(0)
    for event in client.answer.chat(ids=True):
        client.told += client.checkpoint.feed(event.encode())
        if client.checkpoint.follow_up is not None:
            break
    asked, client.checkpoint.follow_up = client.checkpoint.follow_up, None
    assert asked is not None
    client.told += client.checkpoint.feed(client.answer.reply(*asked)) + client.checkpoint.flush()
    assert client.checkpoint.ended and b'"finish_reason":"length"' in client.told


def test_an_answer_that_does_not_move_is_not_resumed() -> None:
    answer = Answer(THOUGHT, "stop")
    followed = FollowedRequest(CHAT, json.dumps(BODY).encode())
    made = LoopCheckpoint(ChatFilter(True), followed, CAPABILITIES, False, False, False, LoopBounds(), False)
    for event in answer.chat(ids=True)[:9]:
        made.feed(event.encode())
    assert made.begun and not made.has_ids and not made.resumable


def test_half_a_character_of_a_loop_is_not_made_again() -> None:
    """A client of token ids gets those of the answer, though it begins with the same half."""
    half, ended = 300, 0
    for turn in range(4):
        block = ([half, 1001, 1002, 1003] * 2)[turn : turn + 4]
        answer = Answer((*block * 80,), "length")
        followed = FollowedRequest(CHAT, json.dumps({**BODY, "max_tokens": 2000, "return_token_ids": True}).encode())
        watched = LoopCheckpoint(ChatFilter(True), followed, CAPABILITIES, True, False, True, LoopBounds(), False)
        for event in answer.chat(ids=True):
            said = event.replace(f' w{half}\\"\\\\é', "").replace('{"reasoning":""}', "{}").encode()
            if watched.pass_event(said) is None:
                watched.feed(said)
            if watched.follow_up is not None:
                break
        if f"[{half}]" not in event:
            continue
        ended += 1
        watched.follow_up = None
        watched.feed(answer.reply("/tokenize", b"{}"))
        watched.flush()
        watched.follow_up = None
        told = watched.feed(b"".join(_made(text, ids) for text, ids in (("", [half]), ("b", [1001]))))
        assert [json.loads(each[6:])["choices"][0].get("token_ids") for each in told.split(b"\n\n")[:-1]] == [
            [END],
            [half],
            [1001],
        ]
    assert ended


def _made(text: str, ids: list[int]) -> bytes:
    choice = {"index": 0, "text": text, "finish_reason": None, "stop_reason": None, "token_ids": ids}
    return b"data: " + json.dumps({"id": "y", "choices": [choice]}).encode() + b"\n\n"
