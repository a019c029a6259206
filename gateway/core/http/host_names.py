"""Hosts and ports that can be connected to or listened on."""

import ipaddress
import re

_LABEL = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")
_LONGEST = 253

NO_HOST = "a host is a name (ASCII: xn--... for other scripts), an IPv4 address, or an IPv6 address"


def is_host(text: str) -> bool:
    """Whether `text`, without brackets, is an address or can be a name. A name that ends in a number is neither."""
    try:
        ipaddress.ip_address(text)
        return True
    except ValueError:
        pass
    labels = text.removesuffix(".").split(".")
    whole = len(text) <= _LONGEST and all(_LABEL.fullmatch(label) for label in labels)
    return whole and not re.fullmatch("[0-9]+|0[xX][0-9a-fA-F]*", labels[-1])


def is_bracketed(text: str) -> bool:
    """Whether `text` is a host as URLs have it, with an IPv6 address in brackets."""
    if text.startswith("[") and text.endswith("]"):
        return ":" in text and is_host(text[1:-1])
    return ":" not in text and is_host(text)


def is_port(text: str) -> bool:
    """Whether `text` is a port that can be connected to."""
    return re.fullmatch("[0-9]{1,5}", text) is not None and 1 <= int(text) <= 65_535
