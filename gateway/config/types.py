"""The types of settings, with their checks."""

import ipaddress
import os
import re
import ssl
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Self, Union, get_args, get_origin

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PrivateAttr, SecretStr, model_validator

from gateway.core.access.api_keys import ID_PATTERN
from gateway.core.http.host_names import NO_HOST, is_bracketed, is_host, is_port

Seconds = Annotated[float, Field(gt=0, le=86_400)]
Port = Annotated[int, Field(ge=0, le=65_535)]
MOST = 10**15
"""The largest count: JSON and Lua numbers hold it exactly."""

Count = Annotated[int, Field(ge=1, le=MOST)]
NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._/@:-]*$"
CLASS_PATTERN = r"^[a-z0-9][a-z0-9_-]{0,31}$"
GROUP_PATTERN = r"^[A-Za-z0-9._-]{1,64}$"
HEADER_PATTERN = r"^[A-Za-z0-9_-]+$"
KEY_ID_PATTERN = f"^{ID_PATTERN}$"
PREFIX_PATTERN = r"^[A-Za-z]([A-Za-z0-9._-]*[A-Za-z._-])?$"
SHOWN_PATTERN = r"^[^\x00-\x1f\x7f-\x9f]+$"
PATTERN_WORDS: Mapping[str, str] = {
    NAME_PATTERN: "expected letters, digits and any of . _ / @ : -, with a letter or digit first",
    CLASS_PATTERN: "expected up to 32 lower-case letters, digits, _ and -, with a letter or digit first",
    GROUP_PATTERN: "expected up to 64 letters, digits and any of . _ -",
    HEADER_PATTERN: "expected the name of a header: letters, digits, _ and -",
    KEY_ID_PATTERN: "expected a key's id, as in `fleetgate keys list`",
    PREFIX_PATTERN: "expected letters, digits and any of . _ -, with a letter first and no digit last",
    SHOWN_PATTERN: "expected no control characters",
}
"""What a text has to be, by its pattern."""

Name = Annotated[str, Field(min_length=1, max_length=128, pattern=NAME_PATTERN)]


_API_PATHS = ("/v1/models", "/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages")
"""What is pasted with a node's URL from the line of a client."""

_NODE_URL = re.compile(r"(https?)://([^/]*)((?:/[A-Za-z0-9._~!$&'()*+,;=:@%-]*)*)", re.IGNORECASE)


def node_url(url: str) -> str:
    """`url` as it is used: lower-case scheme and host, no slash at its end. Raises ValueError."""
    if re.match("https?://[^?#]*[?#]", url, re.IGNORECASE):
        raise ValueError("a node's URL has no user, query or fragment; give a key as api_key")
    found = _NODE_URL.fullmatch(url)
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
    if path.endswith("/v1") or path.endswith(_API_PATHS):
        raise ValueError("leave /v1 and what follows it out of a node's URL: the gateway adds the path of each request")
    return f"{scheme.lower()}://{place.lower()}{path}"


def _host(name: str) -> str:
    if not is_host(name):
        raise ValueError(f"{NO_HOST}, without brackets and port")
    return name


def _listen_host(name: str) -> str:
    return name and _host(name)


def _network(text: str) -> str:
    try:
        ipaddress.ip_network(text)
    except ValueError:
        raise ValueError(f"{text!r} is not an address or a network such as 10.0.0.0/8") from None
    return text


def _authorities(path: Path) -> Path:
    try:
        ssl.create_default_context(cafile=path)
    except OSError as error:  # ssl.SSLError is one
        raise ValueError(f"the file {path} cannot be used: {error.strerror or error}") from None
    return path


def _there(path: Path) -> Path:
    if not path.is_file():
        raise ValueError(f"the file {path} does not exist")
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
Network = Annotated[str, AfterValidator(_network)]
"""Empty stands for 0.0.0.0."""
CaFile = Annotated[Path, AfterValidator(_authorities)]
"""A PEM file with certificate authorities."""
PemFile = Annotated[Path, AfterValidator(_there)]
"""A PEM file with a certificate or a key. Whether it holds one, shows where both are loaded together."""


class Section(BaseModel):
    """A part of the tree: frozen, and without unknown settings."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    @model_validator(mode="before")
    @classmethod
    def _no_truth_as_number(cls, given: Any) -> Any:
        """`yes` and `on` are true in YAML, which pydantic takes for 1. As text they are refused with their path."""
        if not isinstance(given, dict):
            return given
        fields = cls.model_fields
        return {
            name: _truth_as_text(fields[name].annotation, value)
            if isinstance(value, bool | dict) and name in fields
            else value
            for name, value in given.items()
        }


def _truth_as_text(annotation: Any, value: Any) -> Any:
    """`value`, as text where it is a truth value and `annotation` stands for numbers."""
    kinds = set(_kinds(annotation))
    if isinstance(value, bool):
        return value if kinds & {bool, str, Any} or not kinds & {int, float} else str(value)
    mapped = next((kind for kind in kinds if get_origin(kind) is dict), None)
    if mapped is None:
        return value
    return {name: _truth_as_text(get_args(mapped)[1], each) for name, each in value.items()}


def _kinds(annotation: Any) -> Iterator[Any]:
    """The types that `annotation` is a union of."""
    if get_origin(annotation) in (Union, UnionType):
        for part in get_args(annotation):
            yield from _kinds(part)
    elif get_origin(annotation) is Annotated:
        yield from _kinds(get_args(annotation)[0])
    else:
        yield annotation


_VARIABLE = re.compile(r"\$\{\w+\}")
"""A shell's variable, written where the file has none."""


class Secret(Section):
    """A secret by reference: `{env: NAME}` or `{file: PATH}`; or itself, as a plain string. Never printed."""

    env: str | None = None
    file: Path | None = None
    value: SecretStr | None = None
    _read: SecretStr | None = PrivateAttr(default=None)
    """What it was when the configuration was read, so that another content of the same file is a change."""

    @model_validator(mode="before")
    @classmethod
    def _plain(cls, given: Any) -> Any:
        if isinstance(given, str) and _VARIABLE.fullmatch(given):
            raise ValueError("a secret is a string, {env: NAME} or {file: PATH}")
        if isinstance(given, bool | int | float):
            raise ValueError("a secret is a string: put quotes around it")
        if not isinstance(given, str | dict | Secret):
            raise ValueError("a secret is a string, {env: NAME} or {file: PATH}")
        return {"value": given} if isinstance(given, str) else given

    @model_validator(mode="after")
    def _readable(self) -> Self:
        if sum(source is not None for source in (self.env, self.file, self.value)) != 1:
            raise ValueError("a secret is a string, {env: NAME} or {file: PATH}")
        self._read = SecretStr(self.reveal())
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
