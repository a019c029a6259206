"""`plan --workload`: workloads as people write them, nodes by each bound, months and preemptions."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from workers.catalog.prices import ApiPrice, Price, PriceKind
from workers.cli import app
from workers.errors import ConfigError
from workers.profiles.load import find_profile
from workers.throughput import Load, Throughput
from workers.workload.money import api_costs, mixes_of, preemption_of
from workers.workload.sizing import Sizing, held_bytes, size_fleet
from workers.workload.speed import DecodePoint, NodeSpeed, node_speed, read_points
from workers.workload.workload import Workload, known_workloads, read_workload

PROFILE = find_profile("nemotron-3-ultra-8xh200-nvfp4")
SPEED = NodeSpeed(20_000, (DecodePoint(1, 60), DecodePoint(20, 30)), 256, "given", "given")
CHAT: dict[str, Any] = {"agents": 100, "input": 8192, "cached": 0.7, "output": 1024, "pause": 60, "rate": 20}


def plan(*options: str) -> Result:
    return CliRunner().invoke(app, ["plan", *options])


# --- the workload


@pytest.mark.parametrize(
    "parts",
    [
        ["agents=40,turns=2,input=1000,cached=0.9,output=100"],
        ["agents=40", "turns=2", "input=1000", "cached=90%", "output=100"],
        ["agents=40,turns=2,input=1000,cached=900,output=100"],
        ["chat", "agents=40,turns=2,input=1000,cached=90 %,output=100,pause=0,rate=20"],
        ['agents="40",turns=2,input=1e3,cached=0.9,output=100.0'],
    ],
)
def test_a_workload_in_any_spelling(parts: list[str]) -> None:
    workload = read_workload(parts)
    assert (workload.agents, workload.turns, workload.output) == (40, 2, 100)
    assert workload.cached_tokens == pytest.approx(900)
    assert workload.fresh_tokens == pytest.approx(100)


def test_a_workload_of_a_file_and_of_the_catalogue(tmp_path: Path) -> None:
    file = tmp_path / "ours.yaml"
    file.write_text("agents: 3\ninput: 10\noutput: 20\n")
    assert read_workload([str(file), "agents=4"]).agents == 4
    assert read_workload(["chat,agents=7"]).agents == 7
    assert {"chat", "coding-agents", "long-reasoning"} == known_workloads().keys()
    for name in known_workloads():
        assert read_workload([name]).name == name


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("nonsense", "coding-agents"),
        ("", "FIELD=VALUE"),
        ("/no/such/file.yaml", "cannot read"),
        ("agents=3", "input"),
        ("agents=0,input=1,output=1", "agents"),
        ("agents=many,input=1,output=1", "agents"),
        ("agents=1,agents=2,input=1,output=1", "each field once"),
        ("agents=1,input=10,output=1,cached=11", "cached"),
        ("agents=1,input=10,output=1,cached=-1", "cached"),
        ("agents=1,input=10,output=1,cached=half", "cached"),
        ("agents=1,input=10,output=1,cached=yes", "cached"),
        ("agents=1,input=1000,output=1,cached=101%", "0% to 100%"),
        ("agents=1,input=1000,output=1,cached=9000%", "0% to 100%"),
        ("agents=1,input=1000,output=1,cached=-1%", "0% to 100%"),
        ("agents=1,input=1000,output=1,cached=nan%", "0% to 100%"),
        ("agents=1,input=.inf,output=1", "input"),
        ("agents=1,input=.nan,output=1", "input"),
        ("agents=1,input=10,output=1,speed=3", "speed"),
        ("agents=1,input=[,output=1", "cannot be read"),
        ("agents=1,input=10,output=1,hours=800", "hours"),
    ],
)
def test_a_wrong_workload_is_told_with_its_field(text: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says.replace("[", r"\[")):
        read_workload([text])
    assert plan("--workload", text).exit_code == 2


@pytest.mark.parametrize("text", ["[]", "7", "{", "a: &a [*a]", "\x00"])
def test_a_wrong_file_is_told_with_its_name(tmp_path: Path, text: str) -> None:
    file = tmp_path / "w.yaml"
    file.write_text(text)
    run = plan("--workload", str(file))
    assert run.exit_code == 2
    assert str(file) in run.output


def test_a_file_without_an_end_is_not_read_into_memory() -> None:
    assert "longer than 16 MiB" in plan("--prices", "/dev/zero").output
    assert "longer than 16 MiB" in plan("--config", "/dev/zero").output


# --- speed


def test_a_token_takes_longer_the_more_answers_there_are() -> None:
    assert [SPEED.rate(users) for users in (0.5, 1, 20)] == [60, 60, 30]
    assert 1 / SPEED.rate(10.5) == pytest.approx((1 / 60 + 1 / 30) / 2)
    assert SPEED.rate(40) == pytest.approx(15), "beyond what was measured the total stays"


def test_the_measured_load_that_is_nearest_is_used() -> None:
    rows = {}
    for name in ("chat", "coding-agents"):
        rows[name] = node_speed(PROFILE, read_workload([name]))
    assert rows["chat"].points == (DecodePoint(10, 37.4),)
    assert rows["coding-agents"].points == (DecodePoint(8, 219 / 8),)
    assert "measured: chat 8k in" in rows["chat"].decode_source
    assert "estimate: 25%" in rows["chat"].prefill_source


def test_a_ladder_of_measurements_becomes_a_curve() -> None:
    def row(users: float, total: float, prefill: float | None = None) -> Throughput:
        load = Load(input=8192, cached=0.7, output=1024, users=users, prefill=prefill)
        return PROFILE.throughput[0].model_copy(update={"load": load, "low": total, "high": total})

    measured = PROFILE.model_copy(update={"throughput": (row(16, 400), row(4, 200), row(64, 800, 9000.0))})
    speed = node_speed(measured, Workload(**CHAT))
    assert speed.points == (DecodePoint(4, 50), DecodePoint(16, 25), DecodePoint(64, 12.5))
    assert (speed.prefill, speed.prefill_source) == (9000, "measured")


def test_a_profile_without_a_throughput_says_what_to_give() -> None:
    bare = PROFILE.model_copy(update={"throughput": ()})
    with pytest.raises(ConfigError, match="--decode USERS:RATE"):
        node_speed(bare, Workload(**CHAT))
    given = node_speed(bare, Workload(**CHAT), 5000, read_points(["8:40", "1:70"]))
    assert (given.prefill, given.points) == (5000, (DecodePoint(1, 70), DecodePoint(8, 40)))


@pytest.mark.parametrize("text", ["8", "8:", ":8", "8:0", "0:8", "x:8", "8:nan", "inf:1", "1:2:3"])
def test_a_wrong_decode_point_is_told(text: str) -> None:
    with pytest.raises(ConfigError, match="USERS:RATE"):
        read_points([text])
    with pytest.raises(ConfigError, match="same number"):
        read_points(["8:1", "8.0:2"])


# --- nodes


def sized(speed: NodeSpeed = SPEED, **fields: Any) -> Sizing:
    return size_fleet(PROFILE, Workload(**(CHAT | fields)), speed)


def test_a_given_number_of_nodes_is_sized_and_priced_as_it_is() -> None:
    """More than are needed, fewer, and more than there are conversations."""
    needed = sized(rate=25)
    speed, workload = SPEED, Workload(**(CHAT | {"rate": 25}))
    for nodes in (1, needed.nodes - 1, needed.nodes + 3, 150):
        given = size_fleet(PROFILE, workload, speed, given=nodes)
        assert (given.nodes, given.most_needed, given.binding) == (nodes, needed.nodes, needed.binding)
        assert given.busiest.agents == -(-100 // nodes)
    wide = size_fleet(PROFILE, workload, speed, given=150)
    assert wide.turns_per_second == pytest.approx(100 * wide.busiest.turns)
    assert needed.given is None


def test_nodes_can_be_given_on_the_command_line() -> None:
    options = ("nemotron-3-ultra-8xh200-nvfp4", "--workload", "chat", "--nodes", "7", "--as-of", "2026-11-30")
    [told] = json.loads(plan(*options, "--json").stdout)
    assert (told["nodes"], told["nodes_given"], told["mixes"][0]["steady"]) == (7, 7, 7)
    assert "7 nodes, as given; 5 needed, decided by decode" in plan(*options).stdout


def test_each_bound_can_decide() -> None:
    assert sized(rate=40).binding == ("decode",)
    assert sized(cached=0, first_token=0.6, rate=1, pause=5).binding == ("prefill",)
    few = NodeSpeed(20_000, (DecodePoint(100, 60),), 8, "given", "given")
    assert sized(few).binding == ("places",)
    fast = NodeSpeed(1e9, (DecodePoint(1e6, 1000),), 100_000, "given", "given")
    assert sized(fast, agents=1000, input=200_000, cached=0.99, first_token=60, rate=1).binding == ("KV memory",)


def test_more_agents_need_no_fewer_nodes_and_all_targets_are_kept() -> None:
    last = 0
    for agents in (1, 10, 100, 1000):
        sizing = sized(agents=agents)
        assert sizing.nodes >= last
        assert sizing.busiest.first_token <= sizing.workload.first_token
        assert sizing.busiest.rate >= sizing.workload.rate
        assert sizing.held_gb <= sizing.room_gb
        last = sizing.nodes


def test_pausing_conversations_hold_their_prefixes() -> None:
    sizing = sized()
    state, memory = sizing.busiest, sizing.memory
    whole = memory.sequence.bytes_at(9216)
    kept = memory.sequence.kv_bytes_per_token * 9216 + memory.sequence.state_bytes
    expected = state.running * whole + (state.agents - state.running) * kept
    assert held_bytes(state, sizing.workload, memory) == pytest.approx(expected)
    assert held_bytes(state, sizing.workload, memory, offload=10**9) == pytest.approx(expected - 1e9)
    assert held_bytes(state, sizing.workload, memory, offload=10**15) == pytest.approx(state.running * whole)
    alone = Workload(**(CHAT | {"cached": 0}))
    assert held_bytes(state, alone, memory) == pytest.approx(state.running * whole)


def test_a_profile_that_caches_nothing_computes_everything() -> None:
    caching = PROFILE.caching.model_copy(update={"prefix": False})
    sizing = size_fleet(PROFILE.model_copy(update={"caching": caching}), Workload(**CHAT), SPEED)
    assert sizing.workload.fresh_tokens == 8192
    assert "caches no prefixes" in sizing.notes[0]


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"rate": 61}, "60.0 tokens/s each"),
        ({"first_token": 0.01}, "first token"),
        ({"input": 300_000}, "max_model_len"),
    ],
)
def test_what_no_number_of_nodes_can_do_is_refused(fields: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        sized(**fields)


# --- money


def price(kind: PriceKind, usd: float) -> Price:
    return Price(kind=kind, usd_per_gpu_hour=usd, date="2026-11-01", source="test")


def test_mixes_of_steady_and_spot_nodes() -> None:
    sizing = sized(agents=400)
    assert sizing.nodes >= 4
    mixes = mixes_of(sizing, (price("on_demand", 4), price("spot", 1)), preemptions_per_day=2)
    assert mixes[0].spot == 0
    assert mixes[0].usd == pytest.approx(sizing.nodes * 8 * 4 * 730)
    last = mixes[-1]
    assert (last.steady, last.left) == (0, 0)
    # each spot node is away twice a day for the half hour of a start
    assert last.spares == -(-sizing.nodes * 2 * 1800 // 86_400)
    assert last.preemptions == pytest.approx((sizing.nodes + last.spares) * 2 * 730 / 24)
    assert last.usd == pytest.approx((sizing.nodes + last.spares) * 8 * 730 + last.preemptions_usd)
    assert [mix.left for mix in mixes] == sorted((mix.left for mix in mixes), reverse=True)
    assert len(mixes_of(sizing, (price("spot", 1),), 1)) == 1
    assert mixes_of(sizing, (), 1) == ()


def test_a_preemption_computes_running_requests_and_prefixes_again() -> None:
    sizing = sized(agents=400)
    lost, state = preemption_of(sizing, 36.0), sizing.busiest
    assert lost.running_tokens == pytest.approx(state.decoding * (8192 + 512) + state.prefilling * 8192)
    assert lost.prefix_tokens == pytest.approx((state.agents - state.running) * 0.7 * 8192)
    assert lost.node_seconds == pytest.approx(lost.tokens / 20_000)
    assert lost.usd == pytest.approx(lost.node_seconds / 100)
    assert lost.pause is not None and lost.survivors == sizing.nodes - 1
    assert preemption_of(sized(agents=1), 36.0).pause is None


def test_an_api_takes_its_three_prices_for_the_same_turns() -> None:
    sizing = sized()
    api = ApiPrice(name="a", input=1, cached=0.1, output=3, date="2026-11", source="test")
    (cost,) = api_costs(sizing, [api])
    each = (0.3 * 8192 * 1 + 0.7 * 8192 * 0.1 + 1024 * 3) / 1e6
    assert cost.usd == pytest.approx(each * sizing.turns_per_second * 3600 * 730)


# --- the command


def test_all_profiles_of_the_model_in_one_table() -> None:
    run = plan("--workload", "chat")
    assert run.exit_code == 0
    rows = {line.split()[0] for line in run.stdout.splitlines() if line.startswith("nemotron")}
    assert {"nemotron-3-ultra-8xh200-nvfp4", "nemotron-3-ultra-4xb200-nvfp4"} <= rows
    assert "decided by" in run.stdout
    assert "no throughput of nemotron-3-ultra-16xh100-fp8 is known" in run.stdout


@pytest.mark.parametrize("name", ["chat", "coding-agents", "long-reasoning"])
def test_one_profile_in_full(name: str) -> None:
    run = plan(PROFILE.name, "--workload", name)
    assert run.exit_code == 0
    for words in ("decided by", "first token after", "KV memory", "tokens computed again", "API openrouter", "spot"):
        assert words in run.stdout


def test_the_document_has_what_the_table_has() -> None:
    options = ("--price", "3", "--price-kind", "reserved", "--preemptions-per-day", "0.5", "--decode", "16:40")
    run = plan(PROFILE.name, "--workload", "chat", "--prefill-rate", "10000", "--json", *options)
    (document,) = json.loads(run.stdout)
    assert document["nodes"] == max(document["needed"].values())
    assert document["speed"]["prefill_tokens_per_second"] == 10_000
    assert [price["kind"] for price in document["prices"]] == ["reserved", "spot"]
    assert document["mixes"][0]["usd_per_month"] == pytest.approx(document["nodes"] * 8 * 3 * 730)
    assert document["preemptions_per_day"] == 0.5


def test_a_workload_that_nobody_can_serve_ends_with_1_and_the_reasons() -> None:
    run = plan("--workload", "agents=1,input=10,output=10,rate=10000")
    assert run.exit_code == 1
    assert "Not: nemotron-3-ultra-8xh200-nvfp4" in run.stdout
    assert plan(PROFILE.name, "--workload", "agents=1,input=10,output=10,rate=10000").exit_code == 2


@pytest.mark.parametrize("options", [["--decode", "x"], ["--prefill-rate", "nan"], ["--preemptions-per-day", "nan"]])
def test_wrong_speeds_are_told(options: list[str]) -> None:
    run = plan(PROFILE.name, "--workload", "chat", *options)
    assert run.exit_code == 2, run.output
    assert run.exception is None or isinstance(run.exception, SystemExit)


@pytest.mark.parametrize(
    "options",
    [["--context", "10"], ["--sequences", "2"], ["--tokens-per-second", "9"], ["--plot", "x.png"], ["--guide"]],
)
def test_an_option_that_a_workload_would_not_heed_is_refused(options: list[str]) -> None:
    run = plan(PROFILE.name, "--workload", "chat", *options)
    assert run.exit_code == 2
    assert options[0] in run.output


def test_a_downloaded_config_beats_the_catalogue_for_a_workload_too(tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    file.write_text(json.dumps(dict(PROFILE.model.config) | {"layer_counts": {"attention": 48, "mamba": 48}}))

    def held(*options: str) -> float:
        (document,) = json.loads(plan(PROFILE.name, "--workload", "chat", "--json", *options).stdout)
        return float(document["busiest_node"]["held_gb"])

    assert held("--config", str(file)) > held()
