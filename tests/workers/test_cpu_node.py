"""The node's command line and environment, and its life as a process: with a stand-in for vLLM, without a model."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from workers.cpu_node import CpuNode, default_cores, free_port, require_port, vllm_command, vllm_environment
from workers.errors import NodeFailed
from workers.node_process import NodeProcess
from workers.run_node import run_node, stage

# Called as vLLM's Python would be. It starts a child, as vLLM does its engine, and serves /health.
STAND_IN = """#!{python}
import http.server, os, subprocess, sys
print("INFO Initializing a V1 LLM engine", flush=True)
if "--broken" in sys.argv:
    sys.exit("a broken flag")
child = subprocess.Popen(["sleep", "1000"])
open({pids!r}, "w").write(f"{{os.getpid()}} {{child.pid}}")
class Health(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
    def log_message(self, *arguments): pass
port = int(sys.argv[sys.argv.index("--port") + 1])
http.server.HTTPServer(("127.0.0.1", port), Health).serve_forever()
"""


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An executable in the place of vLLM's Python; writes its process ids to `pids` beside it."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    (tmp_path / "fleetgate").mkdir()
    script = tmp_path / "python"
    script.write_text(STAND_IN.format(python=sys.executable, pids=str(tmp_path / "pids")))
    script.chmod(0o755)
    return script


def node(*extra: str, **fields: str) -> CpuNode:
    return CpuNode(port=free_port("127.0.0.1"), cores="0", extra=extra, **fields)  # type: ignore[arg-type]


def pids(stand_in: Path) -> list[int]:
    """The stand-in's own process id and its child's."""
    return [int(word) for word in (stand_in.parent / "pids").read_text().split()]


def is_alive(pid: int) -> bool:
    """A dead process that nobody has collected yet counts as dead."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def eventually(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_command() -> None:
    """What clients see of the large model's recipe is in it, and extra arguments come last."""
    command = vllm_command(node("--seed", "7"), Path("/venv/bin/python"), Path("/model"))
    assert command[:3] == ["/venv/bin/python", "-m", "vllm.entrypoints.openai.api_server"]
    assert command[-2:] == ["--seed", "7"]
    for flag, value in (("--reasoning-parser", "nemotron_v3"), ("--tool-call-parser", "qwen3_coder")):
        assert command[command.index(flag) + 1] == value
    assert "--enable-auto-tool-choice" not in vllm_command(
        CpuNode(port=1, cores="0", tools=False), Path("/venv/bin/python"), Path("/model")
    )


def test_environment() -> None:
    """The caller's settings for vLLM stay, those for another Python do not, and a key is nowhere else."""
    keyed = node(api_key="secret")
    environ = vllm_environment(keyed, {"PYTHONPATH": "/elsewhere", "VLLM_CPU_KVCACHE_SPACE": "3", "PATH": "/bin"})
    assert "PYTHONPATH" not in environ
    assert environ["VLLM_CPU_KVCACHE_SPACE"] == "3"
    assert environ["OMP_NUM_THREADS"] == "1"
    assert environ["VLLM_API_KEY"] == "secret"
    assert "secret" not in " ".join(vllm_command(keyed, Path("/p"), Path("/m")))


@pytest.mark.parametrize(
    ("cores", "threads"), [("1", "1"), ("0,2", "2"), ("2-5", "4"), ("0,2-3", "3")], ids=["one", "two", "range", "both"]
)
def test_threads_are_as_many_as_cores(cores: str, threads: str) -> None:
    """vLLM's notation of cores is counted as vLLM reads it."""
    assert vllm_environment(CpuNode(port=1, cores=cores), {})["OMP_NUM_THREADS"] == threads


def test_cores_that_are_no_list() -> None:
    """Said before vLLM is started."""
    with pytest.raises(NodeFailed, match="two"):
        vllm_environment(CpuNode(port=1, cores="two"), {})


def test_default_cores() -> None:
    """The upper half, at most four, at least one."""
    assert default_cores([0]) == "0"
    assert default_cores([0, 1]) == "1"
    assert default_cores(range(16)) == "12,13,14,15"


def test_url() -> None:
    """A server on every address is reached on loopback."""
    assert CpuNode(port=1, cores="0", host="0.0.0.0").url == "http://127.0.0.1:1"
    assert CpuNode(port=1, cores="0", host="::").url == "http://[::1]:1"


def test_a_taken_port_is_told_at_once() -> None:
    """Before half a minute of starting."""
    with socket.create_server(("127.0.0.1", 0)) as listener, pytest.raises(NodeFailed, match="--port"):
        require_port("127.0.0.1", listener.getsockname()[1])


def test_runs_until_it_is_told_to_end(stand_in: Path, tmp_path: Path) -> None:
    """Says when it is ready; SIGTERM ends the server and its child; the exit code is the server's."""
    said: list[str] = []

    def say(line: str) -> None:
        said.append(line)
        if line.startswith("ready:"):
            threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGTERM)).start()

    assert run_node(node(), stand_in, Path("/model"), tmp_path / "log", say) == 128 + signal.SIGTERM
    assert any(line.startswith("ready: http://127.0.0.1:") for line in said)
    assert not any(is_alive(pid) for pid in pids(stand_in))


def test_shows_the_log_of_a_start_that_failed(stand_in: Path, tmp_path: Path) -> None:
    """The exit code and the last lines, which hold the reason."""
    with pytest.raises(NodeFailed, match=r"exit code 1(?s:.*)a broken flag"):
        run_node(node("--broken"), stand_in, Path("/model"), tmp_path / "log", lambda _line: None)


def test_a_server_that_dies_ends_the_command(stand_in: Path, tmp_path: Path) -> None:
    """With its child, which nobody else would end."""

    def say(line: str) -> None:
        if line.startswith("ready:"):
            os.kill(pids(stand_in)[0], signal.SIGKILL)

    assert run_node(node(), stand_in, Path("/model"), tmp_path / "log", say) == 128 + signal.SIGKILL
    assert not any(is_alive(pid) for pid in pids(stand_in))


def test_nothing_is_left_when_the_command_is_killed(stand_in: Path, tmp_path: Path) -> None:
    """SIGKILL, which it cannot catch."""
    script = (
        "import sys; from pathlib import Path; from workers.cpu_node import *; from workers.run_node import run_node\n"
        "python, log, port = sys.argv[1:]\n"
        "run_node(CpuNode(port=int(port), cores='0'), Path(python), Path('/model'), Path(log), print)"
    )
    command = [sys.executable, "-c", script, str(stand_in), str(tmp_path / "log"), str(free_port("127.0.0.1"))]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        eventually((tmp_path / "pids").exists)
        eventually(lambda: len(pids(stand_in)) == 2)
        process.kill()
    eventually(lambda: not any(is_alive(pid) for pid in pids(stand_in)))


def test_a_process_that_ignores_sigterm_is_killed(tmp_path: Path) -> None:
    """The grace is for the willing."""
    stubborn = ["/bin/sh", "-c", "trap '' TERM; echo up; while true; do sleep 0.1; done"]
    process = NodeProcess(stubborn, os.environ, tmp_path, tmp_path / "log")
    eventually(lambda: "up" in (tmp_path / "log").read_text())
    assert process.end(grace_seconds=0.2) == -signal.SIGKILL


def test_stages() -> None:
    """The log's last landmark is where it stands."""
    assert stage("") == "loading its libraries"
    assert stage("Initializing a V1 LLM engine\nLoading weights took 1 s") == "preparing the cache"
