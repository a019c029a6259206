"""Settings of what gateways share (Redis) and of the limits that are kept there."""

import ssl
from pathlib import Path
from typing import Annotated, Self
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from gateway.config.types import Secret, Section


class RedisConfig(Section):
    """Redis or Valkey, 7 or newer; times in seconds."""

    url: Secret
    """`redis://[user:password@]host:6379[/0]`, or `rediss://` for TLS. A secret, since it may hold a password."""
    cluster: bool = False
    ca_file: Path | None = None
    """A PEM file with the certificate authority of a `rediss://` server, where it is not a public one."""
    cert_file: Path | None = None
    key_file: Path | None = None
    """A certificate and its key (PEM) that the gateway shows, where the server wants one."""
    timeout: Annotated[float, Field(ge=0.005, le=5)] = 0.05
    connect_timeout: Annotated[float, Field(ge=0.005, le=30)] = 0.25
    prefix: Annotated[str, Field(pattern=r"^fg1[A-Za-z0-9._-]*$", max_length=32)] = "fg1"
    """Begins every key; `fg1` is the version of the schema, what follows tells installations apart."""

    @field_validator("url")
    @classmethod
    def _is_redis(cls, url: Secret) -> Secret:
        parts = urlsplit(url.reveal())
        if parts.scheme not in ("redis", "rediss") or not parts.hostname:
            raise ValueError("expected redis://host:6379, or rediss://host:6379 for TLS")
        return url

    @model_validator(mode="after")
    def _loads(self) -> Self:
        if self.cluster and urlsplit(self.url.reveal()).path.strip("/") not in ("", "0"):
            raise ValueError("a cluster has one database, 0: leave the number out of redis.url")
        try:
            context = ssl.create_default_context(cafile=self.ca_file)
            if self.cert_file is not None or self.key_file is not None:
                if self.cert_file is None or self.key_file is None:
                    raise ValueError("cert_file and key_file go together")
                context.load_cert_chain(self.cert_file, self.key_file)
        except OSError as error:  # ssl.SSLError is one
            raise ValueError(f"ca_file, cert_file or key_file cannot be used: {error}") from None
        return self
