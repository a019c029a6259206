"""Failures that say nothing about a node: this machine had no connection to give."""

from gateway.fleet.node import Node
from gateway.telemetry.shortages import ResourceShortages, shortage_behind


def is_own_shortage(error: BaseException | None, node: Node, shortages: ResourceShortages) -> bool:
    """Whether `error`, raised while `node` was asked, is a shortage of this machine; it is noted then."""
    cause = None if error is None else shortage_behind(error)
    if cause is None:
        return False
    shortages.note(cause, "probing a node")
    if not node.ready:
        node.last_error = f"not probed: the gateway's machine is out of resources ({cause})"
    return True
