"""GPU readings through nvidia-ml-py, over a stand-in of the driver's library (tests/workers/nvml): no GPU is needed."""

import ctypes
import os
import shlex
import signal
import socket
import subprocess
import threading
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.workers.nvml import build
from tests.workers.test_launch import WORKER, free_port, wait_until
from workers.catalog.facts import find_gpu
from workers.errors import ConfigError
from workers.gpus.metrics import parse_address
from workers.gpus.nvml import NoNvml, open_nvml
from workers.gpus.reading import GpuReading, Xid
from workers.gpus.telemetry import gpu_telemetry, record_gpus
from workers.gpus.watch import GpuWatch, Watched
from workers.node_shape import Hardware

H200S = Hardware(gpu=find_gpu("h200"), gpus_per_node=8)


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("nvml"))


class Machine:
    """What the GPUs of the stand-in say."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "gpus"
        self.file.write_text("")

    def say(self, *lines: str) -> None:
        with self.file.open("a") as stream:
            stream.write("".join(f"{line}\n" for line in lines))

    def fail(self, *events: str) -> None:
        with self.file.with_name("gpus.events").open("a") as stream:
            stream.write("".join(f"{line}\n" for line in events))


@pytest.fixture
def machine(library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """Eight H200 in this process: the library is found by its name, as the driver's would be."""
    ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)
    machine = Machine(tmp_path)
    monkeypatch.setenv("NVML_STAND_IN", str(machine.file))
    return machine


@pytest.fixture
def metrics_of() -> Callable[[int], str]:
    def get(port: int) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
            return str(answer.read().decode())

    return get


def test_a_gpu_is_read(machine: Machine) -> None:
    machine.say("1 use 93", "1 power 612500", "1 celsius 66", "1 corrected 4", "1 uncorrected 1")
    nvml = open_nvml(None, 2)
    first, second = nvml.read()
    nvml.close()
    assert first == GpuReading(0, "NVIDIA H200", 0.0, 75161927680, 150323855360, 120.0, 700.0, 41.0, 0, 0)
    assert second == GpuReading(1, "NVIDIA H200", 0.93, 75161927680, 150323855360, 612.5, 700.0, 66.0, 4, 1)


@pytest.mark.parametrize(
    ("field", "gone"),
    [
        ("use", ["use"]),
        ("used", ["memory_used", "memory_total"]),
        ("power", ["power"]),
        ("limit", ["power_limit"]),
        ("celsius", ["celsius"]),
        ("corrected", ["ecc_corrected"]),
        ("uncorrected", ["ecc_uncorrected"]),
    ],
)
def test_what_a_gpu_does_not_support_is_left_out_alone(machine: Machine, field: str, gone: list[str]) -> None:
    machine.say(f"all {field} -3")
    nvml = open_nvml(None, 1)
    (reading,) = nvml.read()
    nvml.close()
    known = {name: getattr(reading, name) for name in GpuReading.__slots__}
    assert [name for name, value in known.items() if value is None] == gone
    assert not reading.lost


@pytest.mark.parametrize("error", [15, 999])
def test_a_gpu_that_fell_off_the_bus_says_so_and_the_others_are_read(machine: Machine, error: int) -> None:
    nvml = open_nvml(None, 3)
    machine.say(f"1 error {error}")
    readings = nvml.read()
    nvml.close()
    assert [reading.lost for reading in readings] == [False, True, False]
    assert readings[1] == GpuReading(1, "NVIDIA H200", lost=True)


@pytest.mark.parametrize(
    ("visible", "count", "indexes"),
    [
        (None, 4, (0, 1, 2, 3)),
        ("4,5,6,7", 4, (4, 5, 6, 7)),
        ("4,5,6,7", 2, (4, 5)),
        (" 2 , 0", 4, (2, 0)),
        ("GPU-00000003-aaaa-bbbb-cccc-000000000000,1", 4, (3, 1)),
        ("GPU-00000003", 1, (3,)),
        ("1,99,2", 4, (1,)),  # CUDA stops at what it does not find
        ("1,GPU-0,2", 4, (1,)),  # fits several
    ],
)
def test_the_gpus_are_those_that_cuda_sees(
    machine: Machine, visible: str | None, count: int, indexes: tuple[int, ...]
) -> None:
    nvml = open_nvml(visible, count)
    assert nvml.indexes == indexes
    nvml.close()


