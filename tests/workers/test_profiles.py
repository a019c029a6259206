"""Profiles: complete, consistent, sourced, and extendable by an operator's own file."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from workers.cli import app
from workers.errors import ConfigError
from workers.profile import GUIDE_IMAGE, Profile
from workers.profiles.load import find_profile, load_profiles

ALL = load_profiles()


def test_the_list_is_complete() -> None:
    assert set(ALL) >= {
        "nemotron-3-ultra-8xh200-fp8",
        "nemotron-3-ultra-8xh100-nvfp4",
        "nemotron-3-ultra-16xh100-fp8",
        "nemotron-3-ultra-16xh100-bf16",
        "nemotron-3-ultra-8xb200-fp8",
        "nemotron-3-ultra-4xh200-nvfp4",
        "nemotron-3-ultra-8xh200-nvfp4",
        "nemotron-3-super-1xh100-nvfp4",
        "nemotron-ultra-253b-8xh100-fp8",
        "nemotron-3-nano-1xa100-bf16",
        "tiny-cpu",
    }
    assert [p.name for p in ALL.values() if p.role == "recommended"] == ["nemotron-3-ultra-8xh200-fp8"]
    assert [p.name for p in ALL.values() if p.role == "budget"] == ["nemotron-3-ultra-8xh100-nvfp4"]


ESTIMATE = "kind: estimate, workload: w, source: s"


@pytest.mark.parametrize("profile", ALL.values(), ids=list(ALL))
def test_every_choice_has_a_source_or_a_reason(profile: Profile) -> None:
    assert profile.source
    assert profile.parallel.expert_reason
    assert profile.utilization_reason
    assert profile.caching.reason
    assert all(price.date and price.source for price in profile.prices)
    assert all(speed.source and speed.workload for speed in profile.throughput)
    assert all(flag.why for flag in profile.extra_flags)


@pytest.mark.parametrize("profile", ALL.values(), ids=list(ALL))
def test_mamba_models_cache_prefixes_and_chunk_both_or_neither(profile: Profile) -> None:
    if profile.model.architecture().has_mamba:
        assert profile.caching.prefix == profile.caching.chunked_prefill


def test_the_guides_numbers() -> None:
    h200 = ALL["nemotron-3-ultra-8xh200-fp8"]
    assert (h200.gpu_memory_utilization, h200.max_model_len, h200.parallel.tensor) == (0.90, 32768, 8)
    assert h200.parallel.expert
    assert h200.reasoning_parser == "nemotron_v3"
    assert GUIDE_IMAGE == "vllm/vllm-openai:v0.22.0"
    assert ALL["nemotron-3-ultra-8xh100-nvfp4"].gpu_memory_utilization == 0.88
    pair = ALL["nemotron-3-ultra-16xh100-fp8"]
    assert (pair.parallel.tensor, pair.parallel.pipeline, pair.parallel.backend) == (8, 2, "ray")
    assert pair.gpu_memory_utilization == 0.88
    vendor = ALL["nemotron-3-ultra-8xh200-nvfp4"]
    assert (vendor.max_model_len, vendor.kv_cache_dtype, vendor.caching.prefix) == (262144, "fp8", True)
    assert vendor.speculation is not None
    assert (ALL["nemotron-3-ultra-8xb200-fp8"].min_cuda, h200.min_cuda) == ("12.8", "12.4")


def test_an_operators_file_extends_a_profile(tmp_path: Path) -> None:
    (tmp_path / "ours.yaml").write_text(
        "extends: nemotron-3-ultra-8xh200-fp8\nname: ours\nmax_model_len: 65536\nscheduling: {max_sequences: 8}\n"
    )
    ours = find_profile("ours", [tmp_path])
    assert (ours.max_model_len, ours.scheduling.max_sequences) == (65536, 8)
    assert ours.scheduling.max_queued_requests == 128  # mappings merge, the rest is inherited
    assert find_profile(str(tmp_path / "ours.yaml")) == ours
    run = CliRunner().invoke(app, ["plan", "ours"], env={"FLEETGATE_WORKER_PROFILES": str(tmp_path)})
    assert run.exit_code == 0


@pytest.mark.parametrize(
    ("given", "read"), [("fp32", "float32"), ("fp16", "float16"), ("bf16", "bfloat16"), ("float16", "float16")]
)
def test_the_type_of_the_mamba_state_in_any_spelling(tmp_path: Path, given: str, read: str) -> None:
    (tmp_path / "ours.yaml").write_text(f"extends: nemotron-3-ultra-8xh200-fp8\nname: ours\nssm_cache_dtype: {given}\n")
    assert find_profile("ours", [tmp_path]).ssm_cache_dtype == read


def test_an_operators_own_gpu_and_model_need_no_change_here(tmp_path: Path) -> None:
    file = tmp_path / "own.yaml"
    file.write_text(
        """
