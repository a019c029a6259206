"""Settings of discovery: nodes found in the DNS, and nodes that register."""

import ipaddress
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from gateway.config.types import CaFile, Count, Host, Name, Seconds, Secret, Section


class DnsConfig(Section):
    """A name whose every address is a node: replicas in compose, a headless service in Kubernetes. `interval`: seconds
    between two lookups; the others as for a node."""

    host: Host
    port: Annotated[int, Field(ge=1, le=65_535)] = 8000
    scheme: Literal["http", "https"] = "http"
    interval: Seconds = 5.0
    api_key: Secret | None = None
    ca_file: CaFile | None = None
    max_concurrency: Count | None = None
    priority_scheduling: bool | None = None
    weight: Annotated[float, Field(gt=0, le=1000)] = 1.0


class RegistrationsConfig(Section):
    """Nodes that register in Redis, and which of them are trusted (docs/registration.md)."""

    secret: Secret | None = None
    """What records must be signed with (FLEETGATE_WORKER_SECRET of the workers)."""
    networks: tuple[str, ...] = ()
    """Address ranges that nodes may be in; required where there is no secret."""
    models: tuple[Name, ...] = ()
    """Models that nodes may serve; empty means all."""
    skew: Annotated[float, Field(ge=0, le=600)] = 5.0
    """Seconds by which clocks may differ."""
    interval: Seconds = 1.0
    """Seconds between two polls."""
    api_key: Secret | None = None
    ca_file: CaFile | None = None
    """Key and certificate authority of registered nodes, as for a node of the list."""

    @field_validator("networks")
    @classmethod
    def _ranges(cls, networks: tuple[str, ...]) -> tuple[str, ...]:
        for network in networks:
            try:
                ipaddress.ip_network(network)
            except ValueError:
                raise ValueError(f"{network!r} is not an address or a network such as 10.0.0.0/8") from None
        return networks

    @model_validator(mode="after")
    def _some_are_trusted(self) -> Self:
        if self.secret is None and not self.networks:
            raise ValueError("needs secret (with which workers sign) or networks (addresses accepted unsigned)")
        return self


class DiscoveryConfig(Section):
    """The sources of nodes beside the list in `nodes`."""

    dns: tuple[DnsConfig, ...] = ()
    registrations: RegistrationsConfig | None = None
