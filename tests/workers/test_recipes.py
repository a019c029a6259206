"""Profiles that say they follow a recipe to the letter, held against the recipe's own words; and the newer fields."""

import json
import os
import shlex
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from workers.argv import Binding, Machine, flags_of, weights_of
from workers.cli import app
from workers.errors import ConfigError
from workers.launch.ray_cluster import is_cluster_up
from workers.measured import profile_flags
from workers.profile import Profile
from workers.profiles.load import find_profile, load_profile_file
from workers.speed_flags import speed_flags

H200 = "nemotron-3-ultra-8xh200-nvfp4"

ENVIRONMENT = {
    "VLLM_WORKER_MULTIPROC_METHOD": "spawn",
    "VLLM_ALLREDUCE_USE_SYMM_MEM": "0",
    "VLLM_DISABLED_KERNELS": "FlashInferFP8ScaledMMLinearKernel",
    "VLLM_SSM_CONV_STATE_LAYOUT": "SD",
    "VLLM_ALLOW_CHUNKED_LOCAL_ATTN_WITH_HYBRID_KV_CACHE": "1",
    "NCCL_CUMEM_ENABLE": "1",
    "NCCL_NVLS_ENABLE": "1",
}
NO_IB = {"NCCL_IB_DISABLE": "1"}
LONG = {"VLLM_ALLOW_LONG_MAX_MODEL_LEN": "1"}

COMMON = """--trust-remote-code --kv-cache-dtype fp8 --max-num-seqs 256 --block-size 64
--kv-events-config '{"enable_kv_cache_events": true}' --no-enable-expert-parallel --enable-prefix-caching
--async-scheduling --mamba-cache-mode align --mamba-ssm-cache-dtype bfloat16 --mamba-backend triton
--no-enable-flashinfer-autotune --no-disable-hybrid-kv-cache-manager --reasoning-parser nemotron_v3 """
HOPPER = (
    COMMON
    + """--tensor-parallel-size 8 --data-parallel-size 1 --pipeline-parallel-size 1 --decode-context-parallel-size 1
--max-num-batched-tokens 24576 --gpu-memory-utilization 0.95 --attention-backend FLASH_ATTN
--compilation-config '{"pass_config": {"fuse_norm_quant": true, "fuse_act_quant": true}}' """
)
BLACKWELL = COMMON + "--tensor-parallel-size 4 --gpu-memory-utilization 0.9 "
MTP = """--speculative-config '{"method": "nemotron_h_mtp", "num_speculative_tokens": 5}' """
SHORT, MILLION = "--max-model-len 262144 ", "--max-model-len 1048576 "

# The flags of Dynamo's recipe 1.4.0, as its manifests have them (-cc and --spec-* written out).
RECIPES = {
    H200: (HOPPER + MTP + SHORT, ENVIRONMENT | NO_IB),
    f"{H200}-1m": (HOPPER + MILLION, ENVIRONMENT | NO_IB | LONG),
    "nemotron-3-ultra-4xb200-nvfp4-dynamo": (
        BLACKWELL + MTP + SHORT + "--max-num-batched-tokens 32768",
        ENVIRONMENT | NO_IB,
    ),
    "nemotron-3-ultra-4xb200-nvfp4-1m": (
        BLACKWELL + MILLION + "--max-num-batched-tokens 49152",
        ENVIRONMENT | NO_IB | LONG,
    ),
    "nemotron-3-ultra-4xgb200-nvfp4": (BLACKWELL + MTP + SHORT + "--max-num-batched-tokens 32768", ENVIRONMENT),
    "nemotron-3-ultra-4xgb200-nvfp4-1m": (BLACKWELL + MILLION + "--max-num-batched-tokens 49152", ENVIRONMENT | LONG),
}


def flags_in(text: str) -> dict[str, str | None]:
    flags: dict[str, str | None] = {}
    words = shlex.split(text)
    for index, word in enumerate(words):
        if word.startswith("--"):
            follows = words[index + 1] if index + 1 < len(words) else "--"
            flags[word] = None if follows.startswith("--") else follows
    return flags


@pytest.mark.parametrize("name", RECIPES)
def test_the_vendors_recipes_are_followed_to_the_letter(name: str) -> None:
    profile = find_profile(name)
    text, environment = RECIPES[name]
    ours = speed_flags(profile_flags(profile), profile.environment)
    if ours.get("NCCL_IB_DISABLE") == "0":
        del ours["NCCL_IB_DISABLE"]  # the variable's default
    assert ours == speed_flags(flags_in(text), environment)


