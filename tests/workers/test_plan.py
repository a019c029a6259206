"""Memory, concurrency and cost: the golden values of the deployment guide, and what the planner says beyond
them.
"""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from workers.architecture import Architecture, read_architecture
from workers.catalog.facts import find_gpu, find_model
from workers.cli import app
from workers.cost import CostPlan
from workers.errors import ConfigError
from workers.plan import Question, base_profile, machine_profile, make_plan
from workers.profile import Profile
from workers.profiles.load import find_profile, load_profiles
from workers.vram import plan_memory

RECOMMENDED = "nemotron-3-ultra-8xh200-fp8"


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
    assert (memory.checkpoint_gb, memory.vendor_minimum_gb) == (335, 330)
    assert memory.formula_gb == pytest.approx(316.25)
    assert memory.needed_gb == pytest.approx(335 * 1.15)


def test_bf16_on_sixteen_h100_fits_on_paper_only(profiles: list[Profile]) -> None:
    answer = make_plan(find_profile("nemotron-3-ultra-16xh100-bf16"), Question(), profiles)
    assert answer.memory.formula_gb == pytest.approx(1265)
    assert answer.memory.node_gb == 1280
    assert answer.memory.formula_gb < answer.memory.node_gb
    assert not answer.memory.fits
    assert "nemotron-3-ultra-16xh100-fp8" in " ".join(answer.advice)


def test_every_other_profile_fits(profiles: list[Profile]) -> None:
    assert [p.name for p in profiles if not plan_memory(p).fits] == ["nemotron-3-ultra-16xh100-bf16"]


def test_kv_and_state_come_from_config_json() -> None:
    ultra = find_model("nemotron-3-ultra-550b-a55b").architecture()
    # 2 (key and value) x 12 attention layers x 2 heads x 128 dims x 2 bytes
    assert ultra.kv_bytes_per_token("auto", 1) == 2 * 12 * 2 * 128 * 2
    # two heads are copied to eight ranks
    assert ultra.kv_bytes_per_token("fp8", 8) == 2 * 12 * 8 * 128
    ssm = 48 * 256 * 64 * 128 * 4
    assert ssm < ultra.state_bytes(8) < ssm * 1.02
    assert ultra.state_bytes(8, "bfloat16") == pytest.approx(ultra.state_bytes(8) - ssm / 2)


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


# --- cost
# -------------------------------------------------------------------------------------------------------


def test_on_demand_cost_of_eight_h200() -> None:
    cost = CostPlan("on_demand", "guide", hourly=8 * 4.84, tokens_per_second=700)
    assert cost.hourly == pytest.approx(38.72)
    assert round(cost.monthly) == 28_266
    assert cost.per_million == pytest.approx(15.36, abs=0.006)  # the guide cuts 15.3651 off
    assert cost.break_even(4).tokens_per_month / 1e9 == pytest.approx(7.1, abs=0.05)
    assert cost.break_even(8).tokens_per_month / 1e9 == pytest.approx(3.5, abs=0.05)


def test_spot_cost_of_eight_h200() -> None:
    cost = CostPlan("spot", "guide", hourly=14.56, tokens_per_second=700)
    assert cost.per_million == pytest.approx(5.78, abs=0.005)
    assert cost.break_even(4).tokens_per_month / 1e9 == pytest.approx(2.7, abs=0.05)


def test_prices_of_the_profiles() -> None:
    def first_price(name: str) -> CostPlan:
        return make_plan(find_profile(name), Question()).costs[0].cost

    assert round(first_price("nemotron-3-ultra-16xh100-fp8").monthly) == 45_786
    assert first_price("nemotron-3-ultra-8xb200-fp8").hourly == pytest.approx(21.68)
    assert round(first_price("nemotron-3-ultra-8xb200-fp8").monthly) == 15_826
    h200 = make_plan(find_profile(RECOMMENDED), Question()).costs
    assert [round(c.cost.hourly, 2) for c in h200] == [38.72, 14.56]


