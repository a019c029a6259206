"""A budget held by the gateway, in the shapes of streams that are not every day's."""

import json
from typing import Any

import pytest

from gateway.core.budgets.continuation import BudgetTerms, opening_request
from gateway.core.budgets.enforcement import Enforcement
from gateway.core.dialects.stream_filter import STOP
from gateway.core.errors import UpstreamCut
from gateway.core.fleet.capabilities import Capabilities
from gateway.core.usage.token_usage import Usage

KNOWN = Capabilities(think_start=(7,), think_end=(8,), window=1000)
FRAME = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m"}
BODY: dict[str, Any] = {"model": "m", "stream": True, "stream_options": {"include_usage": True}}
DONE = b"data: [DONE]\n\n"


def compact(value: Any) -> bytes:
    """As nodes write it: they are known by their bytes."""
    return json.dumps(value, separators=(",", ":")).encode()


def event(choice: dict[str, Any] | None, **more: Any) -> bytes:
    choices = [] if choice is None else [{"index": 0, **choice}]
    return b"data: " + compact({**FRAME, "choices": choices, **more}) + b"\n\n"


def delta(ids: list[int] | None = None, finish: str | None = None, **fields: Any) -> bytes:
    return event({"delta": fields, "logprobs": None, "finish_reason": finish, "token_ids": ids})


def text(said: str, ids: list[int] | None = None, finish: str | None = None, **more: Any) -> bytes:
    return event({"text": said, "logprobs": None, "finish_reason": finish, "token_ids": ids, **more})


def terms(
    budget: int, chat: bool = True, capabilities: Capabilities = KNOWN, hide: bool = False, **fields: Any
) -> BudgetTerms:
    asked: dict[str, Any] = {"messages": []} if chat else {"prompt": "x"}
    body = {**BODY, **asked, **fields}
    return opening_request(body, chat, budget, 50, capabilities, stream=True, hide=hide)[0]


def told(stream: bytes) -> list[dict[str, Any]]:
    return [json.loads(line[6:]) for line in stream.split(b"\n\n") if line.startswith(b"data: {")]


OPENING = event({"delta": {"role": "assistant", "content": ""}, "finish_reason": None}, prompt_token_ids=[1, 2, 7])


def test_an_error_of_the_node_passes_and_is_a_failure() -> None:
    watch = Enforcement(terms(5))
    error = b'data: {"error":{"message":"no","code":500}}\n\n'
    assert watch.feed(error) == error
    assert watch.failed


def test_an_answer_that_the_node_gave_up_is_half_of_one() -> None:
    watch = Enforcement(terms(5))
    watch.feed(OPENING)
    with pytest.raises(UpstreamCut):
        watch.feed(delta([9], "abort", content="x"))


def test_comments_pass() -> None:
    assert Enforcement(terms(5)).feed(b": ping\n\n") == b": ping\n\n"


def test_a_client_that_wants_usage_all_along_gets_the_prompts_with_the_first_chunk() -> None:
    options = {"include_usage": True, "continuous_usage_stats": True}
    watch = Enforcement(terms(5, stream_options=options))
    [first] = told(watch.feed(OPENING))
    assert (first["usage"]["prompt_tokens"], first["usage"]["completion_tokens"]) == (3, 0)


def test_usage_that_says_no_thinking_is_completed_and_hidden_from_who_did_not_ask() -> None:
    usage = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
    for wanted in (True, False):
        watch = Enforcement(terms(5, stream_options={"include_usage": wanted}))
        watch.feed(OPENING + delta([9], reasoning="hm"))
        passed = told(watch.feed(event(None, usage=usage) + DONE))
        assert watch.usage == Usage(3, 2, 1, None)
        assert [chunk["usage"]["completion_tokens_details"] for chunk in passed] == [{"reasoning_tokens": 1}] * wanted


def test_usage_that_says_how_much_was_thinking_is_believed() -> None:
    watch = Enforcement(terms(5))
    watch.feed(OPENING)
    details = {"completion_tokens_details": {"reasoning_tokens": 4}}
    passed = told(watch.feed(event(None, usage={"prompt_tokens": 3, "completion_tokens": 9, **details})))
    assert passed[0]["usage"]["completion_tokens_details"] == {"reasoning_tokens": 4}


def test_a_chunk_without_choices_and_usage_passes() -> None:
    watch = Enforcement(terms(5))
    assert told(watch.feed(event(None, note="x"))) == [{**FRAME, "choices": [], "note": "x"}]


def test_raw_text_is_continued_behind_a_marker_that_the_client_sees() -> None:
    """In completions the client splits the text itself, so it needs the marker where it would have stood."""
    watch = Enforcement(terms(2, chat=False, skip_special_tokens=False))
    watch.feed(event({"text": "", "finish_reason": None, "prompt_token_ids": [1, 2, 7]}))
    passed = watch.feed(text("one", [101])) + watch.feed(text(" two", [102])) + watch.feed(text(" three", [103]))
    assert "".join(chunk["choices"][0]["text"] for chunk in told(passed)) == "one two</think>"
    assert watch.follow_up is not None and json.loads(watch.follow_up.body)["prompt"] == [1, 2, 7, 101, 102, 8]
    watch.follow_up = None
    assert watch.feed(text("")) == b"", "nothing was said"
    [answer] = told(watch.feed(text(" answer", finish="stop", stop_reason=9)))
    assert answer["id"] == "c", "the client's stream goes on"
    choice = answer["choices"][0]
    assert (choice["text"], choice["finish_reason"], choice["stop_reason"]) == (" answer", "stop", 9)