def test_the_guides_profile_shows_what_we_would_run_and_why() -> None:
    run = CliRunner().invoke(app, ["plan", "nemotron-3-ultra-8xh200-fp8"], env={"COLUMNS": "200"})
    assert f"We would run {H200}:" in run.stdout
    beside = run.stdout[run.stdout.index("We would run") :]
    assert "nemotron-3-ultra-8xh200-fp8" in beside and "262,144" in beside, "both in one table"
    run = CliRunner().invoke(app, ["plan"], env={"COLUMNS": "200"})
    assert f"nemotron-3-ultra-8xh200-fp8: we would run {H200} (" in run.stdout
    guide = find_profile("nemotron-3-ultra-8xh200-fp8")
    assert guide.rather is not None and guide.rather.profile == H200 and len(guide.rather.reasons) >= 3
    assert find_profile(guide.rather.profile).rather is None
    others = ["nemotron-3-ultra-8xb200-fp8", "nemotron-3-super-1xh100-nvfp4"]
    assert all(find_profile(name).rather is None for name in others), "said of one profile, not of those built on it"


def own(folder: Path, text: str, base: str = H200) -> Profile:
    file = folder / "own.yaml"
    file.write_text(yaml.safe_dump({"extends": base, "name": "own"} | yaml.safe_load(text)))
    return load_profile_file(file)


def flags_of_own(profile: Profile) -> dict[str, str | None]:
    return {flag.name: flag.value for flag in flags_of(profile, weights_of(profile), Binding())}


def test_a_longer_context_needs_its_switch_and_has_an_end(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="VLLM_ALLOW_LONG_MAX_MODEL_LEN"):
        own(tmp_path, "max_model_len: 400000")
    with pytest.raises(ConfigError, match="above the model's 1048576"):
        own(tmp_path, "{max_model_len: 2000000, environment: {VLLM_ALLOW_LONG_MAX_MODEL_LEN: '1'}}")
    longer = own(tmp_path, "{max_model_len: 400000, environment: {VLLM_ALLOW_LONG_MAX_MODEL_LEN: '1'}}")
    assert longer.max_model_len == 400000


def test_keys_and_values_in_ram_alone(tmp_path: Path) -> None:
    ours = own(tmp_path, "kv_offload: {ram_gib: 200, reason: long pauses}")
    assert flags_of_own(ours)["--kv-offloading-size"] == "200"
    assert (ours.offload_bytes, round(ours.host_memory_gb)) == (200 * 2**30, round(806 + 200 * 2**30 / 1e9))
    assert ours.shared_memory_gib == 264
    run = CliRunner().invoke(app, ["plan", str(tmp_path / "own.yaml")], env={"COLUMNS": "200"})
    assert "KV offload: 200 GiB of RAM keep about" in run.stdout
    assert "1,021 GB of RAM and 264 GiB of /dev/shm" in run.stdout


def test_keys_and_values_on_disk(tmp_path: Path) -> None:
    flags = flags_of_own(find_profile("nemotron-3-ultra-8xh200-nvfp4-offload"))
    connector = json.loads(flags["--kv-transfer-config"] or "")
    extra = connector["kv_connector_extra_config"]
    assert extra["secondary_tiers"] == [{"type": "fs", "root_dir": "/kv-cache"}]
    assert extra["cpu_bytes_to_use"] == 512 * 2**30
    assert "--kv-offloading-size" not in flags
    with pytest.raises(ConfigError, match="needs min_vllm"):
        own(tmp_path, "kv_offload: {ram_gib: 1, disk: /x, reason: r}")
    with pytest.raises(ConfigError, match=r"kv_offload needs caching\.prefix"):
        own(tmp_path, "{kv_offload: {ram_gib: 1, reason: r}, caching: {prefix: false, chunked_prefill: false}}")
    for wrong in ("ram_gib: 0", "ram_gib: .inf", "ram_gib: .nan", "{ram_gib: 1, disk: here}"):
        with pytest.raises(ConfigError, match="kv_offload"):
            own(tmp_path, f"kv_offload: {{reason: r, {wrong.strip('{}')}}}")


