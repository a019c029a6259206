"""One spelling for an address, and one source for what a single customer has."""

import pytest

from gateway.core.http.addresses import plain_address, source_of


@pytest.mark.parametrize(
    ("address", "source"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::ffff", "2001:db8:1:2::/64"),
        ("::1", "::/64"),
        ("::FFFF:c000:207%eth0", "192.0.2.7"),
        ("fe80::1%eth0", "fe80::/64"),
        ("fe80::2", "fe80::/64"),
        ("unknown", "unknown"),
        ("x" * 1000, "x" * 64),
    ],
)
def test_who_counts_as_one(address: str, source: str) -> None:
    assert source_of(address) == source


@pytest.mark.parametrize(
    ("address", "plain"),
    [
        ("10.0.0.1", "10.0.0.1"),
        ("::ffff:10.0.0.1", "10.0.0.1"),
        ("0:0:0:0:0:FFFF:A00:1", "10.0.0.1"),
        ("fe80::1%eth0", "fe80::1"),
        ("2001:DB8:0::1", "2001:db8::1"),
        ("::1", "::1"),
        ("10.0.0.1:80", "10.0.0.1"),
        ("[2001:DB8::1]:443", "2001:db8::1"),
        ("[::ffff:10.0.0.1]", "10.0.0.1"),
        ("10.0.0.1:80:90", "10.0.0.1:80:90"),
        ("[x", "[x"),
        ("::ffff:10.0.0.1:x", "::ffff:10.0.0.1:x"),
        ("unknown", "unknown"),
        ("", ""),
    ],
)
def test_an_address_has_one_spelling(address: str, plain: str) -> None:
    assert plain_address(address) == plain
