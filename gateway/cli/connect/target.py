"""Finds the gateway that a client is to use: its URL, the model, the model's context."""

import ipaddress
import ssl
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx

from gateway.cli.connect.client import Target
from gateway.config.source import load_config

NO_KEY = "no-key-needed"
"""What clients are given for a gateway without tenants: they want some key."""

_SECONDS = 10.0


class TargetUnknown(Exception):
    """The gateway, or its model, cannot be found out; says what to give."""


Trust = ssl.SSLContext | bool
"""What certificates are checked by: True is the system's way."""


def trusted(ca_file: str | None) -> Trust:
    """The certificates of a file (PEM), or the system's. Raises `TargetUnknown`."""
    try:
        return True if ca_file is None else ssl.create_default_context(cafile=ca_file)
    except OSError as error:  # ssl.SSLError is one
        raise TargetUnknown(f"{ca_file} holds no CA certificates: {error}") from None


def own_url(config: Path | None) -> str:
    """The URL of the gateway that this configuration (none: defaults and variables) starts. Raises `ConfigError`."""
    listen = load_config(config).listen
    host = listen.host or "0.0.0.0"
    try:
        address = ipaddress.ip_address(host)
        if address.is_unspecified:
            host = "127.0.0.1"
        elif address.version == 6:
            host = f"[{host}]"
    except ValueError:
        pass  # a name
    return f"{'http' if listen.tls is None else 'https'}://{host}:{listen.port}"


def clean_url(url: str) -> str:
    """A gateway's URL without `/v1`. Raises `TargetUnknown`."""
    if not _is_url(url):
        raise TargetUnknown(f"{url!r} is not the URL of a gateway: use http://HOST:8080")
    return url.rstrip("/").removesuffix("/v1").rstrip("/")


def _is_url(url: str) -> bool:
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018 -- raises where it is no number of a port
    except ValueError:
        return False
    if not url.isprintable() or " " in url or parts.query or parts.fragment:
        return False
    return parts.scheme in ("http", "https") and bool(parts.hostname)


def check_key(key: str | None) -> None:
    """Raises `TargetUnknown` for a key that no header can carry: it would be written where clients fail over it."""
    if key is not None and not (key.isascii() and key.isprintable() and key == key.strip()):
        raise TargetUnknown(
            "the key has blanks at its ends, or characters other than ASCII: it was cut off or mistyped"
        )


def find_target(url: str, key: str | None, model: str | None, trust: Trust = True) -> Target:
    """The gateway's model and what is known of it. Raises `TargetUnknown`."""
    url = clean_url(url)
    check_key(key)
    if model is not None and not model.isprintable():
        raise TargetUnknown(f"{model!a} is not the name of a model: it has characters that cannot be shown")
    try:
        cards = _cards(url, key, trust)
    except TargetUnknown:
        if model is None:
            raise
        return Target(url, key or NO_KEY, model)  # a gateway that does not run yet, or not from here
    names = [str(card["id"]) for card in cards if card.get("id")]
    if model is None:
        if not names:
            raise TargetUnknown(f"{url} serves no model now: give --model")
        if len(set(names)) > 1:
            raise TargetUnknown(f"{url} serves several models ({', '.join(names)}): give --model")
        model = names[0]
    card = next((card for card in cards if card.get("id") == model), {})
    return described(Target(url, key or NO_KEY, model), card)


def described(target: Target, card: dict[str, Any]) -> Target:
    """The target with what the model's entry in the list tells of it."""
    context = _tokens(card, "context_length") or _tokens(card, "max_model_len")
    return replace(target, context=context, output_cap=_tokens(card, "max_output_tokens"))


def _tokens(card: dict[str, Any], name: str) -> int | None:
    count = card.get(name)
    return count if isinstance(count, int) and count > 0 else None


def _cards(url: str, key: str | None, trust: Trust) -> list[dict[str, Any]]:
    headers = {"authorization": f"Bearer {key}"} if key else {}
    try:
        answer = httpx.get(f"{url}/v1/models", headers=headers, timeout=_SECONDS, verify=trust)
    except (httpx.HTTPError, httpx.InvalidURL, UnicodeError, OSError) as error:
        raise TargetUnknown(f"no gateway answers on {url} ({error}): give --url, or --model to go on without") from None
    if answer.status_code == 401 and key:
        raise TargetUnknown(f"{url} refuses the key: it is unknown, revoked or mistyped (`fleetgate keys list`)")
    if answer.status_code == 401:
        raise TargetUnknown(f"{url} wants a key of a tenant: give --key or set FLEETGATE_KEY (`fleetgate keys new`)")
    try:
        return [card for card in answer.json()["data"] if isinstance(card, dict)]
    except (ValueError, KeyError, TypeError):
        raise TargetUnknown(f"{url} is not a gateway: GET /v1/models gave {answer.status_code}") from None
