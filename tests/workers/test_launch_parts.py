"""The launcher's rules as plain code: backoff, log lines, spot notices, prices, Ray's commands."""

import asyncio
import os
import re
import socket
import stat
import subprocess
import sys
from datetime import date
from pathlib import Path

import pytest
from typer.testing import CliRunner

from workers.argv import Binding
from workers.catalog.prices import load_prices
from workers.cli import app
from workers.errors import MissingTool, NodeFailed
from workers.launch.backoff import HEALTHY_SECONDS, LAST_SECONDS, Backoff
from workers.launch.identity import NODE_ID, advertised_url, node_id_of
from workers.launch.output import LineReader, Outlet, named_pipe
from workers.launch.plan import local_url, price_of
from workers.launch.port import foreign_listener, port_fault
from workers.launch.progress import Step, is_news, read_line
from workers.launch.ray_cluster import head_command, start_head, stop_ray, worker_command
from workers.launch.server import own_server
from workers.profiles.load import find_profile
from workers.registration import Cost

PAIR = find_profile("nemotron-3-ultra-16xh100-fp8")


def test_backoff_doubles_is_capped_and_forgets_after_a_healthy_life() -> None:
    state = Backoff(most=0)
    delays = []
    for _ in range(8):
        state = state.after(10.0)
        delays.append(state.delay(1.0))
    assert delays == [1, 2, 4, 8, 16, 32, 60, 60]
    assert state.delay(0.0) == LAST_SECONDS * 0.75
    assert state.after(HEALTHY_SECONDS).delay(1.0) == 1
    assert not state.gives_up


def test_only_starts_without_any_ready_lead_to_giving_up() -> None:
    state = Backoff(most=3)
    for lived in (None, None, 1.0, None, None):
        state = state.after(lived)
        assert not state.gives_up
    assert state.after(None).gives_up


@pytest.mark.parametrize(
    ("line", "step"),
    [
        ("(EngineCore pid=1) INFO core.py] Initializing a V1 LLM engine (v0.22.0) with config: x", "start"),
        ("model-00001-of-00082.safetensors:  12%|#2        | 512M/4.1G", "download"),
        ("INFO weight_utils.py:604] Time spent downloading weights for nvidia/X: 812.100000 seconds", "download"),
        ("Loading safetensors checkpoint shards:  37% Completed | 3/8 [00:03<00:05,  1.0s/it]", "load"),
        ("INFO gpu_model_runner.py] Model loading took 78.2 GiB memory and 301.443 seconds", "load"),
        ("INFO backends.py] Dynamo bytecode transform time: 12.11 s", "compile"),
        ("Capturing CUDA graphs (mixed prefill-decode, PIECEWISE):  50%|#####     | 33/67", "compile"),
        ("INFO kv_cache_utils.py:1733] GPU KV cache size: 6,301,696 tokens", "memory"),
        ("INFO kv_cache_utils.py:1735] Maximum concurrency for 32,768 tokens per request: 192.31x", "memory"),
        ("INFO api_server.py:596] Starting vLLM server on http://0.0.0.0:8000", "serve"),
    ],
)
def test_log_lines_of_both_versions_are_understood(line: str, step: str) -> None:
    found = read_line(line)
    assert found is not None
    assert found.phase == step
    assert "{" not in found.told


def test_other_lines_say_nothing() -> None:
    assert read_line('INFO: 127.0.0.1 - "GET /health HTTP/1.1" 200 OK') is None


def test_a_progress_bar_is_told_in_tens() -> None:
    told = []
    last = None
    for percent in range(101):
        step = Step("load", "shards", percent)
        if is_news(step, last):
            told.append(percent)
            last = step
    assert told == [*range(0, 91, 10), 100]


async def test_output_arrives_by_lines_and_nothing_is_lost() -> None:
    lines: list[str] = []
    with named_pipe() as (path, descriptor):
        reader = LineReader(descriptor, lines.append)
        with path.open("wb", buffering=0) as writer:
            writer.write(b"one\ntw")
            await asyncio.sleep(0.02)
            writer.write(b"o\rthree\n\nlast without an end")
        reader.close()
    assert lines == ["one", "two", "three", "last without an end"]
    assert not path.exists()


