"""Settings of the responses that gateways keep in Redis."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from gateway.config.types import Section

_KIB, _TIB = 1 << 10, 1 << 40


class ResponsesConfig(Section):
    """What is kept of `/v1/responses`, where there are a Redis and a `response_secret`. Bytes are not those of the
    client's answer: see docs/responses.md."""

    stored: bool | None = None
    """Whether responses are kept. Left out, they are where both are there."""
    kept_for: Annotated[float, Field(ge=60, le=2_592_000)] = 86_400
    """Seconds for which a conversation is kept, from its last turn."""
    max_bytes: Annotated[int, Field(ge=4 * _KIB, le=16 << 20)] = 1 << 20
    """Bytes of one response with the input that its request brought, as JSON; a larger one is not stored."""
    tenant_bytes: Annotated[int, Field(ge=64 * _KIB, le=_TIB)] = 64 << 20
    """Bytes of Redis' memory for one tenant; its conversations that were used least recently make room."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.max_bytes > self.tenant_bytes:
            raise ValueError(
                f"max_bytes ({self.max_bytes}) is more than tenant_bytes ({self.tenant_bytes}), which bounds all of a "
                "tenant's responses: raise tenant_bytes or lower max_bytes"
            )
        return self
