"""Continuations from nodes that do not do as vLLM does: nothing of it reaches the client as a whole answer."""

import json
from typing import Any

import pytest

from gateway.core.dialects.chat import Chat
from gateway.core.errors import BadUpstreamResponse, UpstreamCut
from gateway.core.resume.checkpoint import Checkpoint
from gateway.core.resume.followed_request import FollowedRequest
from tests.resume.plain_node import PROMPT
from tests.resume.test_exact_text import CHAT, KNOWN, Passing

pytestmark = pytest.mark.source_only("its filters inherit from a compiled class")

BODY = {"model": "m", "messages": [{"role": "user", "content": "a"}], "stream": True, "max_tokens": 100}
DONE = b"data: [DONE]\n\n"


def event(chunk: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(chunk, separators=(",", ":")).encode() + b"\n\n"


def said(text: str, ids: list[int], finish: str | None = None) -> bytes:
    choice = {"index": 0, "text": text, "logprobs": None, "finish_reason": finish, "stop_reason": None}
    return event({"id": "y", "choices": [{**choice, "prompt_token_ids": None, "token_ids": ids}]})


def used(prompt: Any, made: Any) -> bytes:
    return event({"id": "y", "choices": [], "usage": {"prompt_tokens": prompt, "completion_tokens": made}})


def broken_off(held: tuple[int, ...] = ()) -> Checkpoint:
    """An answer of which three tokens have come, and that another node goes on with now. `held`: tokens without text,
    which the client has the ids of."""
    followed = FollowedRequest(CHAT, json.dumps({**BODY, "return_token_ids": True}).encode())
    checkpoint = Checkpoint(Passing(), followed, KNOWN, bool(held), False)
    head = {"id": "x", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    role = {"index": 0, "delta": {"role": "assistant", "content": ""}, "logprobs": None, "finish_reason": None}
    checkpoint.feed(event({**head, "choices": [role], "prompt_token_ids": PROMPT}))
    for token in (21, 22, 23):
        choice = {"index": 0, "delta": {"reasoning": "a"}, "logprobs": None, "finish_reason": None}
        checkpoint.feed(event({**head, "choices": [{**choice, "token_ids": [token]}]}))
    for token in held:
        checkpoint.feed(event({**head, "choices": [{**choice, "delta": {}, "token_ids": [token]}]}))
    assert checkpoint.resume(KNOWN).path == "/tokenize"
    checkpoint.feed(json.dumps({"tokens": PROMPT}).encode())
    checkpoint.flush()
    for known in range(len(held), -1, -1):
        checkpoint.feed(json.dumps({"prompt": "aaa" + "\ufffd" * bool(known)}).encode())
        checkpoint.flush()
    assert checkpoint.follow_up is not None and checkpoint.follow_up.path == "/v1/completions"
    checkpoint.follow_up = None
    return checkpoint


@pytest.mark.parametrize("events", [[], [said("b", [24])], [used(7, 0)]], ids=["nothing", "text", "usage"])
def test_an_end_without_a_finish_reason_is_none(events: list[bytes]) -> None:
    checkpoint = broken_off()
    with pytest.raises(UpstreamCut):
        checkpoint.feed(b"".join([*events, DONE]))
    assert not checkpoint.ended
    assert checkpoint.resume(KNOWN).path == "/tokenize"


def test_nothing_comes_behind_the_end() -> None:
    passed = broken_off().feed(said("b", [24], "stop") + DONE + said("late", [25]) + DONE)
    assert passed.count(b"[DONE]") == 1 and passed.endswith(DONE) and b"late" not in passed


@pytest.mark.parametrize("made", [-300, "1", None, 10**30, 1.0])
def test_usage_that_is_none_is_counted_by_the_tokens(made: Any) -> None:
    passed = broken_off().feed(said("b", [24], "stop") + used(10, made) + DONE)
    usage = json.loads(passed.split(b"\n\n")[-3][6:])["usage"]
    assert (usage["prompt_tokens"], usage["completion_tokens"], usage["total_tokens"]) == (len(PROMPT), 4, 8)


def test_a_tokenizer_shows_no_life_of_its_engine() -> None:
    followed = FollowedRequest(CHAT, json.dumps({**BODY, "return_token_ids": True}).encode())
    checkpoint = Checkpoint(Passing(), followed, KNOWN, False, False)
    checkpoint.feed(event({"id": "x", "choices": [{"index": 0, "delta": {"reasoning": "a"}, "token_ids": [21]}]}))
    asked = [(checkpoint.resume(KNOWN).path, checkpoint.generates)]
    for told in ({"tokens": PROMPT}, {"prompt": "a"}):
        checkpoint.feed(json.dumps(told).encode())
        checkpoint.flush()
        assert checkpoint.follow_up is not None
        asked.append((checkpoint.follow_up.path, checkpoint.generates))
    assert asked == [("/tokenize", False), ("/detokenize", False), ("/v1/completions", True)]


@pytest.mark.parametrize("ids", ['"1"', "1],2", '1,"x":{', "-1", "1.5", "1,,2", "1 ,2"])
def test_ids_that_are_none_go_into_no_request(ids: str) -> None:
    """Nearly every event is read by its bytes; what stands for the ids there may be anything."""
    followed = FollowedRequest(CHAT, json.dumps({**BODY, "return_token_ids": True}).encode())
    checkpoint = Checkpoint(Passing(), followed, KNOWN, False, False)
    checkpoint.feed(event({"id": "x", "choices": [{"index": 0, "delta": {"reasoning": "a"}, "token_ids": [21]}]}))
    text = '{"index":0,"delta":{"reasoning":"a"},"logprobs":null,"finish_reason":null,"token_ids":['
    for told in ("21", ids):
        sent = f'data: {{"id":"x","choices":[{text}{told}]}}]}}\n\n'.encode()
        if checkpoint.pass_event(sent) is None:
            checkpoint.feed(sent)
    assert checkpoint.resume(KNOWN).path == "/tokenize"
    checkpoint.feed(json.dumps({"tokens": PROMPT}).encode())
    with pytest.raises(BadUpstreamResponse):
        checkpoint.flush()


def test_no_ids_reach_a_client_where_only_some_events_have_them() -> None:
    raw = json.dumps({**BODY, "return_token_ids": True}).encode()
    inner = Chat().stream_filter(Chat().read(json.dumps(BODY).encode()))
    checkpoint = Checkpoint(inner, FollowedRequest(CHAT, raw), KNOWN, False, False)
    head = 'data: {"id":"x","choices":[{"index":0,"delta":{"reasoning":"a"},"logprobs":null,"finish_reason":null'
    passed = []
    for ids in ("", ',"token_ids":[21]', ',"x":1,"token_ids":[22]', ',"token_ids":[23],"x":1'):
        sent = f"{head}{ids}}}]}}\n\n".encode()
        told = checkpoint.pass_event(sent)
        passed.append(checkpoint.feed(sent) if told is None else told)
    assert all(passed) and not any(b'"token_ids":[' in told for told in passed)


@pytest.mark.parametrize(
    ("made", "passed"),
    [
        ([[31], [32], [33]], [[], [], [33]]),
        ([[31, 32, 33]], [[33]]),
        ([[31], [32, 33, 34]], [[], [33, 34]]),
        ([[31, 40]], [[40]]),
        ([[40, 31]], [[40, 31]]),
        ([[31], [40], [32]], [[], [40], [32]]),
    ],
)
def test_a_client_gets_the_ids_that_are_made_again_once(made: list[list[int]], passed: list[list[int]]) -> None:
    """As far as they are the same: it keeps what it has."""
    checkpoint = broken_off(held=(31, 32))
    told = checkpoint.feed(b"".join(said("b", ids) for ids in made)).split(b"\n\n")
    chunks = [json.loads(each[6:]) for each in told if each.startswith(b"data: {")]
    assert [each["choices"][0]["token_ids"] for each in chunks] == passed
    assert checkpoint.tokens.ids() == b"21,22,23," + ",".join(str(each) for ids in made for each in ids).encode()


def test_a_client_gets_ids_once_over_two_breaks() -> None:
    checkpoint = broken_off(held=(31, 32))
    checkpoint.feed(said("", [31]))
    assert checkpoint.resume(KNOWN).path == "/tokenize"
    checkpoint.feed(json.dumps({"tokens": PROMPT}).encode())
    checkpoint.flush()
    assert checkpoint.follow_up is not None and checkpoint.follow_up.path == "/v1/completions"
    told = checkpoint.feed(said("", [31]) + said("b", [32, 33]))
    assert b"31" not in told and b'"token_ids":[33]' in told


def test_the_ids_of_thinking_are_with_its_text() -> None:
    """One event of a continuation may have the end of thinking and the beginning of the answer."""
    checkpoint = broken_off(held=(31,))
    told = checkpoint.feed(said("b</think>c", [31, 32, *KNOWN.think_end, 40])).split(b"\n\n")
    choices = [json.loads(each[6:])["choices"][0] for each in told if each]
    assert [(each["delta"], each["token_ids"]) for each in choices] == [
        ({"reasoning": "b"}, [32]),
        ({"content": "c"}, [*KNOWN.think_end, 40]),
    ]
