"""Settings of nodes: their addresses and limits, health checks, retries."""

from typing import Annotated

from pydantic import AfterValidator, Field

from gateway.config.types import CaFile, Count, Name, NodeUrl, Seconds, Secret, Section


def _printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("a label is printable text in one line")
    return text


Printable = Annotated[str, AfterValidator(_printable)]


class NodeConfig(Section):
    """One vLLM server."""

    url: NodeUrl
    """`http://host:8000`, without `/v1`."""
    api_key: Secret | None = None
    """The node's own key (vLLM's `--api-key`), sent as a bearer token."""
    ca_file: CaFile | None = None
    """A PEM file with the certificate authority of an https node, where it is not a public one."""
    max_concurrency: Count | None = None
    """Requests at once, from all gateways together. Without it the bound is found."""
    weight: Annotated[float, Field(gt=0, le=1000)] = 1.0
    """Share of work against other nodes."""
    price: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    """US dollars an hour."""
    priority_scheduling: bool | None = None
    """Whether it is told the `priority` of a request's class. Unset: if it is a vLLM, which ignores priorities without
    a word unless it was started with `--scheduling-policy priority`."""
    labels: dict[Name, Printable] = Field(default_factory=dict)
    """The operator's own names and values."""


class Health(Section):
    """When a node is given work."""

    interval: Seconds = 2.0
    """Seconds between two probes of a node."""
    timeout: Seconds = 5.0
    """Seconds for one probe."""
    failure_threshold: Annotated[int, Field(ge=0)] = 2
    """Probes that may fail in a row before a node is not chosen any more."""
    failures: Count = 3
    """Requests in a row that another node answered, before a node is not chosen any more."""
    slow_start: Annotated[float, Field(ge=0, le=3600)] = 20.0
    """Seconds over which a node that came back gets its full share; 0: at once."""


class Retries(Section):
    """Tries beyond a request's first one, per model and process; both parts are saved up for ten seconds. A try that
    found no connection is not counted: no node has worked."""

    share: Annotated[float, Field(ge=0, le=1)] = 0.2
    """Share of the requests that may be tried once more."""
    minimum: Annotated[float, Field(ge=0, le=10_000)] = 10.0
    """Retries a second on top of it."""
