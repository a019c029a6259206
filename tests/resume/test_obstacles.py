"""When an answer cannot go on, and what is forgotten so that it can; a budget's backstop behind a checkpoint."""

import json
from typing import Any

import pytest

from gateway.core.budgets.assembly import AnswerAssembly
from gateway.core.budgets.backstop import Backstop
from gateway.core.budgets.continuation import budget_terms
from gateway.core.dialects.chat import ChatFilter
from gateway.core.errors import BadUpstreamResponse, StreamLost
from gateway.core.fleet.capabilities import Capabilities
from gateway.core.resume.answer_tokens import AnswerTokens
from gateway.core.resume.checkpoint import Checkpoint
from gateway.core.resume.followed_request import COMPLETIONS, FollowedRequest

CHAT = "/v1/chat/completions"
KNOWN = Capabilities(True, True, (0, 32), True, think_start=(5,), think_end=(7,), window=4096)
BODY: dict[str, Any] = {"model": "m", "stream": True, "messages": [{"role": "user", "content": "a"}]}
HEAD = b'data: {"id":"c","object":"chat.completion.chunk","created":1,"model":"m","choices":['
ROLE = (
    HEAD + b'{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}],"prompt_token_ids":[1,2]}\n\n'
)


def event(delta: dict[str, Any], ids: list[int] | None, finish: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish, "token_ids": ids}
    return HEAD + json.dumps(choice, separators=(",", ":")).encode() + b"]}\n\n"


def followed(inner: Any = None, known: Capabilities = KNOWN, grammar: bool = False, **fields: Any) -> Checkpoint:
    body = json.dumps({**BODY, **fields}).encode()
    return Checkpoint(inner or ChatFilter(True), FollowedRequest(CHAT, body), known, False, grammar)


CALL = {"tool_calls": [{"index": 0, "id": "x", "function": {"name": "f", "arguments": ""}}]}


@pytest.mark.parametrize(
    ("events", "grammar", "why"),
    [
        ([event({"content": "a"}, None)], False, "no token ids"),
        ([event({"content": "a"}, [9]), event(CALL, [10])], False, "a tool call has begun"),
        ([event({"content": "a"}, [9])], True, "a grammar bounds the answer"),
    ],
)
def test_an_answer_that_cannot_go_on_says_why(events: list[bytes], grammar: bool, why: str) -> None:
    checkpoint = followed(grammar=grammar)
    checkpoint.feed(ROLE)
    told = [checkpoint.resumable]
    checkpoint.feed(b"".join(events))
    assert [*told, checkpoint.resumable] == [True, False]
    with pytest.raises(StreamLost, match=why) as lost:
        checkpoint.check()
    assert lost.value.tokens == checkpoint.tokens.count and lost.value.repeatable


def test_a_stream_in_another_form_cannot_go_on() -> None:
    checkpoint = followed()
    checkpoint.feed(b'data: {"text":"not a chunk","token_ids":[1]}\n\n')
    with pytest.raises(StreamLost, match="cannot be read"):
        checkpoint.check()


def test_without_markers_nobody_guesses_what_comes() -> None:
    checkpoint = followed(known=Capabilities(splits_reasoning=True))
    checkpoint.feed(ROLE)
    with pytest.raises(StreamLost, match="begins with thinking"):
        checkpoint.check()
    checkpoint.feed(event({"reasoning": "a"}, [9]))
    checkpoint.check()


def test_a_finished_answer_needs_nothing_more_of_its_node() -> None:
    checkpoint = followed(grammar=True)
    checkpoint.feed(ROLE + event({"content": "a"}, [9]) + event({}, [2], "stop"))
    checkpoint.check()


def test_an_assembled_answer_begins_anew_behind_its_thinking() -> None:
    assembly = AnswerAssembly(ChatFilter(True), chat=True)
    checkpoint = followed(assembly)
    thought = event({"reasoning": "t"}, [8]) + event({}, [7])
    checkpoint.feed(ROLE + thought + event({"content": "half"}, [9]) + event(CALL, [10]))
    checkpoint.check()
    assert checkpoint.tokens.ids() == b"8,7"
    assert not AnswerAssembly(ChatFilter(True), chat=False).forget_answer(), "raw text has its thinking in it"


def test_a_request_of_which_nothing_came_is_sent_again() -> None:
    checkpoint = followed()
    again = checkpoint.resume(KNOWN)
    assert again.path == CHAT and json.loads(again.body) == BODY
    assert checkpoint.recomputed is None and not checkpoint.begun and checkpoint.generates and checkpoint.has_ids


def test_what_is_no_id_goes_to_no_other_node() -> None:
    tokens = AnswerTokens()
    tokens.show(b'1],"model":"other"')
    for read in (tokens.ids, lambda: tokens.behind(0, 0)):
        with pytest.raises(BadUpstreamResponse):
            read()


