"""The gate without Redis: who is let in, who is told what, and who is made to wait."""

from collections.abc import Iterable

import pytest

from gateway.access.gate import Gate
from gateway.core.access.api_keys import RANDOM_BYTES, key_digest, key_from
from gateway.core.access.tenants import KeyGrant, Tenant, Tenants
from gateway.core.access.wrong_key_throttle import WrongKeyThrottle
from gateway.core.errors import GatewayError, TooManyWrongKeys, Unauthenticated

ONE = Tenant("one")
GOOD, OLD = key_from(b"\1" * RANDOM_BYTES), key_from(b"\2" * RANDOM_BYTES)


def gate(keys: Iterable[KeyGrant] = (), wrong: int = 2) -> Gate:
    return Gate(Tenants([ONE], [KeyGrant(key_digest(GOOD), "one"), *keys]), WrongKeyThrottle(wrong))


def carrying(key: str) -> dict[bytes, bytes]:
    return {b"authorization": b"Bearer " + key.encode()}


async def refusal(of: Gate, key: str, address: str = "192.0.2.1") -> GatewayError:
    assert of.known(carrying(key)) is None
    with pytest.raises((Unauthenticated, TooManyWrongKeys)) as caught:
        await of.find(carrying(key), address)
    assert key not in caught.value.message
    return caught.value


def test_a_key_of_the_configuration_is_known_at_once() -> None:
    found = gate().known(carrying(GOOD))
    assert found is not None and found.tenant is ONE


async def test_a_typo_is_told_from_a_key_that_is_gone() -> None:
    for damaged in (GOOD[:-1] + "0", GOOD[:-2], GOOD + "a", "fg-"):
        assert "checksum" in (await refusal(gate(), damaged)).message
    for gone in (OLD, "fg-" + "_" * 43, "sk-proj"):
        assert "checksum" not in (await refusal(gate(), gone)).message


async def test_an_expired_key_is_a_wrong_one() -> None:
    expired = gate([KeyGrant(key_digest(OLD), "one", expires=1.0)])
    assert (await refusal(expired, OLD)).slug == "invalid_api_key"
    assert gate([KeyGrant(key_digest(OLD), "one", expires=1e11)]).known(carrying(OLD)) is not None


async def test_guessing_is_slow_and_keeps_nobody_else_out() -> None:
    slow = gate(wrong=2)
    for _ in range(2):
        assert (await refusal(slow, "fg-none")).slug == "invalid_api_key"
    late = await refusal(slow, "fg-none")
    assert late.slug == "too_many_wrong_keys"
    assert late.retry_after is not None and 25 < late.retry_after <= 30
    assert slow.known(carrying(GOOD)) is not None, "a right key from that address still works"
    assert (await refusal(slow, "fg-none", "192.0.2.2")).slug == "invalid_api_key"


async def test_a_reload_brings_new_tenants_and_forgets_no_guesses() -> None:
    throttle = WrongKeyThrottle(1)
    reloaded = Gate(Tenants([ONE], [KeyGrant(key_digest(GOOD), "one")]), throttle)
    await refusal(reloaded, "fg-none")
    reloaded.configure(Tenants([ONE], [KeyGrant(key_digest(OLD), "one")]))
    throttle.configure(1)
    assert reloaded.known(carrying(OLD)) is not None and reloaded.known(carrying(GOOD)) is None
    assert (await refusal(reloaded, "fg-none")).slug == "too_many_wrong_keys"
    throttle.configure(5)
    assert (await refusal(reloaded, "fg-none")).slug == "invalid_api_key"


async def test_no_key_is_no_guess() -> None:
    calm = gate(wrong=1)
    for _ in range(5):
        with pytest.raises(Unauthenticated, match="The API key is missing"):
            calm.known({})
    assert (await refusal(calm, "fg-none")).slug == "invalid_api_key"
