"""The settings of kept responses: what is refused, what is doubted, and where nothing is kept."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from gateway.app import build_app
from gateway.config.doubts import find_doubts
from gateway.config.tree import Config

REDIS: dict[str, Any] = {"redis": {"url": "redis://127.0.0.1:1"}}
SEALED: dict[str, Any] = {**REDIS, "response_secret": "a secret that is long enough, 7f3c"}


def problems(**settings: Any) -> str:
    with pytest.raises(ValidationError) as refused:
        Config(**settings)
    return str(refused.value)


def test_they_are_kept_where_they_can_be() -> None:
    assert build_app(Config(**SEALED)).kept is not None
    for settings in ({}, REDIS, {"response_secret": "x"}, {**SEALED, "responses": {"stored": False}}):
        assert build_app(Config(**settings)).kept is None


def test_what_is_asked_for_and_cannot_be_is_refused_with_the_remedy() -> None:
    asked: dict[str, Any] = {"responses": {"stored": True}}
    assert "set redis.url (FLEETGATE_REDIS__URL)" in problems(**asked)
    assert "set response_secret (FLEETGATE_RESPONSE_SECRET)" in problems(**asked, **REDIS)
    assert build_app(Config(**asked, **SEALED)).kept is not None


def test_bounds_that_contradict_each_other_are_refused() -> None:
    said = problems(responses={"max_bytes": 1 << 20, "tenant_bytes": 1 << 19})
    assert "max_bytes (1048576) is more than tenant_bytes (524288)" in said and "lower max_bytes" in said
    for wrong in ({"kept_for": 59}, {"kept_for": 2_592_001}, {"max_bytes": 10}, {"tenant_bytes": 10}, {"stored": "x"}):
        assert problems(responses=wrong)


def test_responses_that_nobody_could_open_again_are_doubted() -> None:
    """Without a secret each start would seal with another key."""
    in_chat: dict[str, Any] = {"models": [{"name": "m", "over_chat": True}]}
    told = find_doubts(Config(**REDIS, **in_chat), 0.0)
    assert [each.path for each in told] == [("models", 0, "over_chat")]
    assert "set response_secret" in told[0].words
    shorter: dict[str, Any] = {"responses": {"kept_for": 60}}
    told = find_doubts(Config(**REDIS, **shorter), 0.0)
    assert [each.path for each in told] == [("responses",)]
    for settings in (REDIS, in_chat, {**SEALED, **in_chat}, {**REDIS, **in_chat, "responses": {"stored": False}}):
        assert find_doubts(Config(**settings), 0.0) == []


def test_the_page_has_the_defaults() -> None:
    page = (Path(__file__).parents[2] / "docs" / "responses.md").read_text()
    given = Config().responses
    for name in ("kept_for", "max_bytes", "tenant_bytes"):
        assert f"  {name}: {getattr(given, name):.0f} " in page
