"""A measured throughput says what it was measured with, and `plan` says where a profile's launch is another one."""

import json
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from workers.cli import app
from workers.errors import ConfigError
from workers.measured import differences, measured_with, profile_flags
from workers.profile import Profile
from workers.profiles.load import find_profile, load_profile_file, load_profiles
from workers.speed_flags import flags_hash, speed_flags
from workers.throughput import Throughput

ALL = load_profiles()
DAY0 = "nemotron-3-ultra-8xh200-nvfp4"


@pytest.mark.parametrize("profile", ALL.values(), ids=list(ALL))
def test_every_measured_throughput_says_with_what(profile: Profile) -> None:
    for speed in profile.throughput:
        if speed.kind == "measured":
            assert speed.measured_with is not None
            assert speed.measured_with.vllm and speed.measured_with.date


@pytest.mark.parametrize("name", [DAY0, "nemotron-3-ultra-4xb200-nvfp4"])
def test_the_day_0_figures_were_measured_with_expert_parallel_and_one_guess(name: str) -> None:
    for speed in find_profile(name).throughput:
        assert speed.measured_with is not None
        flags = speed_flags(speed.measured_with.flags, {})
        assert flags["--enable-expert-parallel"] == "on"
        assert json.loads(flags["--speculative-config"]) == {"method": "mtp", "num_speculative_tokens": 1}
    unlike = "\n".join(differences(find_profile(name), find_profile(name).throughput[0]))
    assert "--enable-expert-parallel: measured on, here off" in unlike
    assert "--max-num-seqs" in unlike


def test_plan_tells_it_in_words_and_as_json() -> None:
    run = CliRunner().invoke(app, ["plan", DAY0], env={"COLUMNS": "200"})
    assert "NOT with the flags of this profile" in run.stdout
    assert "--enable-expert-parallel: measured on, here off" in run.stdout
    run = CliRunner().invoke(app, ["plan", DAY0, "--json"])
    speed = json.loads(run.stdout)[0]["throughput"][0]
    assert any(line.startswith("--enable-expert-parallel") for line in speed["differences"])
    assert speed["measured_with"]["date"] == "2026-06"


def test_one_launch_in_two_spellings_has_no_difference() -> None:
    ours: dict[str, str | None] = {
        "--gpu-memory-utilization": "0.90",
        "--enable-chunked-prefill": None,
        "--no-enable-expert-parallel": None,
        "--speculative-config": '{"num_speculative_tokens": 5, "method": "nemotron_h_mtp"}',
        "--port": "8000",
        "--kv-cache-dtype": "fp8",
    }
    theirs: dict[str, str | None] = {
        "--gpu_memory_utilization": "0.9",
        "--speculative-config": '{"method":"mtp","num_speculative_tokens":5}',
        "--port": "9000",
        "--kv-cache-dtype": "fp8",
        "--pipeline-parallel-size": "1",
    }
    assert speed_flags(ours, {}) == speed_flags(theirs, {})
    assert flags_hash(ours, {"VLLM_API_KEY": "a"}) == flags_hash(theirs, {"HOME": "/b"})
    assert flags_hash(ours, {}) != flags_hash(ours | {"--kv-cache-dtype": "auto"}, {})
    assert flags_hash(ours, {}) != flags_hash(ours, {"NCCL_NVLS_ENABLE": "0"})
    assert flags_hash(ours, {}) != flags_hash(ours | {"--no-enable-prefix-caching": None}, {})


def own_profile(folder: Path, **changes: object) -> Path:
    """A profile of one's own with a measurement of the node as the profile launches it."""
    base = find_profile("tiny-cpu")
    seen = measured_with(base, "0.32.0", "2026-11-30").model_dump() | changes
    speed = {"kind": "measured", "low": 90, "high": 90, "workload": "chat", "source": "bench", "measured_with": seen}
    file = folder / "ours.yaml"
    file.write_text(yaml.safe_dump({"extends": "tiny-cpu", "name": "ours", "throughput": [speed]}))
    return file


def test_what_was_measured_as_it_is_launched_differs_in_nothing(tmp_path: Path) -> None:
    ours = load_profile_file(own_profile(tmp_path))
    assert list(differences(ours, ours.throughput[0])) == []
    slower = ours.model_copy(update={"max_model_len": 2048})
    assert list(differences(slower, ours.throughput[0])) == ["--max-model-len: measured 4096, here 2048"]


def test_flags_that_were_edited_after_the_measurement_are_an_error(tmp_path: Path) -> None:
    flags = profile_flags(find_profile("tiny-cpu")) | {"--max-num-seqs": "64"}
    with pytest.raises(ConfigError, match="changed after the measurement"):
        load_profile_file(own_profile(tmp_path, flags=flags))


@pytest.mark.parametrize(
    ("speed", "says"),
    [
        ({"kind": "measured"}, "measured needs measured_with"),
        ({"kind": "estimate", "measured_with": "x"}, "measured_with"),
        ({"kind": "estimate", "low": 3}, "above high"),
    ],
)
def test_a_throughput_that_says_too_little_is_refused(tmp_path: Path, speed: dict[str, object], says: str) -> None:
    file = tmp_path / "ours.yaml"
    whole = {"low": 1, "high": 2, "workload": "w", "source": "s"} | speed
    file.write_text(yaml.safe_dump({"extends": "tiny-cpu", "name": "ours", "throughput": [whole]}))
    with pytest.raises(ConfigError, match=says):
        load_profile_file(file)


def test_an_estimate_has_no_differences() -> None:
    speed = Throughput(kind="estimate", low=1, high=2, workload="w", source="s")
    assert list(differences(find_profile(DAY0), speed)) == []
