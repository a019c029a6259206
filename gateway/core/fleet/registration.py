"""What a node says of itself, and whether it is believed. docs/registration.md is the contract.

Whoever can write to Redis could announce an address to which prompts are then sent. So a gateway that has the secret
believes records that are signed with it, and one without believes the address ranges that it lists. Models that are
listed bound both.
"""

import hashlib
import hmac
import ipaddress
import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from gateway.core.fleet.gpus import GpuFacts, read_gpus
from gateway.core.fleet.launch_facts import LaunchFacts, read_launch_facts

TIME_TO_LIVE = 20.0
"""Seconds: how old a heartbeat may be."""

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


_HEARTBEAT = re.compile(rb'"heartbeat_at": ?([0-9]+(?:\.[0-9]+)?)(?=[,}])')
"""Only a number behind the name of a field looks like this: a quote within a string is escaped."""

_URL = re.compile(r"(https?)://(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(:\d{1,5})?/?", re.IGNORECASE)
"""Scheme, host and port; no user, path or query."""


class UntrustedRegistration(ValueError):
    """The record is not used. The message says why; it names no secret."""


@dataclass(frozen=True, slots=True)
class RegistrationTrust:
    """`secret` that records must be signed with, None where none is shared. Where `networks` or `models` are listed, a
    record must be within them; without a secret `networks` must be. `skew`: seconds by which clocks may differ."""

    secret: str | None = None
    networks: tuple[Network, ...] = ()
    models: frozenset[str] = frozenset()
    skew: float = 5.0


@dataclass(frozen=True, slots=True)
class RegisteredNode:
    """A record that is trusted. Times are seconds since 1970; `max_concurrency` requests at once, `price` US dollars
    an hour, None where unknown. `state`: starting, ready, draining or failed."""

    node_id: str
    url: str
    host: str
    models: tuple[str, ...]
    state: str
    max_concurrency: int
    weight: float
    price: float | None
    labels: tuple[tuple[str, str], ...]
    started_at: float
    drain_deadline: float | None
    launch: LaunchFacts
    gpus: tuple[GpuFacts, ...]


def read_registration(text: bytes, trust: RegistrationTrust, now: float) -> RegisteredNode:
    """The record in `text`, as it stands in Redis at `now` (seconds since 1970). Raises `UntrustedRegistration`."""
    try:
        record = json.loads(text)
        registered = _read(record)
        heartbeat = float(record["heartbeat_at"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        if isinstance(error, UntrustedRegistration):
            raise
        raise UntrustedRegistration(f"is not a record of schema 1: {type(error).__name__} {error}") from None
    _check_heartbeat(heartbeat, trust, now)
    _check_signature(record, trust.secret)
    _check_place(registered, trust)
    return registered


class KnownRegistrations:
    """Spares reading records that were renewed and say the same: of 1,000 nodes 200 are renewed in a second, and to
    read one takes 50 µs. Signed ones are read each time."""

    __slots__ = ("_known",)

    def __init__(self) -> None:
        self._known: dict[str, tuple[bytes, RegisteredNode]] = {}
        """By name: a digest of all but the heartbeat, and what it said."""

    def read(self, node_id: str, text: bytes, trust: RegistrationTrust, now: float) -> RegisteredNode:
        """As `read_registration`, of the record under this name."""
        beats = _HEARTBEAT.findall(text) if trust.secret is None else ()
        if len(beats) != 1:
            return read_registration(text, trust, now)
        digest = hashlib.blake2b(_HEARTBEAT.sub(b"", text), digest_size=16).digest()
        known = self._known.get(node_id)
        if known is None or known[0] != digest:
            record = read_registration(text, trust, now)
            self._known[node_id] = digest, record
            return record
        _check_heartbeat(float(beats[0]), trust, now)
        return known[1]

    def keep(self, names: Collection[str]) -> None:
        """Forget all others."""
        if len(self._known) > len(names):
            self._known = {name: known for name, known in self._known.items() if name in names}


def _check_heartbeat(heartbeat: float, trust: RegistrationTrust, now: float) -> None:
    if not now - TIME_TO_LIVE - trust.skew <= heartbeat <= now + trust.skew:
        raise UntrustedRegistration(
            f"its heartbeat is {now - heartbeat:.0f} s old (or clocks differ by more than the skew)"
        )


def _read(record: Mapping[str, Any]) -> RegisteredNode:
    if record["schema"] != 1:
        raise UntrustedRegistration(f"its schema is {record['schema']!r}, not 1")
    url = _URL.fullmatch(record["url"])
    if url is None:
        raise UntrustedRegistration("its url is not http://HOST:PORT")
    price, weight = record.get("price"), float(record.get("weight", 1.0))
    if not 0 < weight <= 1000 or record["state"] not in ("starting", "ready", "draining", "failed"):
        raise UntrustedRegistration("its weight or its state is invalid")
    return RegisteredNode(
        node_id=str(record["node_id"]),
        url=url[0].lower().rstrip("/"),
        host=url[2].strip("[]"),
        models=tuple(str(model) for model in record["models"]),
        state=record["state"],
        max_concurrency=max(1, int(record["capacity"]["max_concurrency"])),
        weight=weight,
        price=None if price is None else float(price["usd_per_hour"]),
        labels=tuple(sorted((str(name), str(value)) for name, value in record.get("labels", {}).items())),
        started_at=float(record["started_at"]),
        drain_deadline=None if record.get("drain_deadline") is None else float(record["drain_deadline"]),
        launch=read_launch_facts(record),
        gpus=read_gpus(record.get("gpus")),
    )


def _check_signature(record: Mapping[str, Any], secret: str | None) -> None:
    if secret is None:
        return
    unsigned = {key: value for key, value in record.items() if key != "signature"}
    canonical = json.dumps(unsigned, sort_keys=True, separators=(",", ":")).encode()
    expected = hmac.new(secret.encode(), canonical, hashlib.sha256).hexdigest()
    if not hmac.compare_digest(expected.encode(), str(record.get("signature", "")).encode()):
        raise UntrustedRegistration("it is not signed with the secret")


def _check_place(registered: RegisteredNode, trust: RegistrationTrust) -> None:
    foreign = [model for model in registered.models if trust.models and model not in trust.models]
    if foreign or not registered.models:
        raise UntrustedRegistration(f"it serves {', '.join(foreign) or 'nothing'}, which is not listed")
    if not trust.networks and trust.secret is not None:
        return
    host = registered.host
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        raise UntrustedRegistration(
            f"{host!r} is a name, and only addresses in the listed ranges are accepted"
        ) from None
    if not any(address in network for network in trust.networks):
        raise UntrustedRegistration(f"{host} is in none of the listed address ranges")
