"""Which page of a node's metrics is asked for: the whole page, or only the metrics that are read of it.

Theory. A vLLM's page is 30 to 300 KB of histograms, of which a dozen lines are read. Its server leaves out what is not
asked for by `name[]` (prometheus_client does that), on `/metrics/`: on `/metrics` versions up to 0.32 do not. Such a
page is 3 KB and takes a node less than half the time. With several API servers, and behind some proxies, it is empty or
not found. So the whole page comes first, and the short one has to tell as much:

    asked for   the page                                      next
    whole       tells something                               short
    whole       tells nothing, or there is none               whole
    short       tells all that the whole page told            short
    short       is refused for now (5xx, 408, 429)            short, up to `REFUSALS` times in a row
    short       tells less, or there is none                  whole, until the node begins anew
"""

from typing import Final

from gateway.core.fleet.node_metrics import READ, NodeMetrics, read_node_metrics

WHOLE: Final = "/metrics"
SHORT: Final = "/metrics/?" + "&".join(f"name%5B%5D={name.decode()}" for name in READ)

REFUSALS: Final = 3
"""So often a short page may be refused in a row: a node that is overloaded refuses both, some proxies this one."""

_FOR_NOW: Final = (408, 429)


class NodeMetricsPage:
    """One node's. `path`: where its metrics are asked for next."""

    __slots__ = ("_refusals", "_told", "_trusted", "path")

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """The node may be another one."""
        self.path = WHOLE
        self._trusted = True
        self._told = 0
        """What the last believed page told: a bit for each field."""
        self._refusals = 0

    def read(self, status: int, body: bytes, now: float) -> NodeMetrics | None:
        """The load that the answer from `path` tells; None where it is not believed."""
        load = read_node_metrics(body, now) if status == 200 else None
        told = 0 if load is None else _told(load)
        if self.path == WHOLE:
            if self._trusted and told:
                self.path, self._told = SHORT, told
            return load
        if status >= 500 or status in _FOR_NOW:
            self._refusals += 1
            if self._refusals <= REFUSALS:
                return None
        else:
            self._refusals = 0
        if load is not None and told & self._told == self._told:
            self._told = told
            return load
        self.path, self._trusted = WHOLE, False
        return None


def _told(load: NodeMetrics) -> int:
    told = 0
    for at in range(1, len(load)):
        if load[at] is not None:
            told |= 1 << at
    return told
