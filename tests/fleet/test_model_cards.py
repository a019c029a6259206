"""A node's /v1/models page, as far as it is believed."""

import json
from typing import Any

import pytest

from gateway.core.fleet.model_cards import LONGEST_WINDOW, MOST_CARDS, MOST_PAGES, KnownCards, read_cards


def page(*cards: Any) -> bytes:
    return json.dumps({"object": "list", "data": cards}).encode()


def test_cards_are_kept_whole_by_their_id() -> None:
    one = {"id": "m", "object": "model", "max_model_len": 4096, "permission": [{"x": None}]}
    adapter = {"id": "m-adapter", "parent": "m"}
    assert read_cards(page(one, adapter)) == {"m": one, "m-adapter": adapter}
    assert read_cards(page()) == {}


@pytest.mark.parametrize("window", [0, -1, "4096", 4096.0, True, LONGEST_WINDOW + 1, []])
def test_a_window_that_cannot_be_is_not_believed(window: object) -> None:
    assert read_cards(page({"id": "m", "max_model_len": window}))["m"]["max_model_len"] is None


@pytest.mark.parametrize("window", [1, LONGEST_WINDOW, None])
def test_a_window_that_can_be_is(window: int | None) -> None:
    assert read_cards(page({"id": "m", "max_model_len": window}))["m"]["max_model_len"] == window


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"no JSON",
        b"[]",
        b"{}",
        b'{"data": null}',
        b'{"data": {"id": "m"}}',
        page("m"),
        page({"object": "model"}),
        page({"id": 1}),
        page({"id": ""}),
        page({"id": "a\nb"}),
        page({"id": "a" * 257}),
        page({"id": "good"}, None),
    ],
)
def test_what_is_no_list_of_models_is_refused(answer: bytes) -> None:
    with pytest.raises(ValueError, match="not a list of models"):
        read_cards(answer)


def test_more_cards_than_a_node_can_have_are_refused() -> None:
    cards = [{"id": f"m{number}"} for number in range(MOST_CARDS + 1)]
    assert len(read_cards(page(*cards[:-1]))) == MOST_CARDS
    with pytest.raises(ValueError, match="more than 1000"):
        read_cards(page(*cards))


def test_cards_that_differ_in_the_moment_alone_are_kept_once() -> None:
    known = KnownCards()
    first = known.read(page({"id": "m", "created": 1, "permission": [{"id": "p1"}]}))
    assert known.read(page({"id": "m", "created": 2, "permission": [{"id": "p2"}]})) is first
    assert known.read(page({"id": "m", "created": 2, "max_model_len": 5})).cards == {
        "m": {"id": "m", "created": 2, "max_model_len": 5}
    }
    for number in range(3 * MOST_PAGES):
        known.read(page({"id": f"m{number}"}))
    assert len(known._pages) == MOST_PAGES
