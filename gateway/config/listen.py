"""Where the gateway listens: for clients, and for operators."""

import ipaddress
import re
import ssl
from pathlib import Path
from typing import Annotated, Self

from pydantic import AfterValidator, Field, ValidationInfo, field_validator, model_validator

from gateway.config.types import Count, Name, Port, Secret, Section, is_loopback


class Tls(Section):
    """Certificate and key as PEM files."""

    cert: Path
    key: Path

    @model_validator(mode="after")
    def _there(self) -> Self:
        for path in (self.cert, self.key):
            if not path.is_file():
                raise ValueError(f"the file {path} does not exist")
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(self.cert, self.key)
        except OSError as error:  # ssl.SSLError is one
            raise ValueError(f"{self.cert} and {self.key} are no certificate and its key: {error}") from None
        return self


def _host_name(name: str) -> str:
    """As browsers send it, without port and brackets."""
    name = name.strip().lower().removeprefix("[").removesuffix("]").removesuffix(".")
    try:
        return str(ipaddress.ip_address(name))
    except ValueError:
        if not re.fullmatch(r"\*|(\*\.)?[a-z0-9_-]+(\.[a-z0-9_-]+)*", name):
            raise ValueError("expected a name without a port: gateway.example.com, *.example.com or *") from None
    return name


HostName = Annotated[str, AfterValidator(_host_name)]


class Listen(Section):
    """Where clients connect."""

    host: str = "127.0.0.1"
    port: Port = 8080
    tls: Tls | None = None
    max_connections: Count = 10_000
    max_connections_per_address: Count = 1024
    """Open at once from one address in one process; `trusted_proxies` are bounded by `max_connections` alone."""
    trusted_proxies: tuple[str, ...] = ()
    """Addresses or networks whose X-Forwarded-For and X-Forwarded-Proto are believed."""
    cors_origins: tuple[str, ...] = ()
    """Origins of web pages that may call the gateway; `*` for all."""
    hosts: tuple[HostName, ...] = ()
    """Further names that the gateway is called by where no key is asked: `*.suffix` for all below one, `*` for all."""

    @field_validator("trusted_proxies")
    @classmethod
    def _networks(cls, proxies: tuple[str, ...]) -> tuple[str, ...]:
        for proxy in proxies:
            try:
                ipaddress.ip_network(proxy)
            except ValueError:
                raise ValueError(f"{proxy!r} is not an address or a network such as 10.0.0.0/8") from None
        return proxies


class AdminToken(Section):
    """A token of its own for somebody, so that the audit can tell who it was."""

    name: Name
    token: Secret


class Admin(Section):
    """The second listener: metrics and control. A token is mandatory where it is not on loopback."""

    host: str = "127.0.0.1"
    port: Port = 9091
    tokens: tuple[AdminToken, ...] = ()
    token: Annotated[Secret | None, Field(validate_default=True)] = None
    """The audit calls whoever has this one `admin`."""
    hosts: tuple[HostName, ...] = ()
    """Further names that this listener is called by where it asks for no token, as `listen.hosts`."""
    open_metrics: bool = False
    """Whether /metrics can be read without the token."""

    @field_validator("token")
    @classmethod
    def _closed(cls, token: Secret | None, info: ValidationInfo) -> Secret | None:
        host = info.data.get("host", "127.0.0.1")
        if token is None and not info.data.get("tokens") and not is_loopback(host):
            raise ValueError(f"admin.host {host} is beyond loopback: set admin.token (FLEETGATE_ADMIN__TOKEN)")
        return token
