"""An answer is read to its end and no further, whichever way its bytes are cut."""

import pytest

from loadtest import answers
from loadtest.reader import Answer

EVENTS = 3


def streamed() -> bytes:
    template = answers.template("chatcmpl-1", "reasoning", True)
    events = b"".join(template.at(micros) for micros in range(EVENTS))
    return answers.opening("chatcmpl-1", True) + events + answers.closing("chatcmpl-1", EVENTS + 1, True, True)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, 10_000])
def test_a_stream_in_pieces(size: int) -> None:
    data, answer = streamed(), Answer()
    pieces = [data[at : at + size] for at in range(0, len(data), size)]
    ends = [answer.feed(piece) for piece in pieces]
    assert ends == [False] * (len(pieces) - 1) + [True]
    assert (answer.status, answer.events, answer.done) == (200, EVENTS, True)


@pytest.mark.parametrize("size", [1, 5, 100, 10_000])
def test_a_plain_answer_in_pieces(size: int) -> None:
    data, answer = answers.plain(False), Answer()
    pieces = [data[at : at + size] for at in range(0, len(data), size)]
    assert [answer.feed(piece) for piece in pieces] == [False] * (len(pieces) - 1) + [True]
    assert answer.status == 200


def test_a_stream_without_done_is_told_apart() -> None:
    answer = Answer()
    assert answer.feed(answers.STREAM_HEAD + answers.chunk(b"data: {}\n\n") + answers.LAST_CHUNK)
    assert not answer.done


def test_an_error_keeps_its_status() -> None:
    answer = Answer()
    assert answer.feed(answers.response(503, b"{}"))
    assert answer.status == 503


def test_an_empty_body_ends_with_its_head() -> None:
    assert Answer().feed(answers.response(200, b""))
