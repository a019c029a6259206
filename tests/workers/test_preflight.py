"""Preflight on captures of good and bad machines, and on the machine that runs this test.

The captures were written from the documented formats of these commands and are marked unverified; one that a
user contributes with `preflight --capture` goes beside them as it is.
"""

import json
import socket
import struct
from pathlib import Path

import pytest
from typer.testing import CliRunner

from workers.checkpoint import MARKER, Marker, check_checkpoint, write_marker
from workers.cli import app
from workers.errors import ConfigError
from workers.preflight.capture import read_capture
from workers.preflight.check import check_machine
from workers.preflight.finding import Finding
from workers.preflight.probe import measure_host, probe_machine, run
from workers.preflight.smi import read_infiniband, read_ray_gpus, read_topology
from workers.profiles.load import find_profile
from workers.versions import at_least

CAPTURES = Path(__file__).parent / "captures"
H200 = "nemotron-3-ultra-8xh200-fp8"
H100 = "nemotron-3-ultra-8xh100-nvfp4"
PAIR = "nemotron-3-ultra-16xh100-fp8"
B200 = "nemotron-3-ultra-8xb200-fp8"


def findings(capture: str, profile: str) -> dict[str, Finding]:
    machine = read_capture(CAPTURES / f"{capture}.json")
    return {f.check: f for f in check_machine(find_profile(profile), machine, None)}


@pytest.mark.parametrize(
    ("capture", "profile"),
    [("good-8xh200", H200), ("good-8xh100", H100), ("good-16xh100-head", PAIR), ("good-8xb200", B200)],
)
def test_good_machines_pass_every_check(capture: str, profile: str) -> None:
    found = findings(capture, profile)
    assert [f for f in found.values() if f.level in ("fail", "warn")] == []
    assert found["NVLink"].seen == "NV18"


@pytest.mark.parametrize(
    ("capture", "profile", "bad"),
    [
        ("bad-pcie-8xh100", H100, {"GPU kind": "H100 PCIe", "NVLink": "GPU0-GPU2 SYS"}),
        ("bad-nvlink-8xh200", H200, {"NVLink": "GPU2-GPU7 NODE"}),
        ("bad-driver-550-8xh100", H100, {"driver": "550.54.15", "CUDA": "12.4"}),
        ("bad-old-driver-8xb200", B200, {"driver": "550.54.15", "CUDA": "12.4"}),
        (
            "bad-busy-8xh200",
            H200,
            {
                "GPUs idle": "GPU0: 73 GB",
                "MIG": "on: GPU0",
                "vLLM": "0.17.1",
                "disk": "300 GB",
                "shared memory": "0.1 GiB",
                "ports": "8000",
            },
        ),
        ("bad-half-8xh200", H200, {"GPUs": "4 (by nvidia-smi)", "NVLink": "only 6 pairs"}),
        ("bad-no-driver", H200, {"GPUs": "no NVIDIA driver"}),
        (
            "bad-16xh100-head",
            PAIR,
            {"Ray": "8 GPUs", "interconnect": "2 active RoCE ports, best 25 Gbit/s", "locked memory": "8,388,608"},
        ),
        ("good-8xh100", H200, {"GPU kind": "H100 80GB HBM3", "GPU memory": "86 GB"}),
    ],
)
def test_bad_machines_fail_where_they_are_bad(capture: str, profile: str, bad: dict[str, str]) -> None:
    failed = {name: f for name, f in findings(capture, profile).items() if f.level == "fail"}
    assert set(failed) == set(bad)
    for name, seen in bad.items():
        assert seen in failed[name].seen
        assert failed[name].fix, "a failed check says how to fix it"
        assert failed[name].needed


def test_lesser_faults_warn() -> None:
    assert findings("bad-links-down-8xh200", H200)["NVLink"].level == "warn"
    busy = findings("bad-busy-8xh200", H200)
    assert {n for n, f in busy.items() if f.level == "warn"} == {"host memory", "open files", "clock"}


