"""A measured throughput in a profile of one's own, and the flags that it was measured with."""

import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from workers.bench.figures import Figures, make_figures
from workers.bench.ladder import Rung
from workers.bench.launched import Launched, flags_in, read_launched
from workers.bench.load import Heard, Load
from workers.bench.saved import best_rungs, folder_for, launched_with, save, throughput_of
from workers.bench.workloads import Lengths
from workers.errors import ConfigError
from workers.launch.server import CPU_PROGRAM
from workers.plan import Question, make_plan
from workers.profile import Profile
from workers.profiles.load import find_profile
from workers.throughput import Load as ProfileLoad
from workers.workload.speed import DecodePoint, node_speed
from workers.workload.workload import read_workload

DATE = "2026-11-30"


def figures(users: int, tokens_out: float, failed: int = 0) -> Figures:
    load = Load(users=users, rate=None, ramp=1.0, window=30.0, requests=9, timeout=9.0)
    failures = (("HTTP 503: full", failed),) if failed else ()
    return replace(make_figures(Heard(load)), tokens_out=tokens_out, whole=20, failures=failures, seconds=30.0)


def rung(workload: str, users: int, tokens_out: float, failed: int = 0) -> Rung:
    told = f"{workload} 100 in / 10 out, 70% repeated"
    return Rung(workload, told, Lengths(100, 10, 0.7), figures(users, tokens_out, failed))


def measure(profile: Profile, tokens: float, folder: Path, launched: Launched | None = None) -> Profile:
    measured = launched_with(profile, launched, "0.32.0", DATE)
    return save(profile, [throughput_of(rung("chat", 8, tokens), measured, "a test")], folder)


def test_the_best_load_without_failures_counts() -> None:
    rungs = [rung("chat", 1, 50), rung("chat", 4, 150), rung("chat", 8, 170, failed=9), rung("agents", 4, 70)]
    assert [(r.workload, r.figures.users) for r in best_rungs(rungs)] == [("chat", 4), ("agents", 4)]
    assert best_rungs([rung("chat", 8, 0.0), rung("chat", 1, 9, failed=20)]) == []
    assert best_rungs([rung("chat", 8, 0.004)]) == [], "it would be saved as 0"


def test_plan_uses_what_was_saved(tmp_path: Path) -> None:
    base = find_profile("nemotron-3-ultra-8xh200-fp8")
    own = measure(base, 812.345, tmp_path)
    assert (own.name, own.title) == (f"{base.name}-measured", f"{base.title}, measured")
    read = find_profile(f"{base.name}-measured", [tmp_path])
    assert read == own
    first = read.throughput[0]
    assert (first.kind, first.low, first.high) == ("measured", 812.35, 812.35)
    assert first.workload == "chat 100 in / 10 out, 70% repeated, 8 users"
    assert first.source == "fleetgate-worker bench, a test, closed loop, 30 s"
    assert first.measured_with is not None
    assert (first.measured_with.vllm, first.measured_with.date, first.measured_with.complete) == ("0.32.0", DATE, True)
    assert len(first.measured_with.flags_hash) == 16
    plan = make_plan(read, Question(usd_per_gpu_hour=4.84))
    assert plan.costs[0].cost.tokens_per_second == pytest.approx(812.35)
    assert "extends" in (tmp_path / f"{base.name}-measured.yaml").read_text()
    assert read.throughput[1:] == base.throughput, "what the profile knew stays behind it"


def test_plan_counts_nodes_by_what_was_saved(tmp_path: Path) -> None:
    """The profile has rows of others for the same load; the measured node goes before them."""
    base = find_profile("nemotron-3-ultra-8xh200-nvfp4")
    measured = launched_with(base, None, "0.32.0", DATE)
    shape = Lengths(8192, 1024, 0.7)
    seen = replace(rung("chat", 16, 800.0), lengths=shape)
    own = save(base, [throughput_of(seen, measured, "a test")], tmp_path)
    speed = node_speed(own, read_workload(["chat"]))
    assert speed.points == (DecodePoint(16, 50.0),)
    assert "other flags" not in speed.decode_source
    assert speed.decode_source.startswith("measured: chat 100 in / 10 out")
    agents = node_speed(own, read_workload(["coding-agents"]))
    assert "Dynamo" in agents.decode_source, "a chat says little about agents"


def test_the_load_is_saved_as_it_was(tmp_path: Path) -> None:
    measured = launched_with(find_profile("tiny-cpu"), None, "0.32.0", DATE)

    def load_of(seen: Rung) -> ProfileLoad | None:
        return throughput_of(seen, measured, "a test").load

    closed = rung("chat", 8, 100.0)
    assert load_of(closed) == ProfileLoad(input=100, cached=0.7, output=10, users=8)
    counted = replace(closed.figures, node=replace(closed.figures.node, hit_rate=0.5912))
    assert load_of(replace(closed, figures=counted)) == ProfileLoad(input=100, cached=0.591, output=10, users=8)
    opened = replace(closed.figures, users=None, rate=2.0, user_rate=25.0)
    assert load_of(replace(closed, figures=opened)) == ProfileLoad(input=100, cached=0.7, output=10, users=4)
    assert load_of(replace(closed, figures=replace(opened, user_rate=None))) is None
    assert load_of(replace(closed, lengths=Lengths(100, 10, None))) is None, "a trace on a node without /metrics"