def test_lines_that_nobody_reads_are_lost_and_counted() -> None:
    reader, writer = os.pipe()
    outlet = Outlet(writer)
    for _ in range(20):
        outlet.write("x" * 1_000_000)
    with os.fdopen(reader, "rb") as stream:
        read = sum(len(stream.read(1_000_001)) for _ in range(15))
        outlet.write("the last one")
        outlet.close()
        os.close(writer)
        rest = stream.read().replace(b"x", b"").split(b"\n")
    assert read == 15 * 1_000_001, "what there was room for is kept"
    assert re.fullmatch(rb"\.\.\. \d lines were lost here, as nobody read them", rest[-3])
    assert rest[-2:] == [b"the last one", b""]


def test_prices_and_addresses_of_a_launch() -> None:
    profile, prices, day = find_profile("nemotron-3-ultra-8xh200-fp8"), load_prices(), date(2026, 6, 30)
    on_demand, spot = price_of(profile, "on_demand", prices, day), price_of(profile, "spot", prices, day)
    assert on_demand is not None
    assert spot is not None
    assert (round(on_demand.usd_per_hour, 2), spot.kind, round(spot.usd_per_hour, 2)) == (38.72, "spot", 14.56)
    assert price_of(profile, "reserved", prices, day) is None, "no other kind's price stands in for one"
    assert price_of(profile, "reserved", prices, day, 2.5) == Cost(usd_per_hour=20, kind="reserved")
    assert price_of(find_profile("tiny-cpu"), "on_demand", prices, day) is None
    assert local_url(Binding("0.0.0.0", 8000)) == "http://127.0.0.1:8000"
    assert local_url(Binding("::1", 1)) == "http://[::1]:1"
    own = own_server(profile, ["x", "{host}:{port}"], Binding("h", 7), {})
    assert own.command == ("x", "h:7")


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["tiny-cpu", "--role", "head"], "use --role single"),
        ([PAIR.name], "use --role head"),
        ([PAIR.name, "--role", "worker"], "needs --head"),
        (["tiny-cpu", "--label", "nonsense", "--vllm", "0.32.0"], "KEY=VALUE"),
        (["tiny-cpu", "--vllm", "0.32.0", "--spot", "cloud9"], "use aws"),
        (["tiny-cpu", "--vllm", "installed", "--program", "no-such-vllm serve"], "cannot run no-such-vllm"),
        (["tiny-cpu", "--program", ""], "--program is empty"),
        (["tiny-cpu", "--command", ""], "--command is empty"),
        (["tiny-cpu", "--command", "python 'x"], "No closing quotation"),
        (["tiny-cpu", "--node-id", "a b"], "use letters, digits"),
        (["tiny-cpu", "--node-id", ""], "use letters, digits"),
        (["tiny-cpu", "--node-id", "n" * 129], "at most 128"),
        (["tiny-cpu", "--node-id", "knoten-\u00e4"], "use letters, digits"),
        (["tiny-cpu", "--advertise", "10.0.0.7:8000"], "expected http://HOST:PORT"),
        (["tiny-cpu", "--advertise", "ftp://10.0.0.7"], "expected http://HOST:PORT"),
        (["tiny-cpu", "--advertise", "http://"], "expected http://HOST:PORT"),
        (["tiny-cpu", "--advertise", "http://h:99999"], "expected http://HOST:PORT"),
        (["tiny-cpu", "--advertise", "http://h:0"], "expected http://HOST:PORT"),
        (["tiny-cpu", "--advertise", "http://[::1"], "expected http://HOST:PORT"),
        (["tiny-cpu", "--advertise", "http://u:p@h:80"], "expected http://HOST:PORT"),
        (["tiny-cpu", "--advertise", "http://h:80/v1"], "without a path"),
        (["tiny-cpu", "--advertise", "http://h\n:80"], "expected http://HOST:PORT"),
        (["tiny-cpu", "--advertise", "http://0.0.0.0:8000"], "no address that a gateway can reach"),
        (["tiny-cpu", "--advertise", "http://[::]:8000"], "no address that a gateway can reach"),
        (["tiny-cpu", "--redis", "10.0.0.2:6379"], "expected redis://"),
        (["tiny-cpu", "--redis", ""], "expected redis://"),
        (["tiny-cpu", "--redis", "redis://h:99999"], "expected redis://"),
        (["tiny-cpu", "--redis", "redis://h/db"], "expected redis://"),
        (["tiny-cpu", "--redis", "redis://h/0?socket_timeout=x"], "behind the ? is wrong"),
        (["tiny-cpu", "--redis", "redis://h/0?colour=green"], "behind the ? is wrong"),
        (["tiny-cpu", "--redis", "unix:///run/redis"], "expected redis://"),
        (["tiny-cpu", "--redis", "redis://127.0.0.1", "--host", "0.0.0.0", "--port", "8123"], "--advertise http://"),
        (["tiny-cpu", "--redis", "redis://127.0.0.1", "--host", "::"], "and gateways need one"),
        (["tiny-cpu", "--redis", "redis://10.255.255.1"], "Redis is on another one"),
        (["tiny-cpu", "--redis", "redis://redis.example", "--host", "localhost"], "Redis is on another one"),
        (["tiny-cpu", "--label", "=x"], "KEY=VALUE"),
        (["tiny-cpu", "--label", "a=1", "--label", "a=2"], "each key once"),
        (["tiny-cpu", "--drain-seconds", "nan"], "Invalid value for '--drain-seconds'"),
        (["tiny-cpu", "--drain-seconds", "inf"], "Invalid value for '--drain-seconds'"),
        (["tiny-cpu", "--weight", "nan"], "Invalid value for '--weight'"),
        (["tiny-cpu", "--heartbeat-seconds", "30"], "Invalid value for '--heartbeat-seconds'"),
        (["tiny-cpu", "--spot", "url:nonsense"], "expected url:http"),
        (["tiny-cpu", "--spot", "gcp", "--spot-poll-seconds", "60"], "gives 30 s of notice"),
        (["tiny-cpu", "--model-dir", "/not/there"], "/not/there is not there"),
        (["tiny-cpu", "--profiles", "/not/there"], "/not/there is not there"),
        (["/not/there.yaml"], "cannot read /not/there.yaml"),
    ],
)
def test_wrong_launches_are_told_before_anything_starts(args: list[str], says: str) -> None:
    run = CliRunner().invoke(app, ["launch", "--vllm", "0.32.0", *args], env={"COLUMNS": "400", "NO_COLOR": "1"})
    assert run.exit_code == 2, run.output
    assert isinstance(run.exception, SystemExit)
    assert says in " ".join(run.stderr.split())


