"""What a node is called and where gateways reach it: the operator's words, checked before anything is started."""

import ipaddress
import re
import secrets
import socket
from collections.abc import Iterable
from urllib.parse import urlsplit

from workers.argv import Binding
from workers.errors import ConfigError
from workers.profile import Profile

LONGEST_ID = 128
NODE_ID = re.compile(rf"[A-Za-z0-9._:-]{{1,{LONGEST_ID}}}")
# As the gateway reads it: scheme, host and port; no user, path or query.
URL = re.compile(r"https?://(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+)(:\d{1,5})?/?", re.IGNORECASE)
EVERYWHERE = ("0.0.0.0", "::")


def node_id_of(given: str | None, profile: Profile, binding: Binding) -> str:
    """The node's name: as given, else one that is readable and its own even among equal host names.

    Raises ConfigError for a name that the registration does not take.
    """
    if given is None:
        suffix = secrets.token_hex(3)
        readable = f"{socket.gethostname()}:{binding.port}:{profile.served_name}"
        return f"{re.sub(r'[^A-Za-z0-9._:-]', '-', readable)[: LONGEST_ID - len(suffix) - 1]}:{suffix}"
    if not NODE_ID.fullmatch(given):
        raise ConfigError(f"--node-id {given[:80]!r}: use letters, digits and . _ : - only, at most {LONGEST_ID}")
    return given


def advertised_url(given: str | None, binding: Binding, redis: str | None) -> str:
    """The address that gateways are told. Raises ConfigError where it is none that they could reach.

    Without a registry nobody is told, and the server's own address does.
    """
    if given is not None:
        return _checked(given)
    if redis is not None:
        _check_reachable(binding, redis)
    host = f"[{binding.host}]" if ":" in binding.host else binding.host
    return f"http://{host}:{binding.port}"


def labels_of(given: Iterable[str]) -> dict[str, str]:
    """`KEY=VALUE`, each key once. Raises ConfigError."""
    labels: dict[str, str] = {}
    for text in given:
        key, sign, value = text.partition("=")
        if not sign or not key.strip() or key in labels:
            raise ConfigError(f"--label {text!r}: it takes KEY=VALUE, each key once")
        labels[key] = value
    return labels


def _checked(url: str) -> str:
    try:
        parts = urlsplit(url)
        good = URL.fullmatch(url) is not None and parts.port != 0
    except ValueError:
        good = False
    if not good:
        raise ConfigError(f"--advertise {url[:200]!r}: expected http://HOST:PORT, without a path or a user")
    if parts.hostname in EVERYWHERE:
        raise ConfigError(f"--advertise {url!r}: {parts.hostname} is no address that a gateway can reach; name one")
    return url.rstrip("/")


def _check_reachable(binding: Binding, redis: str) -> None:
    if binding.host in EVERYWHERE:
        raise ConfigError(
            f"--host {binding.host} listens on every address, and gateways need one: add "
            f"--advertise http://{_own_address(redis) or 'ADDRESS'}:{binding.port} (or FLEETGATE_WORKER_ADVERTISE)"
        )
    if _is_loopback(binding.host) and not _is_loopback(urlsplit(redis).hostname or ""):
        raise ConfigError(
            f"--host {binding.host} is reached from this machine only, and Redis is on another one: give --host the "
            f"private address ({_own_address(redis) or 'ADDRESS'}), or --advertise the URL that gateways reach it by"
        )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _own_address(redis: str) -> str | None:
    """This machine's address on the way to Redis, which gateways are likely to reach as well; None if unknown.

    Connecting a datagram socket sends nothing: the kernel chooses the way, and with it the address.
    """
    parts = urlsplit(redis)
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            parts.hostname, parts.port or 6379, type=socket.SOCK_DGRAM
        )[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.connect(address)
            own = str(probe.getsockname()[0])
    except (OSError, UnicodeError):
        return None
    if _is_loopback(own):
        return None
    return f"[{own}]" if ":" in own else own
