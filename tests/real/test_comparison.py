"""The comparison itself: what it has to see, and the little that it may not. Needs no vLLM."""

import httpx
import pytest

from tests.real.answers import Answer, difference, read_answer
from tests.real.merging import merged

STREAM = "text/event-stream; charset=utf-8"
PLAIN = '{"id":"chatcmpl-ace3f9a2d78ff27f","created":1,"model":"m","usage":{"total_tokens":3},"logprob":-0.50}'


def plain(text: str) -> Answer:
    return read_answer(httpx.Response(200, headers={"content-type": "application/json"}, text=text))


def chunk(text: str, ids: str, rest: str = '"finish_reason":null') -> str:
    choice = f'{{"index":0,"text":"{text}",{rest},"token_ids":[{ids}]}}'
    return f'data: {{"id":"cmpl-8874dfbc9b1a65db","choices":[{choice}]}}\n\n'


def stream(*parts: str) -> Answer:
    return read_answer(httpx.Response(200, headers={"content-type": STREAM}, text="".join(parts)))


def test_ids_and_times_do_not_count() -> None:
    """Their form does."""
    other = PLAIN.replace("ace3f9a2d78ff27f", "0123456789abcdef").replace('"created":1', '"created":2')
    assert not difference(plain(PLAIN), plain(other))
    assert difference(plain(PLAIN), plain(PLAIN.replace("chatcmpl-", "cmpl-")))


@pytest.mark.parametrize(
    "changed",
    [
        PLAIN.replace('"model":"m",', ""),
        PLAIN.replace('"total_tokens":3', '"total_tokens":4'),
        PLAIN.replace("-0.50", "-0.5"),
        PLAIN.replace('"created":1,"model":"m"', '"model":"m","created":1'),
        PLAIN.replace('"created":1', '"created":null'),
    ],
    ids=["lost field", "value", "digits", "order", "null for a time"],
)
def test_everything_else_counts(changed: str) -> None:
    """Down to the digits of a number."""
    assert difference(plain(PLAIN), plain(changed))


def test_references_between_ids_count() -> None:
    """An event that refers to another item than the node's did is a difference, whatever the ids are."""
    items = 'data: {"item":{"id":"msg_0000000000000001"}}\n\ndata: {"item_id":"msg_000000000000000%s"}\n\n'
    assert difference(stream(items % 1), stream(items % 2))


def test_comments_do_not_count() -> None:
    """They are no events."""
    assert not difference(stream(chunk("a", "1")), stream(": keep-alive\n\n", chunk("a", "1"), ": keep-alive\n\n"))


def test_another_cut_is_another_stream_with_the_same_meaning() -> None:
    """vLLM puts tokens together when it is busy, the last one with the finish, too."""
    end = '"finish_reason":"stop"'
    one = stream(chunk("a", "1"), chunk("b", "2"), chunk("c", "3", end), "data: [DONE]\n\n")
    other = stream(chunk("a", "1"), chunk("bc", "2,3", end), "data: [DONE]\n\n")
    assert difference(one, other)
    assert not difference(merged(one), merged(other))


@pytest.mark.parametrize(
    "damaged",
    [
        (chunk("ab", "1,2"), "data: [DONE]\n\n"),
        (chunk("a", "1"), chunk("b", "3"), "data: [DONE]\n\n"),
        (chunk("a", "1"), chunk("b", "2"), chunk("b", "2"), "data: [DONE]\n\n"),
        (chunk("a", "1"), chunk("b", "2")),
        (chunk("a", "1"), chunk("b", "2", '"finish_reason":"length"'), "data: [DONE]\n\n"),
    ],
    ids=["same meaning", "token id", "event twice", "no end", "reason"],
)
def test_merging_hides_no_damage(damaged: tuple[str, ...], request: pytest.FixtureRequest) -> None:
    """Only the first of these is fair."""
    whole = stream(chunk("a", "1"), chunk("b", "2"), "data: [DONE]\n\n")
    is_fair = "same meaning" in request.node.name
    assert bool(difference(merged(whole), merged(stream(*damaged)))) is not is_fair


def test_a_stream_that_ends_inside_an_event_is_no_answer() -> None:
    """Cut is cut."""
    with pytest.raises(AssertionError, match="inside an event"):
        stream(chunk("a", "1")[:-1])
