"""Bounds of open connections: in all, and from one address."""

from collections import Counter
from collections.abc import Container

from gateway.core.errors import TooManyConnections
from gateway.core.http.addresses import source_of


class ConnectionBounds:
    """The public connections of one process, those in their TLS handshake among them. One /64 of IPv6 is one address.

    Addresses of `proxies` are many clients each, and bounded by `max_connections` alone.
    """

    def __init__(self, max_connections: int, max_per_address: int, proxies: Container[str | None]) -> None:
        self._max = max_connections
        self._max_per_address = max_per_address
        self._proxies = proxies
        self._open: Counter[str | None] = Counter()
        self._total = 0

    def enter(self, address: str | None) -> TooManyConnections | None:
        """Count a connection, also one too many, for which the error is: `leave` is called for each."""
        source = _source(address)
        self._total += 1
        self._open[source] += 1
        if self._total > self._max:
            return TooManyConnections("Too many open connections; retry in 1 s.", retry_after=1.0)
        if self._open[source] > self._max_per_address and address is not None and address not in self._proxies:
            return TooManyConnections(
                f"More than {self._max_per_address} open connections from {address}: close some.",
                retry_after=1.0,
            )
        return None

    def leave(self, address: str | None) -> None:
        source = _source(address)
        self._total -= 1
        self._open[source] -= 1
        if not self._open[source]:
            del self._open[source]


def _source(address: str | None) -> str | None:
    return address if address is None or ":" not in address else source_of(address)
