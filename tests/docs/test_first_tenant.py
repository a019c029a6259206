"""docs/first-tenant.md is a way that leads there: each of its commands is run, and prints what the page shows."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.site_hooks import ROOT
from tests.docs.walkthrough import Step, differences, script, steps

PAGE = (ROOT / "docs" / "first-tenant.md").read_text()
PORTS = ("8000", "8080", "9091")


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def on_free_ports(text: str) -> tuple[str, str]:
    """The page's commands on ports that are free here, and the URL of its admin listener."""
    ports = dict(zip(PORTS, map(str, free_ports(len(PORTS))), strict=True))
    for shown, free in ports.items():
        text = text.replace(f":{shown}", f":{free}").replace(f"port {shown}", f"port {free}")
        text = text.replace(f"port: {shown}", f"port: {free}")
    return text, f"http://127.0.0.1:{ports['9091']}"


def test_every_command_of_the_page_does_what_the_page_says(tmp_path: Path) -> None:
    text, admin = on_free_ports(PAGE)
    found = steps(text)
    assert len(found) > 8
    folder = Path(sys.executable).parent
    environment = {name: value for name, value in os.environ.items() if not name.startswith("FLEETGATE_")}
    environment |= {"PATH": f"{folder}:{environment['PATH']}", "FLEETGATE_ADMIN_URL": admin, "COLUMNS": "200"}
    shell = subprocess.Popen(
        ["bash"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=tmp_path,
        env=environment,
        start_new_session=True,
    )
    try:
        output, _ = shell.communicate(script(found), timeout=100)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(shell.pid, signal.SIGKILL)  # what the shell began and did not end
    log = tmp_path / "gateway.log"
    assert differences(found, output) == [], f"{output}\n{log.read_text() if log.exists() else ''}"


@pytest.mark.parametrize(
    ("shown", "printed", "is_right"),
    [
        (("a", "b"), "a\nx\nb\n", True),
        (("b", "a"), "a\nb\n", False),
        (("a...z",), "abcz\n", True),
        (("a...z",), "abc\n", False),
    ],
)
def test_what_is_not_printed_is_found(shown: tuple[str, ...], printed: str, is_right: bool) -> None:
    assert (differences([Step("", shown)], f"{printed}\n--- end of step 0 ---\n") == []) is is_right


def test_a_step_that_fails_is_found() -> None:
    assert differences([Step("false\n", ())], "") == ["step 0 did not end: false\n"]