@pytest.mark.parametrize("visible", ["", "-1", "NoDevFiles", "MIG-0f", "99", ",", "²"])
def test_without_a_visible_gpu_there_is_nothing_to_read(machine: Machine, visible: str) -> None:
    with pytest.raises(NoNvml, match="none of the GPUs"):
        open_nvml(visible, 8)


def test_without_a_driver_there_is_a_reason(machine: Machine) -> None:
    machine.say("all init 9")
    with pytest.raises(NoNvml, match="NVML does not start: Driver Not Loaded"):
        open_nvml(None, 8)


def test_xid_errors_are_handed_out_with_their_gpu(machine: Machine) -> None:
    nvml = open_nvml(None, 4)
    assert nvml.watch_errors()
    assert nvml.wait_for_errors(0.01) == []
    machine.say("3 error 15")
    machine.fail("2 48", "3 79", "2 94")
    assert nvml.wait_for_errors(1.0) == [Xid(2, 48), Xid(3, 79), Xid(2, 94)]
    machine.say("all wait 999")
    with pytest.raises(NoNvml, match="does not wait"):
        nvml.wait_for_errors(1.0)
    nvml.close()


@pytest.mark.parametrize("without", ["all eventset 3", "all register 3"])
def test_where_events_are_not_supported_readings_go_on(machine: Machine, without: str) -> None:
    machine.say(without)
    rounds: list[tuple[GpuReading, ...]] = []
    enough = threading.Event()

    def take(readings: tuple[GpuReading, ...]) -> None:
        rounds.append(readings)
        if len(rounds) == 3:
            enough.set()

    with GpuWatch(open_nvml(None, 1), 0.01, take):
        assert enough.wait(60)


def test_the_watch_counts_and_averages(machine: Machine) -> None:
    machine.say("all use 90", "2 use 4", "1 use -3")
    machine.fail("2 79", "2 79", "0 31")
    with GpuWatch(open_nvml(None, 3), 0.01) as watch:
        gpus = wait_until(lambda: (now := watch.now()) and len(now[2].xids) and now[0].last_xid and now, "the errors")
        assert [gpu.mean_use for gpu in gpus] == [0.9, None, 0.04]
        assert [gpu.xids for gpu in gpus] == [((31, 1),), (), ((79, 2),)]
        machine.say("0 use 30")
        wait_until(lambda: (use := watch.now()[0].mean_use) is not None and use < 0.9, "the mean to fall")


def test_a_driver_that_hangs_holds_up_nobody(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workers.gpus.watch.STALE_SECONDS", 0.2)
    monkeypatch.setattr("workers.gpus.watch.END_SECONDS", 0.1)
    with GpuWatch(open_nvml(None, 1), 0.01) as watch:
        wait_until(watch.now, "a reading")
        machine.say("all hang 2")
        wait_until(lambda: watch.now() == (), "what is old to be dropped")


def gpu(index: int, **known: Any) -> Watched:
    return Watched(GpuReading(index, "NVIDIA H200", **known), known.get("use"), (), None)


def test_the_record_is_short() -> None:
    assert record_gpus(()) is None
    whole = gpu(0, use=0.9374, memory_used=75, memory_total=100, power=612.4)
    first, second = record_gpus((whole, gpu(1, lost=True))) or ()
    assert first.model_dump(exclude_none=True) == {"index": 0, "use": 0.94, "memory": 0.75, "watts": 612, "lost": False}
    assert second.model_dump(exclude_none=True) == {"index": 1, "lost": True}


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:9109", ("127.0.0.1", 9109)),
        ("[::1]:0", ("::1", 0)),
        ("gpu-01:80", ("gpu-01", 80)),
        ("off", None),
        (" OFF ", None),
    ],
)
def test_the_address_of_metrics(text: str, address: tuple[str, int] | None) -> None:
    assert parse_address(text) == address


@pytest.mark.parametrize("text", ["", "9109", ":9109", "10.0.0.1", "h:", "h:x", "h:65536", "h:-1", "h:²", "on"])
def test_a_wrong_address_is_told(text: str) -> None:
    with pytest.raises(ConfigError, match="expected HOST:PORT"):
        parse_address(text)


