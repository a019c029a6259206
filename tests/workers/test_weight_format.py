"""A folder of weights is held against the profile: what config.json says of their precision and of their model."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from workers.checkpoint import MARKER, find_weights
from workers.cli import app
from workers.errors import DownloadFailed
from workers.profiles.load import find_profile
from workers.weight_format import read_weight_format

FP8 = "nemotron-3-ultra-8xh200-fp8"
NVFP4 = "nemotron-3-ultra-8xh200-nvfp4"
BF16 = "nemotron-3-ultra-16xh100-bf16"
ULTRA = "nvidia/NVIDIA-Nemotron-3-Ultra-550B-A55B"

MODELOPT_NVFP4 = {
    "quant_method": "modelopt",
    "quant_algo": "MIXED_PRECISION",
    "quantized_layers": {"a.mixer.in_proj": {"quant_algo": "FP8"}, "b.experts.0": {"quant_algo": "NVFP4"}},
}
RED_HAT_FP8 = {
    "quant_method": "compressed-tensors",
    "config_groups": {"group_0": {"weights": {"num_bits": 8, "type": "float", "strategy": "block"}}},
}
FORMATS: list[tuple[dict[str, Any] | None, str | None]] = [
    (None, "bf16"),
    (RED_HAT_FP8, "fp8"),
    ({"quant_method": "fp8", "weight_block_size": [128, 128]}, "fp8"),
    ({"quant_method": "fbgemm_fp8"}, "fp8"),
    ({"quant_method": "modelopt", "quant_algo": "FP8"}, "fp8"),
    ({"quant_algo": "fp8"}, "fp8"),
    ({"quant_method": "modelopt", "quant_algo": "FP8_PB_WO"}, "fp8"),
    (MODELOPT_NVFP4, "nvfp4"),
    ({"quant_method": "modelopt", "quant_algo": "NVFP4"}, "nvfp4"),
    ({"quant_method": "modelopt_fp4"}, "nvfp4"),
    (
        {
            "quant_method": "compressed-tensors",
            "config_groups": {"a": {"weights": {"num_bits": "4", "type": "FLOAT"}}, "b": RED_HAT_FP8["config_groups"]},
        },
        "nvfp4",
    ),
    (
        {"quant_method": "compressed-tensors", "config_groups": {"a": {"weights": {"num_bits": 4, "type": "int"}}}},
        None,
    ),
    ({"quant_method": "awq", "bits": 4}, None),
    ({}, None),
]


def write_config(folder: Path, quantization: Any = None, **more: Any) -> Path:
    config = {"model_type": "nemotron_h", "hidden_size": 8192, "num_hidden_layers": 108} | more
    if quantization is not None:
        config["quantization_config"] = quantization
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def write_marker(folder: Path, repository: str, quantization: str | None = None) -> None:
    marker = {"repository": repository, "revision": "abc", "quantization": quantization}
    (folder / MARKER).write_text(json.dumps(marker))


@pytest.mark.parametrize(("quantization", "precision"), FORMATS)
def test_formats_of_quantisation(tmp_path: Path, quantization: dict[str, Any] | None, precision: str | None) -> None:
    found = read_weight_format(write_config(tmp_path, quantization))
    assert found is not None and found.precision == precision


def test_modelopts_own_file_and_nested_configurations(tmp_path: Path) -> None:
    write_config(tmp_path)
    (tmp_path / "hf_quant_config.json").write_text(json.dumps({"quantization": {"quant_algo": "NVFP4"}}))
    found = read_weight_format(tmp_path)
    assert found is not None and found.precision == "nvfp4"
    found = read_weight_format(write_config(tmp_path, text_config={"quantization_config": {"quant_method": "fp8"}}))
    assert found is not None and found.precision == "fp8"


def test_bf16_without_a_marker_is_quantised_for_an_fp8_profile(tmp_path: Path) -> None:
    weights = find_weights(find_profile(FP8), write_config(tmp_path))
    assert weights.quantization == "fp8" and "BF16" in weights.told
    run = CliRunner().invoke(app, ["argv", FP8, "--model-dir", str(tmp_path)])
    assert "--quantization fp8" in run.stdout


@pytest.mark.parametrize(
    ("profile", "quantization"),
    [(FP8, RED_HAT_FP8), (NVFP4, MODELOPT_NVFP4), (BF16, None)],
    ids=["fp8", "nvfp4", "bf16"],
)
def test_weights_of_the_profiles_precision_are_taken_as_they_are(
    tmp_path: Path, profile: str, quantization: dict[str, Any] | None
) -> None:
    assert find_weights(find_profile(profile), write_config(tmp_path, quantization)).quantization is None
    write_marker(tmp_path, f"{ULTRA}-BF16", "fp8")  # an old note: config.json is what vLLM goes by
    assert find_weights(find_profile(profile), tmp_path).quantization is None


@pytest.mark.parametrize(
    ("profile", "quantization", "says"),
    [
        (NVFP4, RED_HAT_FP8, "says FP8"),
        (NVFP4, None, "has no quantization_config"),
        (FP8, MODELOPT_NVFP4, "says FP8, NVFP4"),
        (BF16, RED_HAT_FP8, "says FP8"),
        (NVFP4, {"quant_method": "awq"}, "says AWQ"),
    ],
)
def test_weights_of_another_precision_are_refused(
    tmp_path: Path, profile: str, quantization: dict[str, Any] | None, says: str
) -> None:
    write_config(tmp_path, quantization)
    for command in ("argv", "launch"):
        role = ["--role", "head"] if command == "launch" and find_profile(profile).hardware.nodes > 1 else []
        run = CliRunner().invoke(app, [command, profile, "--model-dir", str(tmp_path), "--vllm", "0.32.0", *role])
        assert run.exit_code == 2 and says in run.stderr and "--model-dir" in run.stderr
    run = CliRunner().invoke(app, ["preflight", profile, "--model-dir", str(tmp_path), "--json"])
    found = {f["check"]: f for f in json.loads(run.stdout)["findings"]}
    assert found["weights"]["level"] == "fail" and says in found["weights"]["seen"]


def test_a_marker_decides_where_config_json_tells_nothing(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(DownloadFailed, match="not known"):
        find_weights(find_profile(NVFP4), tmp_path)
    write_marker(tmp_path, f"{ULTRA}-NVFP4")
    assert find_weights(find_profile(NVFP4), tmp_path).quantization is None
    with pytest.raises(DownloadFailed, match=f"says {ULTRA}-NVFP4"):
        find_weights(find_profile(FP8), tmp_path)
    write_marker(tmp_path, f"{ULTRA}-BF16", None)  # what it is quantised to follows from profile and repository
    assert find_weights(find_profile(FP8), tmp_path).quantization == "fp8"


def test_another_model_is_refused(tmp_path: Path) -> None:
    write_config(tmp_path, MODELOPT_NVFP4, hidden_size=4096, num_hidden_layers=88)
    with pytest.raises(DownloadFailed, match="num_hidden_layers 88, as Nemotron 3 Super"):
        find_weights(find_profile(NVFP4), tmp_path)
    super_ = find_profile("nemotron-3-super-1xh100-nvfp4")
    assert find_weights(super_, tmp_path).quantization is None
    # The catalogue's sizes are excerpts: what is no model of it is not refused for them.
    for sizes in ({"num_hidden_layers": 109}, {"hidden_size": "8192"}, {"hidden_size": None}, {"hidden_size": [1]}):
        write_config(tmp_path, MODELOPT_NVFP4, **sizes)
        assert find_weights(find_profile(NVFP4), tmp_path).quantization is None


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "cannot read"),
        ("[]", "is no JSON object"),
        ("[" * 100_000, "cannot read"),
        ('{"model_type": "x", "quantization_config": 7}', "expected a mapping"),
        ("\udcff", "cannot read"),
    ],
)
def test_a_configuration_that_is_none_is_told(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "config.json").write_bytes(text.encode(errors="surrogateescape"))
    for command in ("argv", "preflight"):
        run = CliRunner().invoke(app, [command, NVFP4, "--model-dir", str(tmp_path)], env={"COLUMNS": "500"})
        assert run.exit_code in (1, 2) and isinstance(run.exception, SystemExit)
        assert says in run.output


@pytest.mark.parametrize("layers", [7, [1], {"a": 7}, {"a": {"quant_algo": None}}])
def test_odd_shapes_are_unknown_formats(tmp_path: Path, layers: Any) -> None:
    for key in ("quantized_layers", "config_groups"):
        found = read_weight_format(write_config(tmp_path, {"quant_algo": "MIXED_PRECISION", key: layers}))
        assert found is not None and found.precision is None


def test_a_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    run = CliRunner().invoke(app, ["argv", NVFP4, "--model-dir", str(tmp_path / "no")])
    assert run.exit_code == 2 and "is not there" in run.stderr
