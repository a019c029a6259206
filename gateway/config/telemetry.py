"""Settings of metrics and traces."""

from typing import Annotated

from pydantic import Field

from gateway.config.types import Section

Names = Annotated[int, Field(ge=1, le=100_000)]


class MetricsConfig(Section):
    """How many names have series of their own; those beyond are counted together, as `other`."""

    max_tenants: Names = 200
    """Number of tenants; those of the config file first."""
    max_models: Names = 100
    """Number of models; the first ones that were asked for."""
    max_nodes: Names = 1000
    """Nodes; the first ones that were seen."""


class Telemetry(Section):
    """What is told of requests beside the log."""

    metrics: MetricsConfig = MetricsConfig()
    """Of `/metrics`."""
