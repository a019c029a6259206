"""Tenants: a key opens for its owner; nothing else opens at all."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.access.api_keys import key_digest, key_id
from gateway.core.access.tenants import (
    Identity,
    KeyGrant,
    Tenant,
    Tenants,
    cache_salt,
    demanded_key,
    presented_key,
    same_secret,
)
from gateway.core.errors import Unauthenticated

ONE, TWO = Tenant("one"), Tenant("two", frozenset({"a", "b"}))
KEYS = {"k1": "one", "k1-next": "one", "k2": "two"}
TENANTS = Tenants([ONE, TWO], [KeyGrant(key_digest(key), tenant) for key, tenant in KEYS.items()])


@pytest.mark.parametrize(
    ("headers", "key"),
    [
        ({b"authorization": b"Bearer k1"}, b"k1"),
        ({b"authorization": b"bearer  k1-next "}, b"k1-next"),
        ({b"x-api-key": b" k2 "}, b"k2"),
        ({b"authorization": b"Bearer k1", b"x-api-key": b"k2"}, b"k1"),
        ({b"authorization": b"Basic k1", b"x-api-key": b"k2"}, b"k2"),
        ({b"authorization": b"Bearer ", b"x-api-key": b"k2"}, b"k2"),
        ({b"authorization": b"Bearer k1 k1"}, b"k1 k1"),
        ({b"x-api-key": b"\xff\x00"}, b"\xff\x00"),
    ],
)
def test_where_a_key_stands(headers: dict[bytes, bytes], key: bytes) -> None:
    assert demanded_key(headers) == presented_key(headers) == key


@pytest.mark.parametrize(
    "headers", [{}, {b"authorization": b"k1"}, {b"authorization": b"Basic k1"}, {b"x-api-key": b""}]
)
def test_where_none_stands(headers: dict[bytes, bytes]) -> None:
    assert presented_key(headers) is None
    with pytest.raises(Unauthenticated) as caught:
        demanded_key(headers)
    assert caught.value.slug == "missing_api_key"


@pytest.mark.parametrize("key", KEYS)
def test_a_key_is_its_tenants(key: str) -> None:
    found = TENANTS.of_key(key_digest(key))
    assert found is not None
    assert (found.tenant.name, found.key) == (KEYS[key], key_id(key_digest(key)))


@given(st.binary(max_size=64).filter(lambda noise: noise not in map(str.encode, KEYS)))
def test_nothing_else_opens(noise: bytes) -> None:
    assert TENANTS.of_key(noise) is None
    assert TENANTS.of_key(key_digest(noise)) is None


def test_a_digest_that_begins_like_another_does_not_open() -> None:
    """Keys are found by the first bytes of their digest, and judged by all of it."""
    digest = key_digest("k1")
    assert TENANTS.of_key(digest[:-1] + bytes([digest[-1] ^ 1])) is None
    assert TENANTS.of_key(digest[:8]) is None


def test_without_tenants_everybody_is_the_anonymous_one() -> None:
    assert Tenants(anonymous=ONE).anonymous == Identity(ONE)
    assert TENANTS.anonymous is None


def test_models_of_a_tenant() -> None:
    assert ONE.may_use("anything")
    assert TWO.may_use("a") and not TWO.may_use("c")
    assert not Tenant("none", frozenset()).may_use("a")


def test_a_key_opens_no_more_than_its_tenant() -> None:
    narrow = Identity(TWO, models=frozenset({"b", "c"}))
    assert [model for model in "abc" if narrow.may_use(model)] == ["b"]
    assert [model for model in "abc" if Identity(TWO).may_use(model)] == ["a", "b"]


def test_salts_are_each_tenants_own_and_nobody_elses_to_know() -> None:
    salts = {cache_salt(secret, name) for secret in (b"s", b"t") for name in ("one", "two")}
    assert len(salts) == 4
    assert all(len(salt) == 64 and "one" not in salt for salt in salts)
    assert cache_salt(b"s", "one") == cache_salt(b"s", "one")


@pytest.mark.parametrize(
    ("presented", "same"), [(b"secret", True), (b"secre", False), (b"", False), (None, False), (b"\xff", False)]
)
def test_secrets_are_compared_whole(presented: bytes | None, same: bool) -> None:
    assert same_secret(presented, "secret") is same
