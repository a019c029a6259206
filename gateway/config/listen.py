"""Settings of the two listeners: for clients, and for operators."""

import ipaddress
import re
import ssl
from typing import Annotated, Self

from pydantic import AfterValidator, Field, ValidationInfo, field_validator, model_validator
from pydantic_core import PydanticCustomError

from gateway.config.types import (
    Count,
    ListenHost,
    Name,
    Network,
    PemFile,
    Port,
    Secret,
    Section,
    is_loopback,
    load_certificate,
)


class Tls(Section):
    """Certificate and key as PEM files."""

    cert: PemFile
    """A PEM file with the certificate and its chain."""
    key: PemFile
    """A PEM file with its key, without a passphrase."""

    @model_validator(mode="after")
    def _loads(self) -> Self:
        try:
            load_certificate(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), self.cert, self.key)
        except OSError as error:  # ssl.SSLError is one
            raise ValueError(f"{self.cert} and {self.key} are not a certificate and its key: {error}") from None
        return self


def _host_name(name: str) -> str:
    """A host name as browsers send it, without port and brackets."""
    name = name.strip().lower().removeprefix("[").removesuffix("]").removesuffix(".")
    try:
        return str(ipaddress.ip_address(name))
    except ValueError:
        if not re.fullmatch(r"\*|(\*\.)?[a-z0-9_-]+(\.[a-z0-9_-]+)*", name):
            raise ValueError("expected a name without a port: gateway.example.com, *.example.com or *") from None
    return name


HostName = Annotated[str, AfterValidator(_host_name)]


_ORIGIN = re.compile(r"\*|null|[a-z][a-z0-9+.-]*://[^/?#@\s]+")
_OWN_PORT = re.compile(r"http://.*:80|https://.*:443")


def _origin(origin: str) -> str:
    """An origin as browsers send it: any other spelling would match no page."""
    if not origin.isascii() or origin != origin.lower() or not _ORIGIN.fullmatch(origin) or _OWN_PORT.fullmatch(origin):
        raise ValueError(
            f"{origin!a} is not an origin as browsers send it: https://app.example.com or http://localhost:3000, "
            "in lower case, with no path, no slash at its end and no port 80 or 443 of its scheme; or *"
        )
    return origin


Origin = Annotated[str, AfterValidator(_origin)]


class Listen(Section):
    """Where clients connect."""

    host: ListenHost = "127.0.0.1"
    """The address; empty: all of IPv4, as 0.0.0.0. Beyond loopback tenants are needed, or `no_auth`."""
    port: Port = 8080
    """The port; 0 takes a free one and says which."""
    tls: Tls | None = None
    """Certificate and key. Without them: plain HTTP."""
    max_connections: Count = 10_000
    """Connections open at once in one process, fewer where its open files have room for fewer; beyond it 503."""
    max_connections_per_address: Count = 1024
    """Connections of them from one address (one /64 of IPv6). `trusted_proxies` are not bounded so."""
    trusted_proxies: tuple[Network, ...] = ()
    """Addresses or networks whose X-Forwarded-For and X-Forwarded-Proto are believed."""
    cors_origins: tuple[Origin, ...] = ()
    """Origins of web pages that may call the gateway; `*` for all."""
    hosts: tuple[HostName, ...] = ()
    """Further names of the gateway, where no key is needed: `*.suffix` for all names below a suffix, `*` for all."""


class AdminToken(Section):
    """The token of one administrator, whose name the audit shows."""

    name: Name
    """Whom the audit names."""
    token: Secret
    """The token itself."""


class Admin(Section):
    """The second listener: metrics and control. A token is mandatory where it is not on loopback."""

    host: ListenHost = "127.0.0.1"
    """The address. Beyond loopback a token is mandatory."""
    port: Port = 9091
    """The port; 0 takes a free one and says which."""
    tokens: tuple[AdminToken, ...] = ()
    """One for each administrator, so that the audit tells them apart."""
    token: Annotated[Secret | None, Field(validate_default=True)] = None
    """A token that the audit shows as `admin`."""
    hosts: tuple[HostName, ...] = ()
    """Further names of this listener, where it needs no token, as `listen.hosts`."""
    open_metrics: bool = False
    """Whether /metrics can be read without the token."""

    @field_validator("tokens")
    @classmethod
    def _has_distinct_tokens(cls, tokens: tuple[AdminToken, ...]) -> tuple[AdminToken, ...]:
        """Of two tokens with one name only the last would be valid."""
        names = [each.name for each in tokens]
        for index, name in enumerate(names):
            if name in names[:index]:
                message = f"the token's name {name} is given twice"
                raise PydanticCustomError("given_twice", "{message}", {"message": message, "at": (index, "name")})
        return tokens

    @field_validator("token")
    @classmethod
    def _not_among_them(cls, token: Secret | None, info: ValidationInfo) -> Secret | None:
        if token is not None and any(each.name == "admin" for each in info.data.get("tokens", ())):
            raise ValueError("admin.tokens has a token named admin, which is the name of admin.token")
        return token

    @field_validator("token")
    @classmethod
    def _closed(cls, token: Secret | None, info: ValidationInfo) -> Secret | None:
        host = info.data.get("host", "127.0.0.1")
        if token is None and not info.data.get("tokens") and not is_loopback(host):
            raise ValueError(f"admin.host {host} is beyond loopback: set admin.token (FLEETGATE_ADMIN__TOKEN)")
        return token
