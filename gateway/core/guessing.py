"""Slowing down whoever tries keys: after so many wrong ones in a minute an address has to wait for each further one.

The rule is GCRA (ITU-T I.371, "generic cell rate algorithm"; a leaky bucket that keeps one number): an address
has a theoretical arrival time. A wrong key moves it by 60 / N seconds from itself or from now, whichever is later;
while it lies more than a minute less one step ahead, wrong keys are refused unjudged and move nothing. So N may
come at once, and then one every 60 / N seconds.
"""

import ipaddress
import re

ADDRESSES = 10_000
"""How many are remembered; beyond it the one that was wrong longest ago is forgotten. About 200 bytes each."""

_WINDOW = 60.0

_WITH_PORT = re.compile(r"(?:(\d+(?:\.\d+){3})|\[([^\[\]]*)\])(?::\d*)?", re.ASCII)
"""192.0.2.1:5000, [2001:db8::1]:5000, [2001:db8::1]."""


class Guesses:
    """Wrong keys by the address that they came from. `now` is any clock in seconds that never goes back."""

    def __init__(self, per_minute: int, addresses: int = ADDRESSES) -> None:
        self.per_minute = per_minute
        self._step = _WINDOW / per_minute
        self._tolerance = _WINDOW - self._step
        self._addresses = addresses
        self._arrivals: dict[str, float] = {}

    def wait(self, address: str, now: float) -> float:
        """The seconds that `address` has to wait before anything from there is judged; 0 where it need not."""
        left = self._arrivals.get(source_of(address), now) - now - self._tolerance
        return left if left > 1e-9 else 0.0

    def wrong(self, address: str, now: float) -> float:
        """Note a wrong key. Returns 0, or the seconds to wait where there were too many: then it does not count."""
        source = source_of(address)
        arrival = max(self._arrivals.pop(source, now), now)
        wait = arrival - now - self._tolerance
        if wait > 1e-9:
            self._arrivals[source] = arrival
            return wait
        self._arrivals[source] = arrival + self._step
        if len(self._arrivals) > self._addresses:
            del self._arrivals[next(iter(self._arrivals))]
        return 0.0


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
