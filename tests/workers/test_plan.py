"""Memory and concurrency: the golden values of the deployment guide, and what the planner says beyond them."""

import datetime
import json

import pytest
from typer.testing import CliRunner

from workers.architecture import Architecture, read_architecture
from workers.catalog.facts import find_gpu, find_model
from workers.catalog.prices import load_prices
from workers.cli import app
from workers.download_plan import checkpoint_bytes, disk_bytes, download_bytes
from workers.errors import ConfigError
from workers.plan import Question, base_profile, machine_profile, make_plan
from workers.profile import Profile
from workers.profiles.load import find_profile, load_profiles
from workers.vram import plan_memory

RECOMMENDED = "nemotron-3-ultra-8xh200-fp8"
JUNE = Question(prices=load_prices(), day=datetime.date(2026, 6, 30), today=datetime.date(2026, 6, 30))


@pytest.fixture
def profiles() -> list[Profile]:
    return list(load_profiles().values())


@pytest.mark.parametrize(
    ("precision", "weights", "with_overhead"),
    [("bf16", 1100, 1265), ("fp8", 550, 632.5), ("nvfp4", 275, 316.25)],
)
def test_weights_of_nemotron_3_ultra(
    profiles: list[Profile], precision: str, weights: float, with_overhead: float
) -> None:
    base = base_profile(profiles, "nemotron-3-ultra")
    memory = plan_memory(machine_profile(base, "h200", 8, precision))  # type: ignore[arg-type]
    assert memory.weights_gb == pytest.approx(weights)
    assert memory.formula_gb == pytest.approx(with_overhead)


@pytest.mark.parametrize(("gpu", "node_gb"), [("h200", 1128), ("h100", 640), ("b200", 1536)])
def test_memory_of_eight_gpus(gpu: str, node_gb: float) -> None:
    assert find_gpu(gpu).memory_gb * 8 == node_gb


def test_a_known_checkpoint_decides_and_both_are_shown() -> None:
    memory = plan_memory(find_profile("nemotron-3-ultra-8xh100-nvfp4"))
    assert (memory.checkpoint_gb, memory.vendor_minimum_gb) == (352.3, 330)
    assert memory.formula_gb == pytest.approx(316.25)
    assert memory.needed_gb == pytest.approx(352.3 * 1.15)
    by_the_guide = plan_memory(find_profile("nemotron-3-ultra-8xh100-nvfp4"), by_parameters=True)
    assert by_the_guide.needed_gb == pytest.approx(316.25)


def test_bf16_on_sixteen_h100_is_tight(profiles: list[Profile]) -> None:
    """The rule says no; NVIDIA lists the node, and NVML counts 85.5 GB a GPU."""
    answer = make_plan(find_profile("nemotron-3-ultra-16xh100-bf16"), Question(), profiles)
    memory = answer.memory
    assert memory.formula_gb == pytest.approx(1265)
    assert memory.node_gb == 1280
    assert memory.nvml_gb == pytest.approx(1368)
    assert memory.formula_gb < memory.node_gb
    assert memory.headroom_gb < 0
    assert (memory.verdict, memory.fits) == ("tight", True)
    assert memory.spare_gb_per_gpu == pytest.approx((1368 * 0.88 - 1121 - memory.kv_budget_gb) / 16)
    assert "nemotron-3-ultra-16xh100-fp8" in " ".join(answer.advice)
    assert "Listed as a node" in " ".join(answer.advice)
    assert plan_memory(find_profile("nemotron-3-ultra-16xh100-bf16"), by_parameters=True).verdict == "no"


def test_a_listed_node_without_room_for_what_is_asked_is_refused() -> None:
    profile = find_profile("nemotron-3-ultra-16xh100-bf16")
    most = plan_memory(profile).max_sequences
    assert plan_memory(profile, sequences=most).verdict == "tight"
    assert plan_memory(profile, sequences=most + 1).verdict == "no"