def test_kv_events_stay_on_the_machine_unless_an_endpoint_says_otherwise(tmp_path: Path) -> None:
    """vLLM's own default is every address of the machine, and it connects to an endpoint that names a host."""

    def events(text: str) -> tuple[dict[str, object], int | None]:
        ours = own(tmp_path, f"kv_events: {{{text}reason: a router follows them}}")
        assert ours.kv_events is not None
        return json.loads(flags_of_own(ours)["--kv-events-config"] or ""), ours.kv_events.port

    value, port = events("")
    assert value == {
        "enable_kv_cache_events": True,
        "publisher": "zmq",
        "endpoint": "ipc:///tmp/fleetgate-kv-events-8000",
    }
    assert port is None
    value, port = events("endpoint: 'tcp://*:7001', ")
    assert (value["endpoint"], port) == ("tcp://*:7001", 7001)
    value, port = events("endpoint: 'tcp://10.0.0.2:7001', ")
    assert (value["endpoint"], port) == ("tcp://10.0.0.2:7001", None)
    with pytest.raises(ConfigError, match="endpoint"):
        events("endpoint: 'http://x:1', ")


def test_data_parallel_replicas(tmp_path: Path) -> None:
    text = "{{hardware: {{nodes: 2}}, parallel: {{data: 2, backend: mp}}, kv_events: {}}}"
    with pytest.raises(ConfigError, match="need an endpoint"):
        own(tmp_path, text.format("{reason: r}"))
    ours = own(tmp_path, text.format("null"))
    assert (ours.parallel.gpus, ours.max_sequences) == (16, 512)
    assert flags_of_own(ours)["--data-parallel-size"] == "2"
    one, two = (
        json.loads(CliRunner().invoke(app, ["plan", name, "--json"]).stdout)[0]
        for name in (H200, f"{tmp_path}/own.yaml")
    )
    assert two["memory_gb"]["needed"] == pytest.approx(2 * one["memory_gb"]["needed"])
    with pytest.raises(ConfigError, match="parallel uses 16 GPUs, hardware has 8"):
        own(tmp_path, "parallel: {data: 2}")


PAIR = "nemotron-3-ultra-16xh100-fp8-nnodes"


def argv(*more: str) -> str:
    run = CliRunner().invoke(app, ["argv", *more])
    assert run.exit_code == 0, run.output
    return run.stdout


def test_machines_joined_by_vllm_itself() -> None:
    first, second = (argv(PAIR, "--rank", rank, "--head", "10.0.0.1") for rank in "01")
    joined = "--nnodes 2 --node-rank {} --master-addr 10.0.0.1 --master-port 29501"
    assert joined.format(0) in first and "--headless" not in first
    assert joined.format(1) in second and "--headless" in second
    assert "--distributed-executor-backend mp" in first and "ray" not in first
    run = CliRunner().invoke(app, ["argv", PAIR, "--rank", "2"])
    assert run.exit_code == 2 and "2 machine(s)" in run.stderr
    assert "--nnodes" not in argv("nemotron-3-ultra-16xh100-fp8")
    assert Machine().rank == 0


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["--role", "head"], "--address"),
        (["--role", "worker"], "--head"),
        (["--role", "worker", "--head", "10.0.0.1", "--rank", "2"], "--rank 2"),
        (["--role", "worker", "--head", "10.0.0.1:6379"], "without a port"),
        (["--role", "worker", "--head", "10.0.0.1", "--program", "python -m api_server"], "vllm serve"),
        ([], "--role head on one machine"),
    ],
)
def test_a_launch_over_machines_says_what_is_missing(args: list[str], says: str) -> None:
    run = CliRunner().invoke(app, ["launch", PAIR, "--vllm", "0.32.0", *args])
    assert run.exit_code == 2 and says in run.stderr


@pytest.mark.parametrize(("gpus", "code", "up"), [(16, 0, True), (8, 0, False), (16, 1, False), (0, 1, False)])
def test_a_ray_cluster_that_runs_already_is_found(tmp_path: Path, gpus: int, code: int, up: bool) -> None:
    """It is used as it is, so that the launcher does not stop what it did not start."""
    ray = tmp_path / "ray"
    printed = f"Total Usage:\n 0.0/{gpus}.0 GPU" if code == 0 else "could not find any running Ray instance"
    ray.write_text(f"#!/bin/sh\nprintf '{printed}\n'\nexit {code}\n")
    ray.chmod(0o755)
    said: list[str] = []
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    assert is_cluster_up(find_profile("nemotron-3-ultra-16xh100-fp8"), environment, said.append) is up
    assert bool(said) is up
