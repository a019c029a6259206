"""Keeps web pages away from a listener that asks for no key.

A browser sends what any page asks of it to any address (a cross-site request), and a page whose own name was pointed at
this machine after it was loaded (DNS rebinding) also reads the answers. Neither can change the headers that tell: the
name that the browser was sent to (Host), the page's origin (Origin, with every request that is not a plain GET) and
how far apart they are (Sec-Fetch-Site).

    Origin                         Sec-Fetch-Site   Host                      served
    in `origins`, or they have *   any              any                       yes
    none, or the listener's own    not cross-site   none                      yes: every browser sends one
    none, or the listener's own    not cross-site   trusted, see below        yes
    none, or the listener's own    not cross-site   any other                 no: DNS rebinding
    any other, or null             any              any                       no: a page of somebody else
    none                           cross-site       any                       no: a page of somebody else

Trusted is a name in `hosts`, localhost, a loopback address, and where other machines reach the listener any address and
any name that nobody can have in the public DNS: without a dot, or below one of `PRIVATE_SUFFIXES`.
"""

import ipaddress
import re
from collections.abc import Iterable, Mapping

PRIVATE_SUFFIXES = (".localhost", ".local", ".internal", ".home.arpa")
"""Reserved by RFC 6761, RFC 6762, ICANN (2024) and RFC 8375."""

_HOST = re.compile(r"(?:\[([0-9a-f:.]+)\]|([^\s:\[\]/@]+))(?::\d{0,5})?")
_ORIGIN = re.compile(rb"(https?)://([^/\s]+)")
_REMEMBERED = 256


class BrowserGuard:
    """Judges requests by their headers. What it decided about a Host is remembered."""

    def __init__(
        self,
        section: str,
        hosts: Iterable[str],
        origins: Iterable[str] = (),
        beyond: bool = False,
        because: str = "This listener requires no key",
    ) -> None:
        """`section` of the configuration has `hosts`: names, `*.suffix` for all below one, or `*`. `origins` as
        browsers send them, or `*`. `beyond`: other machines reach the listener. `because` begins what is said to those
        that are not served."""
        self._because = because
        self._section = section
        self._names = frozenset(name for name in hosts if not name.startswith("*"))
        self._suffixes = tuple(name[1:] for name in hosts if name.startswith("*"))
        self._origins = frozenset(origin.encode() for origin in origins)
        self._open = b"*" in self._origins
        self._beyond = beyond
        self._trusted: dict[bytes, bool] = {}

    def problem(self, headers: Mapping[bytes, bytes]) -> str | None:
        """Why the request is not served, and what to do; None where it is. `headers` has lower-case names."""
        if self._open:
            return None
        host, origin = headers.get(b"host", b""), headers.get(b"origin")
        if origin is not None and origin in self._origins:
            return None
        cross_site = headers.get(b"sec-fetch-site") == b"cross-site"
        if cross_site or (origin is not None and not _same(origin, host)):
            page = "pages of other sites" if origin is None else f"pages of {_shown(origin)}"
            remedy = ": list it in listen.cors_origins if they may" if self._section == "listen" else ""
            return f"{self._because}, so {page} cannot call it{remedy}."
        return self.host_problem(headers)

    def host_problem(self, headers: Mapping[bytes, bytes]) -> str | None:
        """The same by the name alone that the request was sent to: for a page that people follow links to."""
        host = headers.get(b"host", b"")
        if not host or self._trusts(host):
            return None
        remedy = f"list that name in {self._section}.hosts if it is this gateway's"
        return f"{self._because}, so it is not served under the name {_shown(host)}: {remedy}."

    def _trusts(self, host: bytes) -> bool:
        trusted = self._trusted.get(host)
        if trusted is None:
            trusted = self._judge(host.decode("latin-1"))
            if len(self._trusted) >= _REMEMBERED:
                self._trusted.clear()
            self._trusted[host] = trusted
        return trusted

    def _judge(self, host: str) -> bool:
        found = _HOST.fullmatch(host.strip().lower())
        if found is None:
            return False
        name = (found[1] or found[2]).removesuffix(".")
        if name in self._names or name.endswith(self._suffixes):
            return True
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            local = name == "localhost" or name.endswith(".localhost")
            return local or (self._beyond and ("." not in name or name.endswith(PRIVATE_SUFFIXES)))
        mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
        return self._beyond or (mapped or address).is_loopback or address.is_unspecified


def _same(origin: bytes, host: bytes) -> bool:
    """Whether `origin` is that of a page which `host` itself served: browsers leave a scheme's own port out."""
    found = _ORIGIN.fullmatch(origin)
    if found is None:
        return False
    port = b":80" if found[1] == b"http" else b":443"
    return found[2].lower().removesuffix(port) == host.strip().lower().removesuffix(port)


def _shown(value: bytes) -> str:
    return ascii(value[:100].decode("latin-1"))
