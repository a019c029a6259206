"""Addresses of clients: their one spelling, and the source that limits count."""

import ipaddress
import re

_WITH_PORT = re.compile(r"(?:(\d+(?:\.\d+){3})|\[([^\[\]]*)\])(?::\d*)?", re.ASCII)
"""192.0.2.1:5000, [2001:db8::1]:5000, [2001:db8::1]."""


def plain_address(address: str) -> str:
    """An address without its port and zone, an IPv4-mapped one as IPv4; a text that is no address unchanged.

    A listener of both families sees 10.0.0.1 as ::ffff:10.0.0.1. The zone of fe80::1%eth0 is an interface of the
    sender. Some proxies add the client's port, which differs with every connection.
    """
    if ":" not in address:
        return address
    if (found := _WITH_PORT.fullmatch(address)) is not None:
        if found[1] is not None:
            return found[1]
        address = found[2]
    try:
        ip = ipaddress.IPv6Address(address.partition("%")[0])
    except ValueError:  # a Unix socket, or a proxy's own word
        return address
    return str(ip.ipv4_mapped or ip)


def source_of(address: str) -> str:
    """The source that an address counts as: an IPv4 address, or the /64 of an IPv6 one, which one customer has."""
    try:
        ip = ipaddress.ip_address(plain_address(address))
    except ValueError:
        return address[:64]
    return str(ip) if ip.version == 4 else str(ipaddress.IPv6Network((int(ip) >> 64 << 64, 64)))
