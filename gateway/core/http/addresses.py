"""Addresses of clients: in one spelling, and which of them count as one."""

import ipaddress
import re

_WITH_PORT = re.compile(r"(?:(\d+(?:\.\d+){3})|\[([^\[\]]*)\])(?::\d*)?", re.ASCII)
"""192.0.2.1:5000, [2001:db8::1]:5000, [2001:db8::1]."""


def plain_address(address: str) -> str:
    """An address in its one spelling: a listener of both families sees 10.0.0.1 as ::ffff:10.0.0.1, and the zone of
    fe80::1%eth0 names an interface of whoever tells it. Some proxies tell the port of a client, too, which is another
    one with every connection. What is no address stays as it is."""
    if ":" not in address:
        return address
    if (found := _WITH_PORT.fullmatch(address)) is not None:
        if found[1] is not None:
            return found[1]
        address = found[2]
    try:
        ip = ipaddress.IPv6Address(address.partition("%")[0])
    except ValueError:  # a Unix socket, or what a proxy made up
        return address
    return str(ip.ipv4_mapped or ip)


def source_of(address: str) -> str:
    """Who counts as one: an IPv4 address, or the /64 of an IPv6 one, since that is what a single customer has."""
    try:
        ip = ipaddress.ip_address(plain_address(address))
    except ValueError:
        return address[:64]
    return str(ip) if ip.version == 4 else str(ipaddress.IPv6Network((int(ip) >> 64 << 64, 64)))
