"""Ids of stored responses: what was sealed opens, for its tenant, with its key, and in no other way."""

from hypothesis import given
from hypothesis import strategies as st

from gateway.core.dialects.response_ids import NONCE_BYTES, node_tag, open_id, seal

keys = st.binary(min_size=1, max_size=32)
nonces = st.binary(min_size=NONCE_BYTES, max_size=NONCE_BYTES)
nodes = st.text(min_size=1, max_size=20).map(node_tag)
tenants = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)


@given(keys, nonces, nodes, tenants)
def test_what_was_sealed_opens_to_its_node(key: bytes, nonce: bytes, node: bytes, tenant: str) -> None:
    sealed = seal(key, nonce, node, tenant)
    assert sealed.startswith("resp_") and len(sealed) == 53
    assert open_id(key, sealed, tenant) == node


@given(keys, nonces, nodes, tenants, keys, tenants)
def test_it_opens_for_nobody_else(
    key: bytes, nonce: bytes, node: bytes, tenant: str, other_key: bytes, other_tenant: str
) -> None:
    sealed = seal(key, nonce, node, tenant)
    if other_tenant != tenant:
        assert open_id(key, sealed, other_tenant) is None
    if other_key.ljust(64, b"\0") != key.ljust(64, b"\0"):  # HMAC pads keys with zeros
        assert open_id(other_key, sealed, tenant) is None


@given(keys, nonces, nodes, tenants, st.integers(5, 52), st.sampled_from("0123456789abcdef"))
def test_one_changed_digit_closes_it(key: bytes, nonce: bytes, node: bytes, tenant: str, at: int, digit: str) -> None:
    sealed = seal(key, nonce, node, tenant)
    changed = sealed[:at] + digit + sealed[at + 1 :]
    assert open_id(key, changed, tenant) == (node if changed == sealed else None)


@given(st.text(max_size=60), st.text(st.sampled_from("0123456789abcdefABCDEF _-"), max_size=60))
def test_whatever_comes_is_just_not_found(text: str, digits: str) -> None:
    for unknown in (text, f"resp_{text}", f"resp_{digits}", digits):
        assert open_id(b"key", unknown, "tenant") is None


def test_ids_differ_by_nonce_node_and_tenant() -> None:
    made = {
        seal(b"key", bytes([nonce]) * NONCE_BYTES, node_tag(url), tenant)
        for nonce in range(3)
        for url in ("http://a", "http://b")
        for tenant in ("x", "y")
    }
    assert len(made) == 12


def test_the_format_is_the_one_that_other_gateways_of_the_fleet_read() -> None:
    """Changing it makes every id that clients hold unknown: then say so in the changelog."""
    sealed = seal(b"key", bytes(range(8)), node_tag("http://10.0.0.1:8000"), "tenant")
    assert sealed == "resp_00010203040506073a8c9b14b0d39021447542addbbc47d1"