def test_metrics_of_every_gpu(machine: Machine, metrics_of: Callable[[int], str]) -> None:
    machine.say("all use 95", "7 use 1", "3 uncorrected 2", "5 power -3")
    machine.fail("7 79")
    said: list[str] = []
    port = free_port()
    with gpu_telemetry(H200S, {}, ("127.0.0.1", port), said.append) as record:
        wait_until(lambda: "xid=" in metrics_of(port), "the Xid error")
        page = metrics_of(port)
        gpus = record()
    assert said == ["reads GPU 0, 1, 2, 3, 4, 5, 6, 7 by NVML", f"GPU metrics at http://127.0.0.1:{port}/metrics"]
    for line in (
        'fleetgate_worker_gpu_use{gpu="0",name="NVIDIA H200"} 0.95',
        'fleetgate_worker_gpu_use{gpu="7",name="NVIDIA H200"} 0.01',
        'fleetgate_worker_gpu_power_watts{gpu="0",name="NVIDIA H200"} 120.0',
        'fleetgate_worker_gpu_ecc_errors_total{gpu="3",kind="uncorrected",name="NVIDIA H200"} 2.0',
        'fleetgate_worker_gpu_xid_errors_total{gpu="7",name="NVIDIA H200",xid="79"} 1.0',
        'fleetgate_worker_gpu_temperature_celsius{gpu="4",name="NVIDIA H200"} 41.0',
        'fleetgate_worker_gpu_lost{gpu="4",name="NVIDIA H200"} 0.0',
    ):
        assert line in page
    assert 'fleetgate_worker_gpu_power_watts{gpu="5"' not in page
    assert gpus is not None
    assert [each.use for each in gpus] == [0.95] * 7 + [0.01]
    assert [each.xid for each in gpus] == [None] * 7 + [79]
    with socket.socket() as client:
        assert client.connect_ex(("127.0.0.1", port)) != 0, "the listener ends with the context"


def test_a_node_without_gpus_says_nothing_of_them(machine: Machine) -> None:
    said: list[str] = []
    with gpu_telemetry(Hardware(gpu=find_gpu("cpu"), gpus_per_node=1), {}, ("127.0.0.1", 0), said.append) as record:
        assert record() is None
    assert said == []


def test_a_taken_port_is_told_and_the_record_is_written(machine: Machine) -> None:
    said: list[str] = []
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = other.getsockname()[1]
        with gpu_telemetry(H200S, {"CUDA_VISIBLE_DEVICES": "0,1"}, ("127.0.0.1", taken), said.append) as record:
            assert len(wait_until(record, "the record")) == 2
    assert said[0] == "reads GPU 0, 1 by NVML; the profile has 8"
    assert said[1].startswith(f"no GPU metrics: cannot listen on 127.0.0.1:{taken}")


@pytest.fixture
def launched(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """`launch` of a profile with eight H200 over the fake node, its own lines in tmp_path/stderr."""
    started: list[subprocess.Popen[bytes]] = []

    def start(environment: dict[str, str], *options: str) -> subprocess.Popen[bytes]:
        fake = shlex.join([WORKER, "fake", "--port"]) + " {port}"
        argv = [WORKER, "launch", "nemotron-3-ultra-8xh200-fp8", "--port", str(free_port()), "--command", fake]
        with (tmp_path / "stderr").open("w") as said:
            started.append(subprocess.Popen([*argv, *options], stdout=subprocess.DEVNULL, stderr=said, env=environment))
        return started[-1]

    yield start
    for process in started:
        process.kill() if process.poll() is None else None
        process.wait(60)


def test_a_launcher_without_a_driver_says_so_once_and_serves(
    launched: Callable[..., subprocess.Popen[bytes]], tmp_path: Path
) -> None:
    process = launched({**os.environ}, "--stop-seconds", "2", "--heartbeat-seconds", "0.1")
    said = tmp_path / "stderr"
    wait_until(lambda: "serves nemotron" in said.read_text(), "ready")
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0
    assert said.read_text().count("GPU") == 1
    assert "launch: no GPU metrics: NVML does not start: " in said.read_text()


def test_a_launcher_serves_metrics(
    launched: Callable[..., subprocess.Popen[bytes]], library: Path, tmp_path: Path, metrics_of: Callable[[int], str]
) -> None:
    machine = Machine(tmp_path)
    machine.say("all use 88")
    port = free_port()
    environment = {
        **os.environ,
        "LD_LIBRARY_PATH": str(library.parent),
        "NVML_STAND_IN": str(machine.file),
    }
    process = launched(environment, "--stop-seconds", "2", "--metrics", f"127.0.0.1:{port}")
    said = tmp_path / "stderr"
    wait_until(lambda: "serves nemotron" in said.read_text(), "ready")
    wait_until(lambda: 'gpu_use{gpu="7",name="NVIDIA H200"} 0.88' in metrics_of(port), "the reading")
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0
