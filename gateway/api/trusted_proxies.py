"""Trusted proxies: the client that they report in X-Forwarded-For is believed.

Each proxy appends the peer that it saw. So the list is read from its end, and the first address that is no trusted
proxy's is the client; where all are, the first of the list is.
"""

import ipaddress
from collections.abc import Sequence

from gateway.api.request_head import Fields
from gateway.core.http.addresses import plain_address

Peer = tuple[str, int] | None

_FORWARDED_FOR = b"x-forwarded-for"
_FORWARDED_PROTO = b"x-forwarded-proto"
_SCHEMES = ("http", "https")


class TrustedProxies:
    """Their addresses and networks. An address is found in every spelling, with or without a zone."""

    def __init__(self, networks: Sequence[str] = ()) -> None:
        """Raises ValueError where one is neither an address nor a network."""
        self._networks = [ipaddress.ip_network(_plain_network(each)) for each in networks]

    def __bool__(self) -> bool:
        return bool(self._networks)

    def __contains__(self, address: object) -> bool:
        if not self._networks or not isinstance(address, str):
            return False
        try:
            found = ipaddress.ip_address(plain_address(address))
        except ValueError:  # a Unix socket, or what a client made up
            return False
        return any(found in network for network in self._networks)

    def client(self, peer: Peer, fields: Fields) -> Peer:
        """The client of a request with these header `fields` from `peer`; port 0 where a proxy reported it."""
        if peer is None or peer[0] not in self:
            return peer
        chain = b",".join([value for name, value in fields if name == _FORWARDED_FOR]).decode("latin-1").split(",")
        client = ""
        for each in reversed(chain):  # no further than the client: what is before that anybody can have written
            client = plain_address(each.strip())
            if client not in self:
                break
        return (client, 0) if client else peer

    def scheme(self, peer: Peer, fields: Fields, scheme: str) -> str:
        """The scheme that a trusted proxy reports, else `scheme`."""
        if peer is not None and peer[0] in self:
            for name, value in fields:
                if name == _FORWARDED_PROTO and (reported := value.decode("latin-1").strip()) in _SCHEMES:
                    scheme = reported
        return scheme


def _plain_network(network: str) -> str:
    """A network of IPv4 addresses that are written as IPv6, as one of IPv4; without a zone."""
    address, _, prefix = network.partition("/")
    plain = plain_address(address)
    if not prefix:
        return plain
    mapped = ":" in address and ":" not in plain and int(prefix) >= 96
    return f"{plain}/{int(prefix) - 96}" if mapped else f"{address.partition('%')[0]}/{prefix}"
