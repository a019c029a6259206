"""A checkpoint makes one unbroken stream of an answer that breaks off anywhere, in any pieces, in any way."""

import json
import re
from dataclasses import replace
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.dialects.chat import ChatFilter
from gateway.core.dialects.stream_filter import FollowUpRequest
from gateway.core.errors import NodeFailed, StreamLost, UpstreamCut, UpstreamError
from gateway.core.fleet.capabilities import Capabilities
from gateway.core.resume.checkpoint import Checkpoint
from gateway.core.resume.followed_request import CHAT, COMPLETIONS, FollowedRequest
from tests.resume.node_model import DONE, END, EOS, LINE, START, Answer

CAPABILITIES = Capabilities(native_budget=True, splits_reasoning=True, think_start=(START,), think_end=(END,))
ERROR = 'data: {"error":{"message":"dead","type":"InternalServerError","code":500}}\n\n'
COMMENT = ": keep-alive\n\n"
BODY: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "Hi"}], "stream": True}


def checkpoint(answer: Answer, grammar: bool = False) -> Checkpoint:
    options = {"include_usage": True, "continuous_usage_stats": answer.counts}
    body = {**BODY, "max_tokens": 64, "stream_options": options, "return_token_ids": True}
    if answer.finish == "length":
        body["max_tokens"] = len(answer.tokens)
    followed = FollowedRequest(CHAT, json.dumps(body).encode())
    return Checkpoint(ChatFilter(answer.usage), followed, CAPABILITIES, keeps_ids=False, grammar=grammar)


def unbroken(answer: Answer) -> bytes:
    """What the client of a node is sent that no ids were asked of."""
    stream_filter = ChatFilter(answer.usage)
    return stream_filter.feed("".join(replace(answer, usage=True).chat(ids=False)).encode()) + stream_filter.flush()


def same(told: bytes | bytearray) -> bytes:
    """Without what two nodes' parts differ in."""
    lines = bytes(told).replace(b"\r\n", b"\n").replace(b"\r", b"\n").replace(COMMENT.encode(), b"")
    events = re.sub(rb"\n\n+", b"\n\n", lines)  # the end of a line may come in two pieces
    return re.sub(rb',"system_fingerprint":"\w+"', b"", events)


class Client:
    """Feeds a checkpoint in pieces, and gathers what it passes on."""

    def __init__(self, answer: Answer, grammar: bool = False) -> None:
        self.answer = answer
        self.checkpoint = checkpoint(answer, grammar)
        self.told = bytearray()

    def push(self, events: list[str], rng: Random | None, rest: bytes = b"") -> None:
        """Feed whole events in some pieces, then `rest` of one."""
        at, raw = 0, [event.encode() for event in events]
        while at < len(raw):
            alone = rng is None or rng.randint(0, 3) > 0
            size = 1 if rng is None else rng.randint(1, 4)
            if alone:
                self._push_chunk(raw[at])
                at += 1
                continue
            piece = b"".join(raw[at : at + size])
            at += size
            cut = rng.randint(0, len(piece)) if rng is not None else 0
            for part in (piece[:cut], piece[cut:]):
                if part:
                    self.told += self.checkpoint.feed(part)
        if rest:
            self.told += self.checkpoint.feed(rest)

    def _push_chunk(self, event: bytes) -> None:
        passed = self.checkpoint.pass_event(event)
        self.told += self.checkpoint.feed(event) if passed is None else passed

    def resume(self) -> FollowUpRequest | None:
        """Until the answer goes on: what the completions are asked. None where the answer has ended."""
        follow_up = self.checkpoint.resume(CAPABILITIES)
        while follow_up.path != COMPLETIONS:
            reply = self.answer.reply(*follow_up)
            self.told += self.checkpoint.feed(reply[:7]) + self.checkpoint.feed(reply[7:])
            self.told += self.checkpoint.flush()
            if self.checkpoint.ended:
                return None
            asked, self.checkpoint.follow_up = self.checkpoint.follow_up, None
            assert asked is not None
            follow_up = asked
        return follow_up


