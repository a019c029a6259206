"""Hosts and ports as they may be written."""

import pytest

from gateway.core.http.host_names import is_bracketed, is_host, is_port

NAMES = ["h", "node-1", "a.b.example.com", "example.com.", "xn--bcher-kva.example", "_dns.example", "1a", "127.0.0.1"]
NO_NAMES = [
    "",
    ".",
    "a..b",
    "-a",
    "a-",
    "a b",
    "a/b",
    "bücher",
    "h:1",
    "a" * 64,
    "1.2.3",
    "a.1",
    "0x7f.0x1",
    "256.0.0.1",
]


@pytest.mark.parametrize("text", NAMES)
def test_a_name_or_an_ipv4_address_is_a_host_wherever_it_stands(text: str) -> None:
    assert is_host(text) and is_bracketed(text)
    assert not is_bracketed(f"[{text}]"), "brackets are for IPv6"


@pytest.mark.parametrize("text", NO_NAMES)
def test_what_the_dns_cannot_have_is_no_host(text: str) -> None:
    assert not is_host(text) and not is_bracketed(text) and not is_bracketed(f"[{text}]")


def test_a_name_has_at_most_253_characters() -> None:
    longest = ".".join(["a" * 61] * 4)[:247] + ".a.com"
    assert len(longest) == 253
    assert is_host(longest) and not is_host(f"b{longest}")


@pytest.mark.parametrize("text", ["::1", "2001:db8::1", "::ffff:1.2.3.4"])
def test_an_ipv6_address_stands_in_brackets_in_a_url(text: str) -> None:
    assert is_host(text) and is_bracketed(f"[{text}]") and not is_bracketed(text)


@pytest.mark.parametrize("text", ["1", "80", "080", "65535"])
def test_a_port(text: str) -> None:
    assert is_port(text)


@pytest.mark.parametrize("text", ["", "0", "65536", "-1", "+1", " 1", "1.0", "٣", "000001"])
def test_no_port(text: str) -> None:
    assert not is_port(text)
