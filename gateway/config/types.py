"""The types of settings, with their checks."""

import ipaddress
import os
import re
import ssl
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, model_validator

from gateway.core.http.host_names import NO_HOST, is_bracketed, is_host, is_port

Seconds = Annotated[float, Field(gt=0, le=86_400)]
Port = Annotated[int, Field(ge=0, le=65_535)]
MOST = 10**15
"""The largest count: JSON and Lua numbers hold it exactly."""

Count = Annotated[int, Field(ge=1, le=MOST)]
Name = Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9][A-Za-z0-9._/@:-]*$")]


_NODE_URL = re.compile(r"(https?)://([^/]*)((?:/[A-Za-z0-9._~!$&'()*+,;=:@%-]*)*)", re.IGNORECASE)


def node_url(url: str) -> str:
    """`url` as it is used: lower-case scheme and host, no slash at its end. Raises ValueError."""
    found = _NODE_URL.fullmatch(url)
    if found is None and re.match("https?://[^/]*[?#]", url, re.IGNORECASE):
        raise ValueError("a node's URL has no user, query or fragment; give a key as api_key")
    if found is None:
        raise ValueError("a node's URL looks like http://host:8000 or https://host")
    scheme, place, path = found.groups()
    if "@" in place:
        raise ValueError("a node's URL has no user, query or fragment; give a key as api_key")
    port = place.rpartition("]")[2].partition(":")[2]
    host = place.removesuffix(f":{port}")
    if not is_bracketed(host):
        raise ValueError(f"a node's URL looks like http://host:8000: {NO_HOST} in brackets")
    if host != place and not is_port(port):
        raise ValueError("the port of a node's URL is a number from 1 up to 65535")
    path = path.rstrip("/")
    if path.endswith("/v1"):
        raise ValueError("leave /v1 out of a node's URL: the gateway adds it to every path")
    return f"{scheme.lower()}://{place.lower()}{path}"


def _host(name: str) -> str:
    if not is_host(name):
        raise ValueError(f"{NO_HOST}, without brackets and port")
    return name


def _listen_host(name: str) -> str:
    return name and _host(name)


def _authorities(path: Path) -> Path:
    try:
        ssl.create_default_context(cafile=path)
    except OSError as error:  # ssl.SSLError is one
        raise ValueError(f"the file {path} cannot be used: {error.strerror or error}") from None
    return path


def load_certificate(context: ssl.SSLContext, cert: Path, key: Path | None) -> None:
    """Load a certificate and its key into `context`. Raises OSError, or ValueError where the key has a passphrase."""

    def locked() -> str:
        raise ValueError(f"the key in {key or cert} is encrypted: keys with a passphrase are not supported")

    context.load_cert_chain(cert, key, locked)


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a listener on `host`."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


NodeUrl = Annotated[str, AfterValidator(node_url)]
Host = Annotated[str, AfterValidator(_host)]
ListenHost = Annotated[str, AfterValidator(_listen_host)]
"""Empty stands for 0.0.0.0."""
CaFile = Annotated[Path, AfterValidator(_authorities)]
"""A PEM file with certificate authorities."""


class Section(BaseModel):
    """A part of the tree: frozen, and without unknown settings."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class Secret(Section):
    """A secret by reference: `{env: NAME}` or `{file: PATH}`; or itself, as a plain string. Never printed."""

    env: str | None = None
    file: Path | None = None
    value: SecretStr | None = None

    @model_validator(mode="before")
    @classmethod
    def _plain(cls, given: Any) -> Any:
        if isinstance(given, bool | int | float):
            raise ValueError("a secret is a string: put quotes around it")
        if not isinstance(given, str | dict | Secret):
            raise ValueError("a secret is a string, {env: NAME} or {file: PATH}")
        return {"value": given} if isinstance(given, str) else given

    @model_validator(mode="after")
    def _readable(self) -> Self:
        if sum(source is not None for source in (self.env, self.file, self.value)) != 1:
            raise ValueError("a secret is a string, {env: NAME} or {file: PATH}")
        self.reveal()
        return self

    def reveal(self) -> str:
        """The secret itself; ValueError names the variable or file that does not hold one."""
        if self.value is not None:
            secret = self.value.get_secret_value()
        elif self.env is not None:
            secret = os.environ.get(self.env, "")
            if not secret:
                raise ValueError(f"the environment variable {self.env} is not set")
        else:
            assert self.file is not None
            try:
                secret = self.file.read_text().strip()
            except OSError as error:
                raise ValueError(f"the file {self.file} cannot be read: {error.strerror}") from None
            except UnicodeDecodeError:
                raise ValueError(f"the file {self.file} is not text") from None
        if not secret or not secret.isprintable() or not secret.isascii():
            raise ValueError("a secret is at least one printable ASCII character")
        return secret
