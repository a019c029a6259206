"""The gateway's own client of a node, for tests that ask one as the gateway does."""

import contextlib
from collections.abc import AsyncIterator

from gateway.fleet.node_client import NodeClient
from gateway.fleet.node_spec import NodeSpec


@contextlib.asynccontextmanager
async def asking(url: str) -> AsyncIterator[NodeClient]:
    """A client of the node at `url`."""
    client = NodeClient(NodeSpec(url))
    try:
        yield client
    finally:
        client.close()