def test_ids_are_held_until_their_text_shows() -> None:
    tokens = AnswerTokens()
    tokens.hold(b"1,2")
    tokens.show(b"")
    tokens.hold(b"3")
    assert (tokens.ids(), tokens.made, tokens.drop_held(), tokens.made) == (b"1,2", 3, b"3", 2)
    assert tokens.cut_behind((9,)) == -1 and tokens.cut_behind(()) == -1
    assert tokens.cut_behind((1,)) == 1 and tokens.ids() == b"1"


def backstop(limit: int) -> Backstop:
    body = json.dumps(BODY).encode()
    return Backstop(lambda: budget_terms(body, limit, None, KNOWN, True), True, limit, 1.0)


def test_a_backstop_counts_the_thinking_that_passes_as_chunks() -> None:
    behind = backstop(3)
    checkpoint = followed(behind)
    thought = event({"reasoning": "t"}, [8])
    checkpoint.feed(ROLE + thought)
    for _ in range(2):
        assert checkpoint.pass_event(thought) is not None
    assert checkpoint.pass_event(thought) is None, "the budget is spent"
    checkpoint.feed(thought)
    assert checkpoint.follow_up is not None and behind.overran


def test_behind_thinking_a_backstop_counts_nothing() -> None:
    checkpoint = followed(backstop(1))
    answer = event({"content": "a"}, [9])
    checkpoint.feed(ROLE)
    checkpoint.feed(event({"reasoning": "t"}, [8]))
    checkpoint.feed(answer)
    for _ in range(5):
        assert checkpoint.pass_event(answer) is not None


def asked(checkpoint: Checkpoint) -> str:
    """The path of the follow-up, which is taken."""
    follow_up, checkpoint.follow_up = checkpoint.follow_up, None
    return "" if follow_up is None else follow_up.path


@pytest.mark.parametrize("alone", [True, False])
@pytest.mark.parametrize(
    ("deltas", "text"),
    [
        ([{"reasoning": "r"}, {"reasoning": "s"}, {"reasoning": "t", "content": "a"}], "rst</think>a"),
        ([{"content": "a"}, {"content": "b"}, {"content": "c"}], "</think>abc"),
    ],
)
def test_an_event_with_two_texts_is_known_from_one_with_one(
    alone: bool, deltas: list[dict[str, Any]], text: str
) -> None:
    """A parser says both in one event at the end of thinking, which begins and ends as an event of thinking."""
    checkpoint = followed()
    checkpoint.feed(ROLE)
    for at, delta in enumerate(deltas):
        told = event(delta, [20 + at, 30 + at])
        if not alone or checkpoint.pass_event(told) is None:
            checkpoint.feed(told)
    assert checkpoint.resume(KNOWN).path == "/tokenize"
    checkpoint.feed(b'{"tokens":[1,2]}')
    checkpoint.flush()
    assert asked(checkpoint) == "/detokenize"
    checkpoint.feed(json.dumps({"prompt": text + " d"}).encode())
    assert checkpoint.flush() == b""
    assert asked(checkpoint) == COMPLETIONS


@pytest.mark.parametrize("last", [b"word", b"wor\xff", b'\\"'])
def test_the_last_text_is_compared_with_the_text_of_the_tokens(last: bytes) -> None:
    """It is kept as it stands in the event."""
    checkpoint = followed()
    checkpoint.feed(ROLE + event({"reasoning": "a"}, [20, 21]))
    assert checkpoint.pass_event(event({"reasoning": "LAST"}, [22, 23]).replace(b"LAST", last)) is not None
    checkpoint.resume(KNOWN)
    checkpoint.feed(b'{"tokens":[1,2]}')
    checkpoint.flush()
    checkpoint.follow_up = None
    checkpoint.feed(json.dumps({"prompt": "a" + "x" * len(last)}).encode())
    if last == b"wor\xff":  # no text: nothing to compare with
        checkpoint.flush()
        return
    with pytest.raises(StreamLost, match="not the text of its tokens"):
        checkpoint.flush()


def test_raw_text_of_a_prompt_of_ids_is_continued_at_once() -> None:
    request = FollowedRequest(
        COMPLETIONS, b'{"model":"m","stream":true,"prompt":[[1,2]],"max_tokens":9,"min_tokens":4}'
    )
    checkpoint = Checkpoint(ChatFilter(True), request, KNOWN, False, False)
    choice = '{"index":0,"text":"a","logprobs":null,"finish_reason":null,"stop_reason":null,"prompt_token_ids":null'
    checkpoint.feed(b'data: {"id":"c","choices":[%b,"token_ids":[9]}]}\n\n' % choice.encode())
    sent = json.loads(checkpoint.resume(KNOWN).body)
    assert (sent["prompt"], sent["max_tokens"], sent["min_tokens"]) == ([1, 2, 9], 8, 3)
    assert sent["skip_special_tokens"] is True