extends: tiny-cpu
name: own
model:
  {name: m, title: M, parameters_billion: 7, active_billion: 7, native_context: 8192, license: MIT,
   checkpoints: [{precision: bf16, repository: a/b}],
   config: {num_hidden_layers: 2, hidden_size: 64, num_attention_heads: 4}}
hardware:
  gpu: {name: l40s, title: L40S, memory_gb: 48, family: hopper, form: pcie, nvlink_links: 0,
        min_cuda: "12.4", min_driver: "550.54", fp8_compute: true, fp4_compute: false}
"""
    )
    assert find_profile(str(file)).hardware.memory_gb == 48


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("extends: nemotron-3-ultra-8xh200-fp8\nmax_model_length: 1", "max_model_length"),
        ("extends: tiny-cpu\nstartup_seconds: .nan", "startup_seconds"),
        ("extends: tiny-cpu\nstartup_seconds: 0", "startup_seconds"),
        ("extends: tiny-cpu\nmin_host_memory_gb: .inf", "min_host_memory_gb"),
        ("extends: tiny-cpu\nmin_shared_memory_gb: -1", "min_shared_memory_gb"),
        ("extends: tiny-cpu\nmin_vllm: newest", "min_vllm"),
        ('extends: tiny-cpu\nvllm_image: ""', "vllm_image"),
        ('extends: tiny-cpu\nserved_name: ""', "served_name"),
        ("extends: tiny-cpu\nscheduling: {max_sequences: 10000000000000}", "max_sequences"),
        ("extends: tiny-cpu\ngpu_memory_utilization: .nan", "gpu_memory_utilization"),
        ('extends: tiny-cpu\nenvironment: {"A=B": "1"}', "environment"),
        ('extends: tiny-cpu\nenvironment: {"A B": "1"}', "environment"),
        ('extends: tiny-cpu\nenvironment: {A: "\\0"}', "environment.A"),
        (f"extends: tiny-cpu\nthroughput: [{{low: .inf, high: .inf, {ESTIMATE}}}]", "throughput.0.low"),
        (f"extends: tiny-cpu\nthroughput: [{{low: 1e-300, high: 1, {ESTIMATE}}}]", "throughput.0.low"),
        (
            "extends: tiny-cpu\n"
            f"throughput: [{{low: 1, high: 1, {ESTIMATE}, load: {{input: 1, cached: 0, output: 1, users: .inf}}}}]",
            "load.users",
        ),
        ("extends: nemotron-3-ultra-8xh200-fp8\nparallel: {tensor: 4}", "parallel uses 4 GPUs"),
        (
            "extends: nemotron-3-ultra-8xh200-fp8\nparallel: {tensor: 5}\nhardware: {gpus_per_node: 5}",
            "64 attention heads cannot be divided by 5; possible sizes: 1, 2, 4, 8",
        ),
        ("extends: nemotron-3-ultra-8xh200-fp8\nssm_cache_dtype: fp4", "float16"),
        (
            "extends: tiny-cpu\nmodel: {name: m, title: M, parameters_billion: 1, active_billion: 1,"
            " native_context: 8192, license: MIT, checkpoints: [{precision: bf16, repository: a/b}], config: {}}",
            "num_attention_heads|num_",
        ),
        ("extends: nemotron-3-ultra-8xh200-fp8\ncaching: {prefix: false}", "both on or both off"),
        ("extends: nemotron-3-ultra-16xh100-fp8\nparallel: {backend: null}", "or ray"),
        ("extends: [nemotron-3-ultra-8xh200-fp8]", "not a built-in profile"),
        ("extends: nemotron-3-ultra-8xh200-fp8\nmax_model_len: 9000000", "max_model_len"),
        ("extends: nobody", "not a built-in profile"),
        ("extends: tiny-cpu\nprices: [{kind: spot, date: 2026-02-31}]", "cannot read"),
        ("- a list", "not a YAML mapping"),
        ("a: [", "cannot read"),
    ],
)
def test_a_wrong_file_is_told_with_its_fault(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "bad.yaml").write_text(text)
    with pytest.raises(ConfigError, match=says):
        load_profiles([tmp_path])