@st.composite
def answers(draw: st.DrawFn) -> Answer:
    ids = st.integers(300, 49_000)
    thought = draw(st.lists(ids, min_size=1, max_size=6))
    said = draw(st.lists(ids, min_size=1, max_size=6))
    tokens = [*thought, END, *said]
    finish = draw(st.sampled_from(["stop", "length"]))
    if finish == "stop":
        tokens.append(EOS)
    size = draw(st.sampled_from([1, 1, 2]))
    return Answer(tuple(tokens), finish, size, usage=draw(st.booleans()), counts=draw(st.booleans()))


KINDS = ("connection", "end", "error", "abort")


@given(answer=answers(), seed=st.integers(0, 1 << 32))
def test_an_answer_that_breaks_off_is_the_unbroken_one(answer: Answer, seed: int) -> None:
    rng = Random(seed)
    client = Client(answer)
    events = replace(answer, usage=True).chat(ids=True)
    for _ in range(rng.randint(1, 3)):
        events = [part for event in events for part in ([COMMENT, event] if rng.random() < 0.5 else [event])]
        if rng.random() < 0.5:
            events = [event.replace("\n", "\r\n") for event in events]
        if rng.randint(0, 4) == 0:
            break
        first = next(at for at, event in enumerate(events) if event.startswith("data"))
        cut = rng.randint(first + 1, len(events) - 1)
        kind = rng.choice(KINDS)
        begun = events[cut].encode()
        rest = begun[: rng.randint(0, len(begun) - 5)] if kind in ("connection", "end") else b""
        broken_off(client, events[:cut], rng, kind, rest)
        kept = client.checkpoint.tokens
        assert len(kept.shown) + len(kept.held) <= 8 * len(answer.tokens) + 16
        follow_up = client.resume()
        if follow_up is None:
            events = []
            break
        events = answer.completions(json.loads(follow_up.body))
    if events:
        client.push(events, rng)
        client.told += client.checkpoint.flush()
    assert client.checkpoint.ended
    assert same(client.told) == same(unbroken(answer))


def broken_off(client: Client, events: list[str], rng: Random | None, kind: str, rest: bytes = b"") -> None:
    """Feed `events`, and break the stream off behind them."""
    finished = any('"finish_reason":"' in event for event in events)
    if kind == "connection" or (kind == "abort" and finished):
        client.push(events, rng, rest)
    elif kind == "end":
        client.push(events, rng, rest)
        with pytest.raises(UpstreamCut):
            client.told += client.checkpoint.flush()
    elif kind == "error":
        with pytest.raises(NodeFailed):
            client.push([*events, ERROR], rng)
    else:
        with pytest.raises(UpstreamCut):
            client.push([*events, aborted(events)], rng)


def aborted(events: list[str]) -> str:
    chat = "chat.completion.chunk" in events[-1] or all("text_completion" not in event for event in events)
    said = '"delta":{}' if chat else '"text":""'
    choice = f'{{"index":0,{said},"logprobs":null,"finish_reason":"abort","stop_reason":null,"token_ids":null}}'
    return f'data: {{"id":"chatcmpl-1","object":"chat.completion.chunk","choices":[{choice}]}}\n\n'


@pytest.mark.parametrize("size", [1, 2, 3])
def test_a_line_behind_thinking_comes_once(size: int) -> None:
    """Its node's parser holds it for the next word; a continuation may send it before."""
    answer = replace(ANSWER, size=size)
    events = answer.chat(ids=True)
    for cut in range(1, len(events)):
        client = Client(answer)
        broken_off(client, events[:cut], None, "connection")
        follow_up = client.resume()
        if follow_up is not None:
            client.push(answer.completions(json.loads(follow_up.body)), None)
        assert content_of(client.told) == content_of(unbroken(answer)), cut


def content_of(told: bytes | bytearray) -> str:
    chunks = [json.loads(line[6:]) for line in bytes(told).splitlines() if line.startswith(b"data: {")]
    return "".join(choice["delta"].get("content") or "" for chunk in chunks for choice in chunk["choices"])