def test_a_list_is_no_reason_for_more_sequences_than_the_rule_leaves() -> None:
    profile = find_profile("nemotron-3-ultra-8xh100-nvfp4")
    memory = plan_memory(profile)
    assert memory.listed is not None
    assert memory.verdict == "fits"
    assert plan_memory(profile, sequences=memory.max_sequences + 1).verdict == "no"


def test_only_a_node_that_somebody_lists_is_tight(profiles: list[Profile]) -> None:
    """FP8 on 8x H100: 550 GB of 616 by NVML, but nobody lists it, and the rule needs 633."""
    memory = plan_memory(machine_profile(base_profile(profiles, "nemotron-3-ultra"), "h100", 8, "fp8"))
    assert memory.nvml_usable_gb is not None and memory.tensors_gb < memory.nvml_usable_gb
    assert memory.verdict == "no"


def test_super_on_one_h100_is_refused_by_the_recipes_minimum(profiles: list[Profile]) -> None:
    answer = make_plan(find_profile("nemotron-3-super-1xh100-nvfp4"), Question(), profiles)
    assert answer.memory.headroom_gb >= 0, "the rule alone would take it"
    assert answer.memory.verdict == "no"
    assert "The published minimum is 75 GB, and vLLM may use 72 of 80 GB." in answer.advice


def test_every_other_profile_fits(profiles: list[Profile]) -> None:
    refused = {p.name: plan_memory(p).verdict for p in profiles if plan_memory(p).verdict != "fits"}
    assert refused == {
        "nemotron-3-ultra-16xh100-bf16": "tight",
        "nemotron-3-ultra-2xb200-nvfp4": "tight",
        "nemotron-3-super-1xh100-nvfp4": "no",
    }


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("nemotron-3-ultra-8xh100-nvfp4", 352.3),
        ("nemotron-3-ultra-16xh100-bf16", 1121),
        ("nemotron-3-ultra-8xh200-fp8", 1121),
        ("nemotron-3-super-1xh100-nvfp4", 120 * 0.641),
    ],
)
def test_plan_and_download_ask_for_the_same_disk(name: str, size: float) -> None:
    """The tensors and 5%: 2% of 2 bytes a parameter were 1,122 GB for 1,121 GB of tensors."""
    profile = find_profile(name)
    assert download_bytes(profile) == disk_bytes(int(size * 1e9)) == pytest.approx(size * 1.05e9)
    (answer,) = json.loads(CliRunner().invoke(app, ["plan", name, "--json"]).stdout)
    assert answer["disk_gb"] == pytest.approx(download_bytes(profile) / 1e9)


def test_what_lies_on_the_disk_needs_no_room() -> None:
    profile = find_profile("nemotron-3-ultra-8xh100-nvfp4")
    whole = checkpoint_bytes(profile, profile.checkpoint)
    assert disk_bytes(whole, whole) == 0 == disk_bytes(whole, whole + 1)
    assert download_bytes(find_profile("tiny-cpu")) == 0


def test_kv_and_state_come_from_config_json() -> None:
    ultra = find_model("nemotron-3-ultra-550b-a55b").architecture()
    # 2 (key and value) x 12 attention layers x 2 heads x 128 dims x 2 bytes
    assert ultra.kv_bytes_per_token("auto", 1) == 2 * 12 * 2 * 128 * 2
    # two heads are copied to eight ranks
    assert ultra.kv_bytes_per_token("fp8", 8) == 2 * 12 * 8 * 128
    ssm = 48 * 256 * 64 * 128 * 4
    assert ssm < ultra.state_bytes(8) < ssm * 1.02
    assert ultra.state_bytes(8, "bfloat16") == pytest.approx(ultra.state_bytes(8) - ssm / 2)
    assert ultra.state_bytes(8, "float16") == ultra.state_bytes(8, "bfloat16")
    # guessing tokens keeps keys and values of one attention layer more
    assert ultra.kv_bytes_per_token("fp8", 8, guesses=True) == 2 * 13 * 8 * 128


