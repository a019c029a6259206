"""Which requests come from a web page that may not call, by their headers alone."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.access.browser_guard import BrowserGuard

PAGE = "https://app.example"
ON_LOOPBACK = BrowserGuard("listen", ("gw.example", "*.corp.example"), (PAGE,))
BEYOND = BrowserGuard("listen", ("gw.example", "*.corp.example"), (PAGE,), beyond=True)
EVERYBODY = BrowserGuard("listen", ("*",))

PORT = st.sampled_from(["", ":8080", ":80", ":65535"])
LABEL = st.from_regex(r"[a-z]([a-z0-9-]{0,8}[a-z0-9])?", fullmatch=True)
PUBLIC_NAME = st.builds(lambda labels, end: ".".join([*labels, end]), st.lists(LABEL, min_size=1), LABEL).filter(
    lambda name: not name.endswith((".localhost", ".local", ".internal", ".home.arpa", ".example"))
)


def served(guard: BrowserGuard, **headers: str) -> bool:
    problem = guard.problem({name.replace("_", "-").encode(): value.encode() for name, value in headers.items()})
    assert problem is None or "This listener requires no key" in problem
    return problem is None


@pytest.mark.parametrize(
    ("host", "on_loopback", "beyond"),
    [
        ("localhost", True, True),
        ("LocalHost:8080", True, True),
        ("localhost.", True, True),
        ("app.localhost:8080", True, True),
        ("127.0.0.1:8080", True, True),
        ("127.9.9.9", True, True),
        ("[::1]:8080", True, True),
        ("[0:0:0:0:0:0:0:1]", True, True),
        ("[::ffff:127.0.0.1]", True, True),
        ("0.0.0.0:8080", True, True),  # as people copy it from a server's greeting
        ("GW.example.:8080", True, True),  # configured
        ("a.b.corp.example", True, True),
        ("", True, True),  # HTTP/1.0: no browser
        ("10.0.0.5:8080", False, True),  # a pod's address
        ("[fd00::5]", False, True),
        ("gateway:8080", False, True),  # a container's name
        ("fleetgate.default.svc.cluster.local", False, True),
        ("gateway.internal", False, True),
        ("evil.example", False, False),
        ("gw.example.evil.test", False, False),
        ("corp.example", False, False),
        ("evilcorp.example", False, False),
        ("localhost.evil.test", False, False),
        ("127.0.0.1.evil.test", False, False),
        ("localhost:8080@evil.test", False, False),
        ("[::1].evil.test", False, False),
        ("evil.test:localhost", False, False),
        ("::1", False, False),
        ("localhost evil.test", False, False),
        ("[", False, False),
        (":8080", False, False),
    ],
)
def test_hosts(host: str, on_loopback: bool, beyond: bool) -> None:
    for headers in ({"host": host}, {"host": host, "sec_fetch_site": "same-origin"}, {"host": host}):
        assert served(ON_LOOPBACK, **headers) == on_loopback
        assert served(BEYOND, **headers) == beyond
    assert served(EVERYBODY, host=host) or host in ("", "[", ":8080", "::1") or any(c in host for c in "@ ]:")


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"host": "localhost:8080", "origin": "http://localhost:8080"}, True),
        ({"host": "localhost", "origin": "http://localhost"}, True),
        ({"host": "localhost:80", "origin": "http://localhost"}, True),
        ({"host": "localhost:443", "origin": "https://LOCALHOST"}, True),
        ({"host": "localhost:8080", "origin": "http://localhost:3000"}, False),
        ({"host": "localhost:8080", "origin": "http://localhost"}, False),
        ({"host": "127.0.0.1:8080", "origin": "http://localhost:8080"}, False),
        ({"host": "localhost:8080", "origin": "null"}, False),
        ({"host": "localhost:8080", "origin": ""}, False),
        ({"host": "localhost:8080", "origin": "file://"}, False),
        ({"host": "localhost:8080", "origin": "http://evil.test"}, False),
        ({"host": "localhost:8080", "origin": "http://localhost:8080.evil.test"}, False),
        ({"host": "evil.test:8080", "origin": "http://evil.test:8080"}, False),  # rebinding: its own origin
        ({"host": "localhost:8080", "origin": PAGE}, True),
        ({"host": "localhost:8080", "origin": PAGE, "sec_fetch_site": "cross-site"}, True),
        ({"host": "gateway.elsewhere.test", "origin": PAGE}, True),  # who it is, the browser has said
        ({"host": "localhost:8080", "origin": f"{PAGE}:444"}, False),
        ({"host": "localhost:8080", "origin": f"{PAGE}.evil.test"}, False),
        ({"host": "localhost:8080", "sec_fetch_site": "cross-site"}, False),
        ({"host": "localhost:8080", "origin": "http://localhost:8080", "sec_fetch_site": "cross-site"}, False),
        ({"host": "localhost:8080", "sec_fetch_site": "same-origin"}, True),
        ({"host": "localhost:8080", "sec_fetch_site": "none"}, True),
    ],
)
def test_origins(headers: dict[str, str], expected: bool) -> None:
    assert served(ON_LOOPBACK, **headers) == expected
    assert served(BEYOND, **headers) == expected


def test_where_every_origin_is_listed_every_page_may() -> None:
    guard = BrowserGuard("listen", (), ("*",))
    assert served(guard, host="evil.test", origin="http://evil.test", sec_fetch_site="cross-site")


@given(PUBLIC_NAME, PORT, st.sampled_from(["", "."]), st.booleans())
def test_no_name_of_the_public_dns_is_served_in_any_spelling(name: str, port: str, dot: str, upper: bool) -> None:
    host = (name.upper() if upper else name) + dot + port
    for guard in (ON_LOOPBACK, BEYOND):
        assert not served(guard, host=host)
        assert not served(guard, host=host, origin=f"http://{name}{port}")


@given(st.ip_addresses(), PORT)
def test_addresses_are_served_beyond_loopback_and_only_its_own_on_it(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address, port: str
) -> None:
    host = (f"[{address}]" if address.version == 6 else str(address)) + port
    assert served(BEYOND, host=host)
    own = getattr(address, "ipv4_mapped", None) or address
    assert served(ON_LOOPBACK, host=host) == (own.is_loopback or address.is_unspecified)


@given(st.binary(max_size=40), st.one_of(st.none(), st.binary(max_size=40)))
def test_nothing_that_comes_is_an_error(host: bytes, origin: bytes | None) -> None:
    headers = {b"host": host} if origin is None else {b"host": host, b"origin": origin}
    problem = ON_LOOPBACK.problem(headers)
    assert problem is None or problem.isprintable()


def test_ever_new_hosts_take_no_memory() -> None:
    guard = BrowserGuard("listen", ())
    for number in range(2_000):
        assert not served(guard, host=f"name-{number}.test")
    assert len(guard._trusted) <= 256