def test_break_even_beyond_a_nodes_capacity_is_never_reached() -> None:
    cost = CostPlan("on_demand", "guide", hourly=38.72, tokens_per_second=700)
    assert cost.tokens_per_month == pytest.approx(1.84e9, rel=0.001)
    point = cost.break_even(4)
    assert (point.nodes, point.reachable) == (4, False)
    # at the speed it names, the node's capacity is exactly the break-even volume
    faster = CostPlan("on_demand", "guide", 38.72, point.needed_tokens_per_second)
    assert faster.tokens_per_month == pytest.approx(point.tokens_per_month)
    assert faster.per_million == pytest.approx(4)


# --- the command
# ------------------------------------------------------------------------------------------------


def test_a_machine_in_mind_is_refused_with_the_profiles_that_fit() -> None:
    run = CliRunner().invoke(app, ["plan", "--gpu", "h100", "--count", "8", "--precision", "fp8", "--json"])
    assert run.exit_code == 1
    (answer,) = json.loads(run.stdout)
    assert answer["fits"] is False
    assert answer["memory_gb"]["formula"] == pytest.approx(632.5)
    assert answer["memory_gb"]["headroom"] < 576 - 632.5
    assert "nemotron-3-ultra-8xh100-nvfp4" in " ".join(answer["advice"])


def test_the_list_of_profiles_cuts_no_name_off() -> None:
    """It is what a new user types first, and the names are what has to be typed next."""
    run = CliRunner().invoke(app, ["plan"], env={"COLUMNS": "80"})
    assert run.exit_code == 0
    rows = {line.split()[0]: line for line in run.stdout.splitlines() if line.strip()}
    assert set(load_profiles()) <= rows.keys()
    assert "28,266" in rows[RECOMMENDED]


def test_a_profile_in_words_names_the_hidden_assumption() -> None:
    run = CliRunner().invoke(app, ["plan", RECOMMENDED], env={"COLUMNS": "200"})
    assert run.exit_code == 0
    for words in ("Fits", "28,266", "15.365", "1.84 B tokens a month", "needs 4 nodes", "2,689 tokens/s"):
        assert words in run.stdout


def test_context_and_sequences_change_the_answer() -> None:
    def ask(*more: str) -> dict[str, int]:
        run = CliRunner().invoke(app, ["plan", "nemotron-3-ultra-8xh100-nvfp4", "--json", *more])
        (answer,) = json.loads(run.stdout)
        return {"max": answer["sequences"]["max"], "fits": answer["fits"]}

    assert ask("--context", "4096")["max"] > ask("--context", "32768")["max"]
    assert ask("--sequences", "10")["fits"]
    assert not ask("--sequences", "500")["fits"]


def test_a_downloaded_config_beats_the_catalogue(tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    config = find_model("nemotron-3-ultra-550b-a55b").config | {"layer_counts": {"attention": 24, "mamba": 48}}
    file.write_text(json.dumps(config))
    run = CliRunner().invoke(app, ["plan", RECOMMENDED, "--config", str(file), "--json"])
    (answer,) = json.loads(run.stdout)
    assert answer["sequences"]["kv_bytes_per_token"] == 2 * 24 * 8 * 128 * 2


def test_the_picture_is_written(tmp_path: Path) -> None:
    target = tmp_path / "plan.png"
    assert CliRunner().invoke(app, ["plan", "--plot", str(target)]).exit_code == 0
    assert target.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    "args",
    [
        ["nonsense"],
        ["--gpu", "h900"],
        ["--gpu", "h100", "--precision", "int3"],
        ["--gpu", "h100", "--count", "9"],
    ],
)
def test_wrong_questions_are_answered_in_a_sentence(args: list[str]) -> None:
    run = CliRunner().invoke(app, ["plan", *args])
    assert run.exit_code == 2
    assert "Traceback" not in run.output


def test_dense_models_have_no_state() -> None:
    assert Architecture(attention_layers=1, kv_heads=1, head_dim=64).state_bytes(8) == 0
