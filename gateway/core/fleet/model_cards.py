"""The models that a node says it serves: its `/v1/models` page, as far as it is believed."""

import re
from collections.abc import Mapping
from hashlib import blake2b
from typing import Any, NamedTuple

import orjson

MOST_CARDS = 1000
"""Models of one node, adapters included."""

LONGEST_WINDOW = 1 << 31
"""Tokens: a `max_model_len` beyond it is not believed."""

MOST_PAGES = 64
"""Different pages that are kept to be shared."""

_OF_THE_MOMENT = ("created", "permission")
"""A vLLM makes these anew for each page."""

MODEL_ID = re.compile(r"[^\x00-\x1f\x7f-\x9f\ud800-\udfff]{1,256}")
"""Every name that a node may give a model, blanks included."""


def read_cards(page: bytes) -> Mapping[str, Mapping[str, Any]]:
    """The node's cards by model id, each one that can be written as JSON again: clients are shown them.

    Raises ValueError where `page` is no list of models.
    """
    try:
        listed = orjson.loads(page)["data"]
    except (ValueError, KeyError, TypeError):
        listed = None
    if not isinstance(listed, list):
        raise ValueError("/v1/models answered something that is not a list of models")
    if len(listed) > MOST_CARDS:
        raise ValueError(f"/v1/models lists more than {MOST_CARDS} models")
    return {card["id"]: card for card in map(_card, listed)}


class ModelPage(NamedTuple):
    """Cards by model id, and a digest of what does not change from page to page."""

    cards: Mapping[str, Mapping[str, Any]]
    digest: str


class KnownCards:
    """Keeps the cards of pages that differ in nothing but when they were written: nodes of a fleet list the same
    models, and a card is 3 KB."""

    __slots__ = ("_pages",)

    def __init__(self) -> None:
        self._pages: dict[str, ModelPage] = {}
        """By their digests; the latest `MOST_PAGES`."""

    def read(self, page: bytes) -> ModelPage:
        """As `read_cards`; the result is shared."""
        cards = read_cards(page)
        lasting = [{name: card[name] for name in card if name not in _OF_THE_MOMENT} for card in cards.values()]
        digest = blake2b(orjson.dumps(lasting, option=orjson.OPT_SORT_KEYS), digest_size=8).hexdigest()
        known = self._pages.pop(digest, None) or ModelPage(cards, digest)
        while len(self._pages) >= MOST_PAGES:
            del self._pages[next(iter(self._pages))]
        self._pages[digest] = known
        return known


def _card(given: Any) -> Mapping[str, Any]:
    try:
        card = orjson.loads(orjson.dumps(given))  # no number that JSON has no word for, and not too deep to be written
        name = card["id"]
    except (ValueError, KeyError, TypeError):
        name = None
    if not isinstance(name, str) or not MODEL_ID.fullmatch(name):
        raise ValueError("/v1/models answered something that is not a list of models")
    window = card.get("max_model_len")
    if window is not None and not (type(window) is int and 0 < window <= LONGEST_WINDOW):
        card["max_model_len"] = None
    return dict(card)