@pytest.mark.parametrize("port", ["0", "-1", "65536"])
@pytest.mark.parametrize("command", ["launch", "argv", "preflight"])
def test_a_port_that_is_none_is_told(command: str, port: str) -> None:
    run = CliRunner().invoke(app, [command, "tiny-cpu", "--port", port])
    assert run.exit_code == 2 and isinstance(run.exception, SystemExit)
    assert "--port" in run.stderr


def test_a_node_without_a_name_gets_one_that_can_be_registered() -> None:
    profile = find_profile("tiny-cpu").model_copy(update={"served_name": "org/" + "m" * 200})
    first, second = (node_id_of(None, profile, Binding("h", 8000)) for _ in range(2))
    assert NODE_ID.fullmatch(first) and first != second
    assert node_id_of("pod-0.nodes:8000", profile, Binding()) == "pod-0.nodes:8000"


def test_what_gateways_are_told_to_reach() -> None:
    assert advertised_url("http://10.0.0.7:8000/", Binding(), None) == "http://10.0.0.7:8000"
    assert advertised_url("http://127.0.0.1:8000", Binding(), "redis://10.0.0.2") == "http://127.0.0.1:8000"
    assert advertised_url(None, Binding("10.0.0.7", 80), "redis://10.0.0.2") == "http://10.0.0.7:80"
    assert advertised_url(None, Binding("fd00::7", 80), "redis://10.0.0.2") == "http://[fd00::7]:80"
    assert advertised_url(None, Binding("127.0.0.1", 80), "redis://[::1]") == "http://127.0.0.1:80"
    assert advertised_url(None, Binding("0.0.0.0", 80), None) == "http://0.0.0.0:80", "nobody is told"


# --- whose server answers -------------------------------------------------------------------------------------


def listening(host: str, port: int = 0, shared: bool = False) -> socket.socket:
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if shared:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    listener.bind((host, port))
    listener.listen()
    return listener


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "::1", "::"])
def test_a_port_that_somebody_listens_on_is_no_port_for_us(host: str) -> None:
    with listening(host) as taken:
        port = taken.getsockname()[1]
        fault = port_fault(host, port)
        assert fault is not None and "Address already in use" in fault and f"process {os.getpid()}, " in fault
    assert port_fault(host, port) is None


def test_a_port_that_two_may_share_is_taken_as_well() -> None:
    """vLLM's own way to bind: a second server would get half of the connections."""
    with listening("127.0.0.1", shared=True) as taken:
        assert port_fault("127.0.0.1", taken.getsockname()[1]) is not None
        assert port_fault("0.0.0.0", taken.getsockname()[1]) is not None


