"""Settings of discovery: nodes found in the DNS, and nodes that register."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from gateway.config.types import CaFile, Count, Host, Name, Network, Seconds, Secret, Section


class DnsConfig(Section):
    """A name whose every address is a node: replicas in compose, a headless service in Kubernetes."""

    host: Host
    """A name whose every address is a node."""
    port: Annotated[int, Field(ge=1, le=65_535)] = 8000
    """The port of all of them."""
    scheme: Literal["http", "https"] = "http"
    """How they are spoken to."""
    interval: Seconds = 5.0
    """Seconds between two lookups."""
    api_key: Secret | None = None
    """As for a node of the list."""
    ca_file: CaFile | None = None
    """As for a node of the list."""
    max_concurrency: Count | None = None
    """Requests at once on each, from all gateways together. Without it the bound is found."""
    priority_scheduling: bool | None = None
    """As for a node of the list."""
    weight: Annotated[float, Field(gt=0, le=1000)] = 1.0
    """Share of work against other nodes."""


class RegistrationsConfig(Section):
    """Nodes that register in Redis, and which of them are trusted (docs/registration.md)."""

    secret: Secret | None = None
    """What records must be signed with (FLEETGATE_WORKER_SECRET of the workers)."""
    networks: tuple[Network, ...] = ()
    """Address ranges that nodes may be in; required where there is no secret."""
    models: tuple[Name, ...] = ()
    """Models that nodes may serve; empty means all."""
    skew: Annotated[float, Field(ge=0, le=600)] = 5.0
    """Seconds by which clocks may differ."""
    interval: Seconds = 1.0
    """Seconds between two polls."""
    api_key: Secret | None = None
    """The key of all registered nodes."""
    ca_file: CaFile | None = None
    """A PEM file with the certificate authority of all registered nodes."""

    @model_validator(mode="after")
    def _some_are_trusted(self) -> Self:
        if self.secret is None and not self.networks:
            raise ValueError("needs secret (with which workers sign) or networks (addresses accepted unsigned)")
        return self


class DiscoveryConfig(Section):
    """The sources of nodes beside the list in `nodes`."""

    dns: tuple[DnsConfig, ...] = ()
    """Names that are looked up again and again."""
    registrations: RegistrationsConfig | None = None
    """Nodes that register in Redis. Without this section none are believed."""
