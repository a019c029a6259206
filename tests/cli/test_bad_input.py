"""What is mistyped on the command line is told in a line, and never in a traceback."""

import http.server
import subprocess
import threading

import pytest

from gateway.cli.admin_client import AdminClient, AdminClientError
from tests.support.gateway_process import FLEETGATE

NOBODY = "http://127.0.0.1:1"

MISUSED = {
    "a span without end": (["keys", "create", "acme", "--expires", "9" * 400 + "d"], "thousand years"),
    "a span beyond the calendar": (["audit", "--since", "9999999w"], "thousand years"),
    "a time before the year 1": (["audit", "--since", "0001-01-01T00:00:00+14:00"], "invalid time"),
    "a time after 9999": (["keys", "create", "a", "--expires", "9999-12-31T23:59-14:00"], "invalid time"),
    "a grace without end": (["keys", "rotate", "key_1", "--grace", "9" * 400 + "s"], "thousand years"),
    "a deadline that is no number": (["drain", "node", "--deadline", "nan"], "--deadline is a number of seconds"),
    "a setting on no day": (["keys", "create", "acme", "expires=2027-02-30"], "expires is not valid YAML"),
    "a setting that is no number": (["tenants", "set", "acme", "limits.usd_per_day=.nan"], "is not valid YAML"),
    "a setting that is bytes": (["tenants", "set", "acme", "cache_salt=!!binary aGk="], "is not valid YAML"),
    "a setting of a type it is not": (["tenants", "set", "acme", "cache_salt=!!bool x"], "is not valid YAML"),
}
"""A command, and what it says; nobody is asked."""

FAILED = {
    "a day as a setting": (["keys", "create", "acme", "expires=2027-01-31"], "no gateway answers"),
    "bytes that are no text": (["keys", "create", "\udcff"], "cannot send the request"),
    "a token with a line's end": (["tenants", "list", "--token", "hush\n"], "other than printable ASCII"),
    "a token beyond ASCII": (["tenants", "list", "--token", "hüsh"], "other than printable ASCII"),
    "an address that is none": (["tenants", "list", "--admin", "http://[::1"], "cannot be used"),
}
"""A command, and why it could not be done."""


@pytest.mark.parametrize("name", [*MISUSED, *FAILED])
def test_a_mistyped_command_says_what_is_wrong(name: str) -> None:
    command, words = (MISUSED | FAILED)[name]
    address = [] if "--admin" in command else ["--admin", NOBODY]
    done = subprocess.run([FLEETGATE, *command, *address], capture_output=True, timeout=60)
    said = (done.stdout + done.stderr).decode()
    assert (done.returncode, words in said) == (2 if name in MISUSED else 1, True), said
    assert not any(word in said for word in ("Traceback", "hush", "hüsh"))


def test_another_server_behind_the_address_is_told() -> None:
    class Page(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"<html>")

        def log_message(self, *_: object) -> None: ...

    with http.server.HTTPServer(("127.0.0.1", 0), Page) as server:
        threading.Thread(target=server.handle_request, daemon=True).start()
        with AdminClient(f"http://127.0.0.1:{server.server_port}") as control:
            with pytest.raises(AdminClientError, match="not a gateway's admin listener"):
                control.get("/admin/tenants")