def test_token_ids_go_on_with_the_continuation_for_who_asked_for_them() -> None:
    watch = Enforcement(terms(1, return_token_ids=True))
    [first] = told(
        watch.feed(event({"delta": {"role": "assistant"}, "prompt_token_ids": None}, prompt_token_ids=[1, 7]))
    )
    assert first["prompt_token_ids"] == [1, 7]
    [thought] = told(watch.feed(delta([101], reasoning="one")))
    assert thought["choices"][0]["token_ids"] == [101]
    watch.feed(delta([102], reasoning=" two"))
    assert watch.follow_up is not None and json.loads(watch.follow_up.body)["return_token_ids"] is True
    watch.follow_up = None
    [answer] = told(watch.feed(text("hi", [200])))
    assert (answer["choices"][0]["delta"], answer["choices"][0]["token_ids"]) == ({"content": "hi"}, [200])


def test_without_the_markers_ids_the_answer_ends_at_its_budget() -> None:
    watch = Enforcement(terms(1, capabilities=Capabilities()))
    passed = watch.feed(OPENING + delta([101], reasoning="one")) + watch.feed(delta([102, 103], reasoning=" two"))
    assert watch.follow_up is STOP and watch.ended and watch.wasted == 2
    assert [chunk["choices"][0]["finish_reason"] for chunk in told(passed) if chunk["choices"]][-1] == "length"
    assert watch.usage is not None and watch.usage.reasoning == 1


def test_hidden_thinking_is_counted_and_not_shown() -> None:
    watch = Enforcement(terms(5, hide=True))
    passed = watch.feed(OPENING + delta([101], reasoning="one") + delta([102], reasoning_content=" two"))
    passed += watch.feed(delta([8, 200], content="hi") + delta([], "stop"))
    assert b"one" not in passed and b"two" not in passed
    assert [chunk["choices"][0]["delta"].get("content") for chunk in told(passed)][-2:] == ["hi", None]
    watch.feed(event(None, usage={"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}) + DONE)
    assert watch.usage == Usage(3, 4, 2, None)


@pytest.mark.parametrize("count", range(7))
def test_tokens_that_are_made_again_count_once(count: int) -> None:
    """They are the last ones; the marker that begins thinking is none of it."""
    watch = Enforcement(terms(5, capabilities=Capabilities(think_start=(6,), think_end=(8,), window=1000)))
    watch.feed(event({"delta": {"role": "assistant", "content": ""}, "finish_reason": None}, prompt_token_ids=[1, 2]))
    ids = [6, 31, 32, 33, 34, 35]
    watch.feed(delta(ids[:2], reasoning="a") + delta(ids[2:5]) + delta(ids[5:], reasoning="b"))
    assert watch.thought == 5
    assert watch.forget_tokens(ids[6 - count :])
    assert watch.thought == 5 - min(count, 5)
    if count == 6:  # the marker was made again, too
        return
    left = ids[: 6 - count]
    watch.feed(b"".join(delta([made], reasoning="c") for made in range(41, 41 + count)))
    watch.feed(delta([99], reasoning="beyond"))
    assert watch.follow_up is not None
    prompt = json.loads(watch.follow_up.body)["prompt"]
    assert prompt[2:] == [*left, *range(41, 41 + count), 8]


@pytest.mark.parametrize(
    ("made", "shown"),
    [([[32], [33, 34]], [[34]]), ([[32, 40]], [[40]]), ([[40], [33]], [[40], [33]]), ([[32], [33]], [])],
)
def test_a_client_gets_the_ids_of_tokens_that_are_made_again_once(
    made: list[list[int]], shown: list[list[int]]
) -> None:
    """It keeps those that are drawn otherwise, of which the answer does not go on."""
    known = Capabilities(think_start=(6,), think_end=(8,), window=1000)
    watch = Enforcement(terms(4, capabilities=known, return_token_ids=True))
    watch.feed(OPENING + delta([31], reasoning="a") + delta([32]) + delta([33]))
    assert watch.forget_tokens([32, 33])
    assert watch.thought == 1
    passed = watch.feed(b"".join(map(delta, made)))
    ids = [31, *(each for some in made for each in some)]
    assert [chunk["choices"][0]["token_ids"] for chunk in told(passed)] == shown
    assert watch.thought == len(ids)
    watch.feed(b"".join(delta([99], reasoning="beyond") for _ in range(3)))
    assert watch.follow_up is not None
    assert json.loads(watch.follow_up.body)["prompt"][3 : 3 + len(ids)] == ids


def test_ids_of_the_answer_that_are_made_again_come_once() -> None:
    watch = Enforcement(terms(0, return_token_ids=True))
    watch.feed(OPENING + delta([31], reasoning="beyond"))
    assert watch.follow_up is not None
    watch.follow_up = None
    watch.feed(text("a", [50]) + text("", [51]))
    assert watch.forget_tokens([51])
    assert [chunk["choices"][0]["token_ids"] for chunk in told(watch.feed(text("", [51]) + text("b", [52])))] == [[52]]


def test_an_answer_has_no_thinking_to_forget() -> None:
    watch = Enforcement(terms(5))
    watch.feed(OPENING + delta([31], reasoning="a") + delta([8, 50], content="b"))
    assert (watch.forget_tokens([50]), watch.thought) == (True, None)