def test_a_later_bench_replaces_the_same_and_keeps_the_rest(tmp_path: Path) -> None:
    base = find_profile("tiny-cpu")
    other = Launched({"--max-num-seqs": "4"}, {})
    measure(base, 80.0, tmp_path)
    measure(base, 60.0, tmp_path, other)
    own = measure(find_profile("tiny-cpu-measured", [tmp_path]), 90.0, tmp_path)
    assert own.name == "tiny-cpu-measured"
    assert [each.low for each in own.throughput] == [90.0, 60.0]


def test_a_profile_of_ones_own_is_written_whole_and_left_alone(tmp_path: Path) -> None:
    mine = tmp_path / "ours.yaml"
    text = "extends: tiny-cpu\nname: ours\nmax_model_len: 2048  # a comment\n"
    mine.write_text(text)
    own = measure(find_profile("ours", [tmp_path]), 70.0, tmp_path)
    assert mine.read_text() == text
    assert (own.name, own.max_model_len, own.throughput[0].low) == ("ours-measured", 2048, 70.0)
    assert find_profile("ours-measured", [tmp_path]) == own


def test_an_edited_measurement_is_found_out(tmp_path: Path) -> None:
    measure(find_profile("tiny-cpu"), 80.0, tmp_path, Launched({"--max-num-seqs": "16"}, {}))
    file = tmp_path / "tiny-cpu-measured.yaml"
    file.write_text(file.read_text().replace("'16'", "'64'"))
    with pytest.raises(ConfigError, match="flags_hash differs"):
        find_profile(str(file))


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"cannot write .*; nothing was saved"):
        measure(find_profile("tiny-cpu"), 80.0, tmp_path / "file" / "below")


def test_the_folder_is_the_first_that_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLEETGATE_WORKER_PROFILES", f"{tmp_path}:/elsewhere")
    assert folder_for([]) == tmp_path
    assert folder_for([tmp_path / "new"]) == tmp_path / "new" and (tmp_path / "new").is_dir()
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="cannot make the folder"):
        folder_for([tmp_path / "file" / "below"])
    monkeypatch.delenv("FLEETGATE_WORKER_PROFILES")
    with pytest.raises(ConfigError, match="--save needs a folder"):
        folder_for([])


def test_flags_are_read_from_a_command_line() -> None:
    line = (
        "vllm serve /models/x --tensor-parallel-size 8 --kv_cache_dtype=fp8 --enforce-eager --middleware a b --port 1"
    )
    assert flags_in(line.split()) == {
        "--tensor-parallel-size": "8",
        "--kv-cache-dtype": "fp8",
        "--enforce-eager": None,
        "--middleware": "a b",
    }


def test_short_flags_are_the_long_ones() -> None:
    assert flags_in(["vllm", "serve", "m", "--enforce-eager", "-tp", "8", "--seed", "-1", "-O", "2"]) == {
        "--enforce-eager": None,
        "--tensor-parallel-size": "8",
        "--seed": "-1",
        "-O": "2",
    }


def test_secrets_are_left_out() -> None:
    line = "vllm serve --api-key sk-1 --hf-token hf_2 --hf-token=hf_3 --ssl-keyfile /k --max-num-seqs 4"
    assert flags_in(line.split()) == {"--max-num-seqs": "4"}


SERVER = """
import socket, sys
listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize(
    ("words", "flags"),
    [
        (["-m", "vllm.entrypoints.openai.api_server", "--max-num-seqs", "16"], {"--max-num-seqs": "16"}),
        (
            [*CPU_PROGRAM, "--disable-access-log-for-endpoints", "/health", "--max-num-seqs", "16"],
            {"--max-num-seqs": "16"},
        ),
        (["/usr/bin/vllm", "serve", "/m", "--enforce-eager"], {"--enforce-eager": None}),
        (["fake", "--as", "vllm-0.32", "--rate", "5"], None),
        (["/usr/bin/vllm", "serve", "/m"], None),
    ],
)
def test_a_nodes_own_flags_are_read_from_its_process(words: list[str], flags: dict[str, str | None] | None) -> None:
    environment = {"VLLM_X": "1", "VLLM_API_KEY": "sk-1", "VLLM_S3_TOKEN": "t", "HOME": "/h", "OMP_NUM_THREADS": "2"}
    pipe = subprocess.PIPE
    process = subprocess.Popen([sys.executable, "-c", SERVER, *words], stdin=pipe, stdout=pipe, env=environment)
    try:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        launched = read_launched(f"http://127.0.0.1:{port}")
    finally:
        process.communicate()
    if flags is None:
        assert launched is None
    else:
        assert launched == Launched(flags, {"VLLM_X": "1", "OMP_NUM_THREADS": "2"})


def test_a_port_that_nobody_listens_on_has_no_flags() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        assert read_launched(f"http://127.0.0.1:{taken.getsockname()[1]}") is None
