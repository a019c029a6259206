"""One node as this gateway process sees it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from gateway.core.abilities import UNKNOWN
from gateway.core.response_ids import node_tag


@dataclass(frozen=True, slots=True)
class NodeSpec:
    """What the config says about a node. `api_key` and `ca_file` are for talking to it; None where not needed."""

    url: str
    api_key: str | None = field(default=None, repr=False)
    ca_file: str | None = None

    @property
    def name(self) -> str:
        """Host and port: how logs and metrics call it."""
        return self.url.partition("://")[2].rstrip("/")


class Node:
    """A node's state. Written by the prober (`ready`, `cards`, `last_error`) and by leases (`in_flight`)."""

    def __init__(self, spec: NodeSpec) -> None:
        self.spec = spec
        self.name = spec.name
        self.tag = node_tag(spec.url)
        self.ready = False
        self.failed_probes = 0
        self.last_error: str | None = "not probed yet"
        self.cards: Mapping[str, Mapping[str, Any]] = {}
        self.abilities = UNKNOWN
        self.in_flight = 0

    def probe_succeeded(self, cards: Mapping[str, Mapping[str, Any]]) -> None:
        """`cards`: what its /v1/models lists, by model id, as the node wrote them."""
        self.ready = True
        self.failed_probes = 0
        self.last_error = None
        self.cards = cards

    def probe_failed(self, error: str, tolerated: int) -> None:
        """One probe went unanswered; after `tolerated` of them in a row the node is not chosen any more."""
        self.failed_probes += 1
        self.last_error = error
        if self.failed_probes > tolerated:
            self.ready = False

    def refused(self, error: str) -> None:
        """It took no connection from a request: it is not chosen until a probe succeeds."""
        self.ready = False
        self.last_error = error


class Lease:
    """One unit of a node's concurrency, held until the last byte. `release` counts once however often it is called."""

    __slots__ = ("_held", "node")

    def __init__(self, node: Node) -> None:
        self.node = node
        self._held = True
        node.in_flight += 1

    def release(self) -> None:
        if self._held:
            self._held = False
            self.node.in_flight -= 1