# The rows of the checkpoint's table that are not in the above

ANSWER = Answer((301, 302, END, LINE, 303, 304, EOS), "stop")


def test_text_without_ids_passes_and_cannot_go_on() -> None:
    client = Client(ANSWER)
    events = ANSWER.chat(ids=False)
    client.push(events[:4], None)
    assert not client.checkpoint.resumable
    client.push([ERROR], None)
    assert client.told == "".join([*events[:4], ERROR]).encode(), "not even an error is read"
    with pytest.raises(StreamLost) as lost:
        client.checkpoint.resume(CAPABILITIES)
    assert (lost.value.tokens, lost.value.repeatable) == (0, True)


def test_an_answer_of_which_nothing_came_is_asked_for_again() -> None:
    client = Client(ANSWER)
    client.push([COMMENT], None, b'data: {"id":"chatcmpl-1","obj')
    follow_up = client.checkpoint.resume(CAPABILITIES)
    assert follow_up.path == CHAT and json.loads(follow_up.body)["messages"] == BODY["messages"]
    client.push(ANSWER.chat(ids=True), None)
    assert same(client.told) == same(unbroken(ANSWER))


@pytest.mark.parametrize("form", ["data:{", ": comment\ndata: {", "\ndata: {", "event: chunk\ndata: {"])
def test_events_in_another_form_go_on(form: str) -> None:
    client = Client(ANSWER)
    client.push([event.replace("data: {", form) for event in ANSWER.chat(ids=True)[:4]], None)
    follow_up = client.resume()
    assert follow_up is not None
    client.push(ANSWER.completions(json.loads(follow_up.body)), None)
    assert content_of(client.told) == content_of(unbroken(ANSWER))


def test_another_prompt_is_lost() -> None:
    client = Client(ANSWER)
    client.push(ANSWER.chat(ids=True)[:4], None)
    client.checkpoint.resume(CAPABILITIES)
    client.checkpoint.feed(b'{"count":2,"max_model_len":4096,"tokens":[1,2]}')
    with pytest.raises(StreamLost) as lost:
        client.checkpoint.flush()
    assert lost.value.tokens == 3


@pytest.mark.parametrize("reply", [b"", b"[]", b'{"tokens":"1,2"}', b'{"tokens":[1,-2]}', b'{"tokens":[[1]]}'])
def test_a_tokenizer_that_tells_no_ids_is_lost(reply: bytes) -> None:
    client = Client(ANSWER)
    client.push(ANSWER.chat(ids=True)[:4], None)
    client.checkpoint.resume(CAPABILITIES)
    client.checkpoint.feed(reply)
    with pytest.raises(UpstreamError):
        client.checkpoint.flush()


def test_a_grammar_goes_on_until_the_answer_begins() -> None:
    events = ANSWER.chat(ids=True)
    for cut in range(2, len(events) - 2):
        client = Client(ANSWER, grammar=True)
        client.push(events[:cut], None)
        if any('"content":"\\n' in event for event in events[:cut]):
            with pytest.raises(StreamLost):
                client.checkpoint.resume(CAPABILITIES)
            continue
        follow_up = client.resume()
        assert follow_up is not None
        prompt = json.loads(follow_up.body)["prompt"]
        assert prompt[-1] != LINE, "what the client has nothing of is made again"


def test_nothing_is_asked_of_a_node_for_an_answer_that_is_whole() -> None:
    client = Client(ANSWER)
    client.push(ANSWER.chat(ids=True), None)
    assert client.checkpoint.ended
    client.push([ERROR], None)
    assert client.told.endswith((DONE + ERROR).encode()), "what follows the end breaks nothing off"


def test_what_is_kept_of_a_long_answer_is_small() -> None:
    answer = Answer((*range(10_000, 40_000), END, 303, EOS), "stop")
    client = Client(answer)
    client.push(answer.chat(ids=True)[:-3], None)
    kept = client.checkpoint.tokens
    assert len(kept.shown) + len(kept.held) <= 8 * kept.count
    assert kept.count > 30_000