def test_a_port_with_connections_of_an_earlier_server_is_free() -> None:
    with listening("127.0.0.1") as server, socket.create_connection(server.getsockname()) as client:
        accepted, _ = server.accept()
        port = server.getsockname()[1]
        accepted.close()  # the server closes first: its side stays in TIME_WAIT
        client.recv(1)
    assert port_fault("127.0.0.1", port) is None


def test_an_address_that_is_not_this_machines_is_told() -> None:
    assert "Cannot assign requested address" in (port_fault("203.0.113.9", 8000) or "")
    assert "no-such-host.invalid:8000" in (port_fault("no-such-host.invalid", 8000) or "")


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "::1", "::"])
def test_a_listener_belongs_to_the_process_its_children_and_nobody_else(host: str) -> None:
    script = "import sys, socket; print(flush=True); sys.stdin.read()"
    with listening(host) as ours:
        url = local_url(Binding(host, ours.getsockname()[1]))
        assert foreign_listener(url, os.getpid()) is None
        other = subprocess.Popen(
            [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
        )
        try:
            found = foreign_listener(url, other.pid)
            assert found is not None and found.startswith(f"process {os.getpid()}, ")
        finally:
            other.communicate(b"")


def test_a_grandchild_in_a_session_of_its_own_is_ours() -> None:
    script = (
        "import socket, sys; s = socket.create_server(('127.0.0.1', 0)); "
        "print(s.getsockname()[1], flush=True); sys.stdin.read()"
    )
    # setsid from util-linux forks where it leads its group already: the server is a grandchild then.
    command = ["setsid", "--fork", "--wait", sys.executable, "-c", script]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True) as child:
        assert child.stdout is not None and child.stdin is not None
        port = int(child.stdout.readline())
        assert foreign_listener(f"http://127.0.0.1:{port}", child.pid) is None
        child.stdin.close()


# --- Ray --------------------------------------------------------------------------------------------------


def write_ray(folder: Path, start_code: int = 0) -> dict[str, str]:
    """A program named ray that notes its calls, and counts eight more GPUs each time it is asked."""
    program = folder / "ray"
    program.write_text(
        f"""#!{sys.executable}
import sys, pathlib
folder = pathlib.Path({str(folder)!r})
with (folder / "calls").open("a") as calls: calls.write(" ".join(sys.argv[1:]) + "\\n")
if sys.argv[1] == "status":
    asked = (folder / "calls").read_text().count("status")
    print("Total Usage:\\n 0.0/384.0 CPU\\n 0.0/%.1f GPU" % min(8 * asked, 16))
sys.exit({start_code} if sys.argv[1] == "start" else 0)
"""
    )
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return {"PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"}


def test_the_head_waits_for_all_gpus(tmp_path: Path) -> None:
    said: list[str] = []
    environment = write_ray(tmp_path)
    start_head(PAIR, "10.0.0.1", environment, said.append, seconds=5)
    stop_ray(environment)
    calls = (tmp_path / "calls").read_text().splitlines()
    assert calls[0] == "start --head --port=6379 --num-gpus=8 --disable-usage-stats --node-ip-address=10.0.0.1"
    assert calls[-1] == "stop"
    assert said[-1] == "Ray counts all 16 GPUs"


def test_a_head_without_its_workers_gives_up_with_advice(tmp_path: Path) -> None:
    bigger = PAIR.model_copy(update={"hardware": PAIR.hardware.model_copy(update={"nodes": 3})})
    with pytest.raises(NodeFailed, match=r"16 of 24 GPUs.*--role worker"):
        start_head(bigger, None, write_ray(tmp_path), lambda _: None, seconds=5.0)
    with pytest.raises(NodeFailed, match="ray start failed"):
        start_head(PAIR, None, write_ray(tmp_path, start_code=1), lambda _: None, seconds=0.5)
    with pytest.raises(MissingTool, match="ray is not installed"):
        start_head(PAIR, None, {"PATH": str(tmp_path / "nowhere")}, lambda _: None, seconds=0.5)


def test_commands_of_head_and_worker() -> None:
    assert "--node-ip-address" not in " ".join(head_command(PAIR, None))
    assert worker_command(PAIR, "10.0.0.1", None)[:3] == ["ray", "start", "--address=10.0.0.1:6379"]
    assert "--block" in worker_command(PAIR, "10.0.0.1:7000", "10.0.0.2")