def test_few_processes_warn() -> None:
    machine = read_capture(CAPTURES / "good-8xh200.json")
    limits = machine.host.limits.model_copy(update={"processes": 512})
    short = machine.model_copy(update={"host": machine.host.model_copy(update={"limits": limits})})
    (found,) = (f for f in check_machine(find_profile(H200), short, None) if f.check == "processes")
    assert (found.level, found.seen) == ("warn", "512")


def test_a_capture_of_another_format_is_refused(tmp_path: Path) -> None:
    text = (CAPTURES / "good-8xh200.json").read_text()
    newer = tmp_path / "newer.json"
    newer.write_text(json.dumps(json.loads(text) | {"format": 2}))
    with pytest.raises(ConfigError, match="format 2; this version reads 1"):
        read_capture(newer)


def test_a_profile_that_cannot_fit_fails_before_anything_is_rented() -> None:
    refused = findings("good-8xh100", "nemotron-3-super-1xh100-nvfp4")["plan"]
    assert (refused.level, refused.needed) == ("fail", "75 GB as published")
    tight = findings("good-16xh100-head", "nemotron-3-ultra-16xh100-bf16")["plan"]
    assert tight.level == "warn" and "1,204 GB usable by NVML" in tight.seen


def test_a_real_topology_table_is_read_around_its_escapes_nics_and_legend() -> None:
    text = read_capture(CAPTURES / "good-8xh200.json").output("topology").stdout
    assert text.startswith("\t\x1b[4mGPU0")
    links = read_topology(text)
    assert len(links) == 28
    assert set(links.values()) == {"NV18"}
    assert read_topology("") == {}
    assert read_topology("\tGPU0\tCPU Affinity\nGPU0\t X \t0-11\n") == {}


def test_infiniband_and_ray_are_read() -> None:
    capture = read_capture(CAPTURES / "good-16xh100-head.json")
    ports = read_infiniband(capture.output("infiniband").stdout)
    assert [(port.rate, port.active) for port in ports][:2] == [(400.0, True), (400.0, True)]
    assert read_infiniband("") == []
    assert read_ray_gpus(capture.output("ray").stdout) == 16.0
    assert read_ray_gpus("Usage:\n 0.0/64.0 CPU\n") is None


@pytest.mark.parametrize(
    ("seen", "needed", "good"),
    [
        ("12.8", "12.4", True),
        ("12.4", "12.8", False),
        ("v0.22.0", "0.22.0", True),
        ("0.9.1", "0.22.0", False),
    ],
)
def test_versions_are_compared_as_numbers(seen: str, needed: str, good: bool) -> None:
    assert at_least(seen, needed) is good


# --- the command ------------------------------------------------------------------------------------------


def test_exit_code_json_and_the_unverified_mark() -> None:
    good, bad = (str(CAPTURES / f"{name}.json") for name in ("good-8xh200", "bad-no-driver"))
    run_ = CliRunner().invoke(app, ["preflight", H200, "--from", good])
    assert run_.exit_code == 0
    assert "UNVERIFIED" in run_.stdout
    run_ = CliRunner().invoke(app, ["preflight", H200, "--from", bad, "--json"])
    assert run_.exit_code == 1
    document = json.loads(run_.stdout)
    assert document["passed"] is False
    assert document["machine"] == {"origin": "a machine without a driver", "verified": False}


def test_this_machine_can_be_captured_and_replayed(tmp_path: Path) -> None:
    file = tmp_path / "here.json"
    with socket.socket() as listener:
        listener.bind(("", 0))
        listener.listen()
        port = str(listener.getsockname()[1])
        args = ["preflight", "tiny-cpu", "--port", port, "--capture", str(file), "--json"]
        here = CliRunner().invoke(app, args)
    document = json.loads(here.stdout)
    ports = next(f for f in document["findings"] if f["check"] == "ports")
    assert (ports["level"], ports["seen"]) == ("fail", f"taken: {port}")
    assert document["machine"]["verified"] is True
    again = CliRunner().invoke(app, ["preflight", "tiny-cpu", "--from", str(file), "--json"])
    assert json.loads(again.stdout)["findings"] == document["findings"]


def test_a_capture_names_no_machine(tmp_path: Path) -> None:
    machine = probe_machine(tmp_path, [])
    assert socket.gethostname() not in machine.model_dump_json()