def test_mtp_costs_the_keys_and_values_of_one_layer() -> None:
    with_mtp = find_profile("nemotron-3-ultra-8xh200-nvfp4")
    without = with_mtp.model_copy(update={"speculation": None})
    grown = plan_memory(with_mtp).sequence.kv_bytes_per_token / plan_memory(without).sequence.kv_bytes_per_token
    assert grown == pytest.approx(13 / 12)


@pytest.mark.parametrize("pattern", [{"mtp_layers_block_type": ["attention", "moe"]}, {}])
def test_the_layers_of_mtp_in_any_spelling(pattern: dict[str, object]) -> None:
    config = dict(find_model("nemotron-3-ultra-550b-a55b").config) | pattern
    config.pop("mtp_hybrid_override_pattern")
    assert read_architecture(config).mtp_attention_layers == 1


@pytest.mark.parametrize(
    ("model", "sizes"),
    [
        ("nemotron-3-ultra-550b-a55b", (1, 2, 4, 8, 16)),
        ("nemotron-3-super-120b-a12b", (1, 2, 4, 8, 16)),
        ("nemotron-ultra-253b", (1, 2, 4, 8, 16)),
        ("tiny-135m", (1, 3, 9)),
    ],
)
def test_over_how_many_gpus_a_layer_can_be_cut(model: str, sizes: tuple[int, ...]) -> None:
    assert find_model(model).architecture().tensor_sizes(16) == sizes


def test_super_has_the_layers_its_sources_count() -> None:
    model = find_model("nemotron-3-super-120b-a12b").architecture()
    assert (model.mamba_layers, model.attention_layers) == (40, 8)
    # 128 heads x 64 x 128 in fp32: 4 MiB a layer, so the source that says 2 MiB is wrong or counts 16 bit
    assert model.mamba_heads * model.mamba_head_dim * model.mamba_state * 4 == 4 * 2**20


def test_the_state_does_not_grow_with_length_but_with_guesses() -> None:
    one = plan_memory(find_profile(RECOMMENDED), context=1024).sequence
    assert one.bytes_at(2048) - one.bytes_at(1024) == 1024 * one.kv_bytes_per_token
    assert one.state_copies == 2  # prefix caching keeps one beside the running one
    assert plan_memory(find_profile("nemotron-3-ultra-8xh200-nvfp4")).sequence.state_copies == 2 + 5


@pytest.mark.parametrize(
    ("config", "attention", "kv_heads"),
    [
        (
            {"num_hidden_layers": 30, "hidden_size": 576, "num_attention_heads": 9, "num_key_value_heads": 3},
            30,
            3,
        ),
        (
            {
                "num_hidden_layers": 2,
                "hidden_size": 256,
                "num_attention_heads": 16,
                "block_configs": [
                    {"attention": {"n_heads_in_group": 8, "no_op": False}},
                    {"attention": {"n_heads_in_group": None, "no_op": True}},
                ],
            },
            1,
            2,
        ),
        ({"num_hidden_layers": 2, "hidden_size": 64, "num_attention_heads": 4}, 2, 4),
    ],
)
def test_shapes_of_config_json(config: dict[str, object], attention: int, kv_heads: int) -> None:
    read = read_architecture(config)
    assert (read.attention_layers, read.kv_heads, read.has_mamba) == (attention, kv_heads, False)


def test_layers_block_type_is_the_newer_spelling_of_the_pattern() -> None:
    config = dict(find_model("nemotron-3-super-120b-a12b").config)
    names = {"M": "mamba", "*": "attention", "E": "moe"}
    newer = config | {"layers_block_type": [names[c] for c in config.pop("hybrid_override_pattern")]}
    newer.pop("hybrid_override_pattern", None)
    assert read_architecture(newer) == find_model("nemotron-3-super-120b-a12b").architecture()


def test_a_config_without_the_keys_is_told() -> None:
    with pytest.raises(ConfigError, match="num_attention_heads"):
        read_architecture({"num_hidden_layers": 2, "hidden_size": 64})


def test_dense_models_have_no_state() -> None:
    assert Architecture(attention_layers=1, kv_heads=1, head_dim=64).state_bytes(8) == 0
