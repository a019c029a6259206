"""Settings of metrics and traces."""

import importlib.util
import os
import re
from collections.abc import Mapping
from typing import Annotated, Self

from pydantic import AfterValidator, Field, model_validator

from gateway.config.types import Secret, Section

Names = Annotated[int, Field(ge=1, le=100_000)]


class MetricsConfig(Section):
    """How many names have series of their own; those beyond are counted together, as `other`."""

    max_tenants: Names = 200
    """Number of tenants; those of the config file first."""
    max_models: Names = 100
    """Number of models; the first ones that were asked for."""
    max_nodes: Names = 1000
    """Nodes; the first ones that were seen."""


LIBRARY = "opentelemetry.exporter.otlp.proto.http"
"""What an installation of fleetgate[otel] has."""

_URL = re.compile(r"https?://[A-Za-z0-9._\[\]:-]+(?:/[!-~]*)?")
_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}")


ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
"""OpenTelemetry's variables that name a collector."""


SAMPLERS = {"always_on": 1.0, "parentbased_always_on": 1.0, "always_off": 0.0, "parentbased_always_off": 0.0}
"""Of `OTEL_TRACES_SAMPLER`: the share of the traces that each records."""

SHARED_SAMPLERS = ("traceidratio", "parentbased_traceidratio")
"""Those whose share is in `OTEL_TRACES_SAMPLER_ARG`."""


def is_endpoint(url: str) -> bool:
    return _URL.fullmatch(url) is not None


def _endpoint(url: str) -> str:
    if not is_endpoint(url):
        raise ValueError("an endpoint looks like http://otel-collector:4318 or https://host/v1/traces")
    return url


class TracesConfig(Section):
    """Traces of requests, sent to a collector by OTLP over HTTP. Off while there is no `endpoint`, here or in
    `OTEL_EXPORTER_OTLP_ENDPOINT`."""

    endpoint: Annotated[str, AfterValidator(_endpoint)] | None = None
    """The collector's URL; `/v1/traces` is added to one that has no path. None: as OpenTelemetry's variables say."""
    headers: dict[str, Secret] = Field(default_factory=dict)
    """Headers of each export, such as `authorization`; their values are secrets."""
    ratio: Annotated[float, Field(ge=0, le=1)] = 0.01
    """Share of the traces that begin here which is recorded."""
    follow_clients: bool = True
    """Whether a client's `traceparent` decides for its own trace; `ratio` does for all where this is false."""
    timeout: Annotated[float, Field(gt=0, le=60)] = 10.0
    """Seconds that one export may take, its retries included."""
    max_queue: Annotated[int, Field(ge=64, le=100_000)] = 2048
    """Number of spans that wait for their export at most; what comes beyond it is dropped."""
    flush: Annotated[float, Field(gt=0, le=60)] = 5.0
    """Seconds that a gateway which is stopped takes for the spans that wait."""
    content: bool = False
    """Whether prompts and answers are recorded, hidden thinking too."""
    content_bytes: Annotated[int, Field(ge=1, le=65_536)] = 4096
    """Bytes of the messages, of the thinking and of the answer that are recorded, each, where `content` is on."""
    service_name: Annotated[str, Field(min_length=1, max_length=128)] | None = None
    """The service in traces. None: `OTEL_SERVICE_NAME`, or fleetgate."""

    @model_validator(mode="after")
    def _possible(self) -> Self:
        for name in self.headers:
            if _HEADER.fullmatch(name) is None:
                raise ValueError(f"{name!a} is not the name of a header")
        if self.endpoint is not None and not library_installed():
            raise ValueError("traces need OpenTelemetry's library: pip install 'fleetgate[otel]'")
        return self

    @property
    def enabled(self) -> bool:
        """Whether requests are recorded, by these settings or by OpenTelemetry's variables."""
        if _is(os.environ.get("OTEL_SDK_DISABLED"), "true") or _is(os.environ.get("OTEL_TRACES_EXPORTER"), "none"):
            return False
        return self.endpoint is not None or any(os.environ.get(name) for name in ENDPOINTS)

    @property
    def share(self) -> float:
        """`ratio`; where it is not set, that of OpenTelemetry's variables, if they have one."""
        if "ratio" in self.model_fields_set:
            return self.ratio
        said = share_in(os.environ)
        return self.ratio if said is None else said


def share_in(environment: Mapping[str, str]) -> float | None:
    """The share that `OTEL_TRACES_SAMPLER` and `OTEL_TRACES_SAMPLER_ARG` have recorded; None where they say none."""
    sampler = environment.get("OTEL_TRACES_SAMPLER", "").strip().lower()
    if sampler not in SHARED_SAMPLERS:
        return SAMPLERS.get(sampler)
    try:
        share = float(environment.get("OTEL_TRACES_SAMPLER_ARG", ""))
    except ValueError:
        return None
    return share if 0 <= share <= 1 else None


def library_installed() -> bool:
    try:
        return importlib.util.find_spec(LIBRARY) is not None
    except ModuleNotFoundError:
        return False


def _is(variable: str | None, word: str) -> bool:
    return variable is not None and variable.strip().lower() == word


class Telemetry(Section):
    """What is told of requests beside the log."""

    metrics: MetricsConfig = MetricsConfig()
    """Of `/metrics`."""
    traces: TracesConfig = TracesConfig()
    """Of requests, at a collector."""
    node_request_ids: bool = False
    """Whether nodes get a request's id as `x-request-id`, so that it stands in their logs and in the ids of answers."""