def test_missing_and_hanging_programs_are_results(tmp_path: Path) -> None:
    assert run(["no-such-program-here"]).exit_code is None
    assert run(["false"]).exit_code == 1
    assert run(["echo", "hello"]).stdout == "hello\n"


def test_the_host_is_measured(tmp_path: Path) -> None:
    host = measure_host(tmp_path / "not" / "yet" / "there", [])
    assert host.memory > 10**8
    assert host.disk_free > 0


def test_what_is_no_capture_is_told(tmp_path: Path) -> None:
    file = tmp_path / "x.json"
    for text, says in (("{}", "host: Field required"), ("[]", "the whole: "), ("[" * 5000, "cannot read")):
        file.write_text(text)
        with pytest.raises(ConfigError, match=says) as told:
            read_capture(file)
        assert str(file) in str(told.value) and "pydantic" not in str(told.value)
    with pytest.raises(ConfigError, match="longer than 16 MiB"):
        read_capture(Path("/dev/zero"))


# --- the checkpoint ---------------------------------------------------------------------------------------


def write_shard(file: Path, sizes: dict[str, int], cut: int = 0) -> None:
    offset, header = 0, {}
    for name, size in sizes.items():
        header[name] = {"dtype": "U8", "shape": [size], "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header).encode()
    data = struct.pack("<Q", len(text)) + text + bytes(offset)
    file.write_bytes(data[: len(data) - cut])


def write_checkpoint(folder: Path, total: int = 300, cut: int = 0) -> None:
    (folder / "config.json").write_text("{}")
    write_shard(folder / "a.safetensors", {"x": 100})
    write_shard(folder / "b.safetensors", {"y": 150, "z": 50}, cut)
    weights = {"x": "a.safetensors", "y": "b.safetensors", "z": "b.safetensors"}
    index = {"metadata": {"total_size": total}, "weight_map": weights}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def test_a_complete_checkpoint(tmp_path: Path) -> None:
    write_checkpoint(tmp_path)
    found = check_checkpoint(tmp_path)
    assert (found.files, found.tensor_bytes, found.faults) == (2, 300, ())
    run_ = CliRunner().invoke(app, ["preflight", "tiny-cpu", "--model-dir", str(tmp_path), "--json"])
    levels = {f["check"]: f["level"] for f in json.loads(run_.stdout)["findings"]}
    assert (levels["checkpoint"], levels["disk"]) == ("ok", "skip")
    write_marker(tmp_path, Marker(repository="ours/model", revision="abc123"))
    machine = read_capture(CAPTURES / "good-8xh200.json")
    told = next(f for f in check_machine(find_profile(H200), machine, tmp_path) if f.check == "checkpoint")
    assert "ours/model at abc123" in told.seen and told.needed == "complete by its index: 0.0 GB"
    (tmp_path / MARKER).write_text("{")
    levels = {f.check: f.level for f in check_machine(find_profile(H200), machine, tmp_path)}
    assert (levels["checkpoint"], levels["weights"]) == ("ok", "fail")


def test_faults_of_a_checkpoint(tmp_path: Path) -> None:
    assert "config.json" in check_checkpoint(tmp_path).faults[0]
    write_checkpoint(tmp_path, total=301)
    assert "the index says 301" in check_checkpoint(tmp_path).faults[0]
    write_checkpoint(tmp_path, cut=1)
    assert "its header says" in check_checkpoint(tmp_path).faults[0]
    write_checkpoint(tmp_path, cut=10_000)
    assert "cut off" in check_checkpoint(tmp_path).faults[0]
    (tmp_path / "b.safetensors").unlink()
    assert "b.safetensors" in check_checkpoint(tmp_path).faults[0]
    (tmp_path / "model.safetensors.index.json").write_text("{")
    assert "no usable" in check_checkpoint(tmp_path).faults[0]
    (tmp_path / "model.safetensors.index.json").write_text('{"a":' * 5000)
    assert "no usable" in check_checkpoint(tmp_path).faults[0]


def test_a_checkpoint_of_one_file(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    write_shard(tmp_path / "model.safetensors", {"x": 10})
    assert check_checkpoint(tmp_path).faults == ()
