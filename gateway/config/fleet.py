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
    api_key: Secret | None = None
    ca_file: CaFile | None = None
    """A PEM file with the certificate authority of an https node, where it is not a public one."""
    max_concurrency: Count | None = None
    """Requests at once, from all gateways together."""
    weight: Annotated[float, Field(gt=0, le=1000)] = 1.0
    """Share of work against other nodes."""
    price: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    """US dollars an hour."""
    priority_scheduling: bool | None = None
    """Whether it is told the `priority` of a request's class; None: if it is a vLLM, which ignores priorities without a
    word unless it was started with `--scheduling-policy priority`."""
    labels: dict[Name, Printable] = Field(default_factory=dict)
    """The operator's own names and values."""


class Health(Section):
    """When a node is given work. `interval`, `timeout`: seconds between two probes, and for one; `failure_threshold`:
    probes that may fail in a row; `failures`: requests in a row that another node answered; `slow_start`: seconds over
    which a node that came back gets its full share, 0 for at once."""

    interval: Seconds = 2.0
    timeout: Seconds = 5.0
    failure_threshold: Annotated[int, Field(ge=0)] = 2
    failures: Count = 3
    slow_start: Annotated[float, Field(ge=0, le=3600)] = 20.0


class Retries(Section):
    """Tries beyond a request's first one, per model and process: `share` of its requests and `minimum` a second on
    top of it, both saved up for ten seconds. A try that found no connection is not counted: no node has worked."""

    share: Annotated[float, Field(ge=0, le=1)] = 0.2
    minimum: Annotated[float, Field(ge=0, le=10_000)] = 10.0
