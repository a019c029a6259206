"""Where thinking stands, by token ids and by the markers in raw text."""

import pytest

from gateway.core.budgets.split import TextSplit

START, END = 7, 8


@pytest.mark.parametrize(
    ("ids", "thought", "expected"),
    [
        (None, True, 1),
        (None, False, 0),
        ([], True, 0),
        ([1, 2, 3], True, 3),
        ([START, 1, 2], True, 2),
        ([1, 2, END], True, 2),
        ([1, END, 3, 4], True, 1),
        ([START, 1, END, 3], True, 1),
        ([END], True, 0),
    ],
)
def test_tokens_of_thinking_are_those_before_the_end_marker(
    ids: list[int] | None, thought: bool, expected: int
) -> None:
    assert TextSplit((START,), (END,)).count(ids, thought) == expected


@pytest.mark.parametrize("markers", [(), (START, START)])
def test_a_marker_that_is_not_one_token_is_not_looked_for_among_the_ids(markers: tuple[int, ...]) -> None:
    split = TextSplit(markers, markers)
    assert not split.starts([START]) and not split.ends([START])
    assert split.count([1, START, 2], True) == 3


@pytest.mark.parametrize(
    ("prompt", "opened"),
    [(b"1,2,7", True), (b"7,1,8", False), (b"8,1,7,2", True), (b"1,2", False), (b"17,78", False), (b"", False)],
)
def test_a_prompt_ends_in_thinking_where_it_was_opened_last(prompt: bytes, opened: bool) -> None:
    assert TextSplit((START,), (END,)).opened_by(prompt) is opened


def test_a_text_that_opens_with_the_marker_is_thinking_whatever_pieces_it_comes_in() -> None:
    split = TextSplit((), ())
    assert split.feed("\n<th", None, False, False) == ("", "", False)
    assert split.feed("ink>hm </th", None, False, False) == ("hm ", "", False)
    assert split.feed("ose", None, True, False) == ("</those", "", False)
    assert split.feed("</think>hi", None, True, False) == ("", "hi", True)


def test_a_text_that_does_not_open_with_it_is_the_answer() -> None:
    split = TextSplit((), ())
    assert split.feed(" ", None, False, False) == ("", "", False)
    assert split.feed("<the>", None, False, False) == ("", " <the>", True)


def test_the_last_piece_lets_nothing_wait() -> None:
    assert TextSplit((), ()).feed("<thi", None, False, True) == ("", "<thi", True)
    assert TextSplit((), ()).feed("hm </thi", None, True, True) == ("hm </thi", "", False)


def test_markers_that_are_tokens_are_known_where_the_text_does_not_show_them() -> None:
    split = TextSplit((START,), (END,))
    assert split.feed("hm", [START, 1], False, False) == ("hm", "", False)
    assert split.feed("", [END], True, False) == ("", "", True)


def test_what_waits_for_its_rest_is_given_once() -> None:
    split = TextSplit((), ())
    split.feed("hm </th", None, True, False)
    assert split.flush() == "</th"
    assert split.flush() == ""
