"""The kinds of values that settings have, and what makes one wrong."""

import ipaddress
import os
from pathlib import Path
from typing import Annotated, Any, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, model_validator

Seconds = Annotated[float, Field(gt=0, le=86_400)]
Port = Annotated[int, Field(ge=0, le=65_535)]
Count = Annotated[int, Field(ge=1)]
Name = Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9][A-Za-z0-9._/@:-]*$")]


def _node_url(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("a node's URL looks like http://host:8000 or https://host")
    if parts.username or parts.query or parts.fragment:
        raise ValueError("a node's URL has no user, query or fragment; give a key as api_key")
    try:
        _ = parts.port
    except ValueError:
        raise ValueError("the port of a node's URL is a number up to 65535") from None
    return f"{parts.scheme}://{parts.netloc.lower()}{parts.path}".rstrip("/")


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a listener on `host`."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


NodeUrl = Annotated[str, AfterValidator(_node_url)]


class Section(BaseModel):
    """A part of the tree: nothing unknown, nothing changed after it was read."""

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
        if not secret or not secret.isprintable() or not secret.isascii():
            raise ValueError("a secret is at least one printable ASCII character")
        return secret
