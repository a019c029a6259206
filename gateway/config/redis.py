"""Settings of the Redis that gateways share."""

import ssl
from typing import Annotated, Self

from pydantic import Field, field_validator, model_validator

from gateway.config.types import PREFIX_PATTERN, CaFile, PemFile, Secret, Section, load_certificate
from gateway.core.redis.url import read_redis_url


class RedisConfig(Section):
    """Redis or Valkey, 7 or newer; times in seconds."""

    url: Secret
    """`redis://[user:password@]host:6379[/0]`, or `rediss://` for TLS. A secret, since it may hold a password."""
    cluster: bool = False
    """Whether it is a Redis Cluster, of which `url` names any node."""
    ca_file: CaFile | None = None
    """A PEM file with the certificate authority of a `rediss://` server, where it is not a public one."""
    cert_file: PemFile | None = None
    """A PEM file with the certificate that the gateway shows, where the server wants one."""
    key_file: PemFile | None = None
    """A PEM file with the certificate's key."""
    timeout: Annotated[float, Field(ge=0.005, le=5)] = 0.05
    """Seconds for an answer; then Redis counts as lost until a probe succeeds."""
    connect_timeout: Annotated[float, Field(ge=0.005, le=30)] = 0.25
    """Seconds for a connection."""
    prefix: Annotated[str, Field(pattern=PREFIX_PATTERN, max_length=32)] = "fg"
    """Begins every key, before the version of the schema (so it ends in no digit); tells installations apart."""

    @field_validator("url")
    @classmethod
    def _is_redis(cls, url: Secret) -> Secret:
        read_redis_url(url.reveal())
        return url

    @model_validator(mode="after")
    def _loads(self) -> Self:
        place = read_redis_url(self.url.reveal())
        if self.cluster and place.database:
            raise ValueError("a cluster has one database, 0: leave the number out of redis.url")
        if (self.cert_file is None) != (self.key_file is None):
            raise ValueError("cert_file and key_file go together")
        if self.cert_file is not None:
            try:
                load_certificate(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), self.cert_file, self.key_file)
            except OSError as error:  # ssl.SSLError is one
                words = f"{self.cert_file} and {self.key_file} are not a certificate and its key: {error}"
                raise ValueError(words) from None
        return self
