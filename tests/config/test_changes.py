"""What a reload is said to have changed: every setting that differs, none that does not, and never a secret."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.config.changes import MAX_LISTED, changes_between
from gateway.config.tree import Config
from gateway.core.access.api_keys import key_digest, key_id

DIGEST = key_digest("fg-one")
KEY = {"sha256": DIGEST.hex()}

CASES: dict[str, tuple[dict[str, Any], dict[str, Any], list[str]]] = {
    "nothing": ({"workers": 2}, {"workers": 2}, []),
    "a number": ({"timeouts": {"idle": 5}}, {"timeouts": {"idle": 6}}, ["timeouts.idle: 5.0 -> 6.0"]),
    "a default": ({}, {"log": {"level": "debug"}}, ['log.level: "info" -> "debug"']),
    "a node": (
        {"nodes": [{"url": "http://a"}, {"url": "http://c"}]},
        {"nodes": [{"url": "http://a"}, {"url": "http://b"}, {"url": "http://c", "weight": 2}]},
        ["nodes[http://c].weight: 1.0 -> 2.0", "nodes[http://b]: added"],
    ),
    "the order": (
        {"models": [{"name": "a"}, {"name": "b"}]},
        {"models": [{"name": "b"}, {"name": "a"}]},
        ["models: order changed"],
    ),
    "a key": (
        {"tenants": [{"name": "t", "keys": [KEY]}]},
        {"tenants": [{"name": "t", "keys": [{**KEY, "expires": "2030-01-01"}]}]},
        [f'tenants[t].keys[{key_id(DIGEST)}].expires: null -> "2030-01-01T00:00:00+00:00"'],
    ),
    "a tenant": ({"tenants": [{"name": "t", "keys": [KEY]}]}, {}, ["tenants[t]: removed"]),
    "a section": ({}, {"redis": {"url": "redis://:hush@h"}}, ["redis: added"]),
    "a secret": (
        {"redis": {"url": "redis://:hush@h"}, "response_secret": "hush"},
        {"redis": {"url": "redis://:hush2@h"}},
        ["redis.url: changed", "response_secret: removed"],
    ),
    "a label": (
        {"nodes": [{"url": "http://a", "labels": {"zone": "x"}}]},
        {"nodes": [{"url": "http://a", "labels": {"zone": "y", "rack": "1"}}]},
        ['nodes[http://a].labels[zone]: "x" -> "y"', "nodes[http://a].labels[rack]: added"],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_a_change_is_a_line(name: str) -> None:
    before, after, expected = CASES[name]
    assert changes_between(Config(**before), Config(**after)) == expected


@given(st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=12), st.text("ab", min_size=12))
def test_a_secret_is_never_shown(one: str, other: str) -> None:
    def config(secret: str) -> Config:
        kept = {"value": secret}
        settings: dict[str, Any] = {"nodes": [{"url": "http://a", "api_key": kept}], "admin": {"token": kept}}
        return Config(**settings | {"response_secret": kept})

    lines = changes_between(config(one), config(other))
    assert len(lines) == (0 if one == other else 3)
    assert not any(secret in line for secret in (one, other) for line in lines)


def test_many_changes_are_bounded() -> None:
    many: dict[str, Any] = {"nodes": [{"url": f"http://a{number}"} for number in range(200)]}
    lines = changes_between(Config(), Config(**many))
    assert len(lines) == MAX_LISTED + 1 and lines[-1] == "and 160 more"
