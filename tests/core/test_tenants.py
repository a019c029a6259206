"""Tenants: a key opens for its owner; nothing else opens at all."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.errors import Unauthenticated
from gateway.core.tenants import Tenant, Tenants, key_digest, presented_key, same_secret

ONE, TWO = Tenant("one"), Tenant("two", frozenset({"a"}))
TENANTS = Tenants([(key_digest("k1"), ONE), (key_digest("k1-next"), ONE), (key_digest("k2"), TWO)])


@pytest.mark.parametrize(
    ("headers", "tenant"),
    [
        ({b"authorization": b"Bearer k1"}, ONE),
        ({b"authorization": b"bearer  k1-next "}, ONE),
        ({b"x-api-key": b" k2 "}, TWO),
        ({b"authorization": b"Bearer k1", b"x-api-key": b"k2"}, ONE),
        ({b"authorization": b"Basic k1", b"x-api-key": b"k2"}, TWO),
        ({b"authorization": b"Bearer ", b"x-api-key": b"k2"}, TWO),
    ],
)
def test_a_key_is_its_tenants(headers: dict[bytes, bytes], tenant: Tenant) -> None:
    assert TENANTS.authenticate(headers) is tenant


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({}, "missing_api_key"),
        ({b"authorization": b"k1"}, "missing_api_key"),
        ({b"authorization": b"Basic k1"}, "missing_api_key"),
        ({b"x-api-key": b""}, "missing_api_key"),
        ({b"authorization": b"Bearer k3"}, "invalid_api_key"),
        ({b"authorization": b"Bearer k1 k1"}, "invalid_api_key"),
        ({b"x-api-key": b"K1"}, "invalid_api_key"),
        ({b"x-api-key": b"\xff\x00"}, "invalid_api_key"),
        ({b"x-api-key": key_digest("k1")}, "invalid_api_key"),
    ],
)
def test_anything_else_is_refused(headers: dict[bytes, bytes], code: str) -> None:
    with pytest.raises(Unauthenticated) as caught:
        TENANTS.authenticate(headers)
    assert caught.value.slug == code
    assert not any(value.decode("latin-1").strip() in caught.value.message for value in headers.values() if value)


@given(st.dictionaries(st.sampled_from([b"authorization", b"x-api-key"]), st.binary(max_size=20)))
def test_noise_opens_nothing(headers: dict[bytes, bytes]) -> None:
    with pytest.raises(Unauthenticated):
        TENANTS.authenticate(headers)


@given(st.dictionaries(st.sampled_from([b"authorization", b"x-api-key"]), st.binary(max_size=20)))
def test_without_tenants_everybody_is_the_anonymous_one(headers: dict[bytes, bytes]) -> None:
    assert Tenants([], anonymous=ONE).authenticate(headers) is ONE


def test_models_of_a_tenant() -> None:
    assert ONE.may_use("anything")
    assert TWO.may_use("a") and not TWO.may_use("b")
    assert not Tenant("none", frozenset()).may_use("a")


def test_digests_of_text_and_bytes_are_the_same() -> None:
    assert key_digest("é") == key_digest("é".encode())
    assert len(key_digest("")) == 32


def test_presented_key() -> None:
    assert presented_key({b"authorization": b"Bearer a", b"x-api-key": b"b"}) == b"a"
    assert presented_key({}) is None


@pytest.mark.parametrize(
    ("presented", "same"), [(b"secret", True), (b"secre", False), (b"", False), (None, False), (b"\xff", False)]
)
def test_secrets_are_compared_whole(presented: bytes | None, same: bool) -> None:
    assert same_secret(presented, "secret") is same
