"""How often and where a request is tried again.

Theory. A try may be repeated only while the client has seen nothing of its answer, and only where repeating
cannot do the work twice: the node never took the request, or it closed a connection that had stood idle before
one byte came back (RFC 9110, section 9.2.2: the race between a server's keep-alive timeout and the next request).

    what the node did                        the client has seen nothing   the client has seen bytes
    ConnectFailed: took no connection        ANOTHER_NODE                  cannot be
    StaleConnection: closed a kept one       SAME_NODE, once, afresh       cannot be
    UpstreamCut, BadUpstreamResponse,        GIVE_UP                       GIVE_UP (here resume will stand)
    UpstreamTimeout
"""

from dataclasses import dataclass
from enum import Enum

from gateway.core.errors import ConnectFailed, StaleConnection, UpstreamError


class Verdict(Enum):
    ANOTHER_NODE = "another node"
    SAME_NODE = "same node"
    GIVE_UP = "give up"


@dataclass(slots=True)
class Attempts:
    """Judges the failures of one request; at most `limit` nodes are tried."""

    limit: int
    nodes: int = 1
    stale: bool = False

    def judge(self, error: UpstreamError, answered: bool) -> Verdict:
        """What to do after `error`; `answered` says whether the client has already got bytes of this answer."""
        if answered:
            return Verdict.GIVE_UP
        if isinstance(error, StaleConnection) and not self.stale:
            self.stale = True  # once a node: a fresh connection cannot be stale
            return Verdict.SAME_NODE
        if isinstance(error, ConnectFailed) and self.nodes < self.limit:
            self.nodes += 1
            self.stale = False
            return Verdict.ANOTHER_NODE
        return Verdict.GIVE_UP
