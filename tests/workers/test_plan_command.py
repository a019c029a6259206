"""`fleetgate-worker plan` as people type it."""

import datetime
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from workers.catalog.facts import find_model
from workers.catalog.prices import load_prices
from workers.cli import app
from workers.errors import ConfigError
from workers.plan import Question
from workers.profiles.load import load_profiles

RECOMMENDED = "nemotron-3-ultra-8xh200-fp8"
JUNE = Question(prices=load_prices(), day=datetime.date(2026, 6, 30), today=datetime.date(2026, 6, 30))


NO_LAYERS = '{"num_hidden_layers": 0, "hidden_size": 64, "num_attention_heads": 4}'
TEXT_HEADS = '{"num_hidden_layers": 2, "hidden_size": 64, "head_dim": 16, "num_attention_heads": "four"}'


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
    assert f"Recommended for Nemotron 3 Ultra 550B-A55B: {RECOMMENDED}" in run.stdout


def test_a_profile_in_words_names_the_hidden_assumption() -> None:
    run = CliRunner().invoke(app, ["plan", RECOMMENDED, "--guide"], env={"COLUMNS": "200"})
    assert run.exit_code == 0
    for words in ("Fits", "28,266", "15.365", "1.84 B tokens a month", "needs 4 nodes", "2,689 tokens/s"):
        assert words in run.stdout
    assert "7.1 B tokens/month" in run.stdout and "3.5 B tokens/month" in run.stdout
    assert "deployment guide, 2026-06" in run.stdout


def test_an_old_price_is_told_with_its_age(tmp_path: Path) -> None:
    own = tmp_path / "prices.yaml"
    today = datetime.date.today()
    for age, warned in ((61, True), (60, False)):
        day = today - datetime.timedelta(days=age)
        own.write_text(f"gpu_hours: [{{gpu: h200, kind: reserved, usd_per_gpu_hour: 3, date: {day}, source: ours}}]")
        run = CliRunner().invoke(app, ["plan", RECOMMENDED, "--prices", str(own), "--price-kind", "reserved"])
        assert run.exit_code == 0
        assert f"Price reserved: ours, {day}" in run.stdout
        assert (f"{age} days old" in run.stdout) == warned


def test_brackets_in_an_operators_words_are_printed_as_they_are(tmp_path: Path) -> None:
    """The terminal library reads them as styles, and fails at one that it does not know."""
    (tmp_path / "ours.yaml").write_text(
        "extends: nemotron-3-ultra-8xh200-nvfp4\nname: ours\ntitle: '[/red] one'\nsource: '[bold] two'\n"
        "notes: ['[/] three']\n"
        "prices: [{kind: spot, usd_per_gpu_hour: 1, date: 2026-11-01, source: '[/blue] four'}]\n"
    )
    for more in ((), ("--workload", "chat", "--workload", "title='[/x] five'")):
        run = CliRunner().invoke(app, ["plan", "ours", "--profiles", str(tmp_path), *more])
        assert run.exit_code == 0, run.exception
        assert "[/red] one" in run.stdout and "[/blue] four" in run.stdout
    assert "[/x] five" in run.stdout
    assert CliRunner().invoke(app, ["plan", "--profiles", str(tmp_path)]).exit_code == 0


def test_spot_is_the_old_spelling_of_the_kind() -> None:
    def kinds(*options: str) -> list[str]:
        (answer,) = json.loads(CliRunner().invoke(app, ["plan", RECOMMENDED, "--json", *options]).stdout)
        return [cost["kind"] for cost in answer["costs"]]

    assert kinds("--spot") == kinds("--price-kind", "spot") == kinds("--price-kind", "SPOT") == ["spot"]
    assert kinds("--price-kind", "on-demand") == kinds("--price-kind", "on_demand") == ["on_demand"]
    assert kinds("--price", "2.5", "--price-kind", "reserved") == ["reserved"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--count", "8"], "--count: for --gpu"),
        ([RECOMMENDED, "--precision", "fp8"], "--precision: for --gpu"),
        (["--workload", "chat", "--precision", "fp8", "--count", "4"], "--count, --precision: for --gpu"),
        ([RECOMMENDED, "--model", "nemotron-3-nano"], "--model: for --gpu or --workload"),
        ([RECOMMENDED, "--decode", "10:40"], "--decode: for --workload"),
        (["--prefill-rate", "9000"], "--prefill-rate: for --workload"),
        ([RECOMMENDED, "--preemptions-per-day", "0"], "--preemptions-per-day: for --workload"),
        ([RECOMMENDED, "--nodes", "3"], "--nodes: for --workload"),
        ([RECOMMENDED, "--spot", "--price-kind", "reserved"], "give one of them"),
    ],
)
def test_an_option_that_nobody_would_read_is_refused(words: list[str], says: str) -> None:
    run = CliRunner().invoke(app, ["plan", *words])
    assert run.exit_code == 2
    assert says in run.output


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
        ["--gpu", "h100", "--count", "5"],
        ["--gpu", "h200", "--count", "3"],
        [RECOMMENDED, "--price", "nan"],
        [RECOMMENDED, "--price", "1e300"],
        [RECOMMENDED, "--tokens-per-second", "nan"],
        [RECOMMENDED, "--tokens-per-second", "1e300"],
        [RECOMMENDED, "--api-price", "1e-300"],
        [RECOMMENDED, "--price-kind", "free"],
        [RECOMMENDED, "--as-of", "yesterday"],
        [RECOMMENDED, "--as-of", "2026-13"],
        [RECOMMENDED, "--prices", "/no/such/file"],
        [RECOMMENDED, "--prices", "/dev"],
        [RECOMMENDED, "--api-price", "cheap"],
        [RECOMMENDED, "--api-price", "1/2/3/4"],
        [RECOMMENDED, "--api-price", "0"],
        [RECOMMENDED, "--api-price", "nan"],
        [RECOMMENDED, "--shape", "1000/2000/10"],
        [RECOMMENDED, "--shape", "1000/10"],
    ],
)
def test_wrong_questions_are_answered_in_a_sentence(args: list[str]) -> None:
    run = CliRunner().invoke(app, ["plan", *args])
    assert run.exit_code == 2
    assert "Traceback" not in run.output
    assert run.exception is None or isinstance(run.exception, SystemExit)


def test_a_count_that_the_heads_refuse_is_told_with_those_that_are_possible() -> None:
    run = CliRunner().invoke(app, ["plan", "--gpu", "h100", "--count", "5"])
    assert "64 attention heads cannot be divided by 5; possible sizes: 1, 2, 4, 8" in run.output


@pytest.mark.parametrize("text", ["[]", "7", '"text"', '{"num_hidden_layers": "many"}', '{"text_config": 3}', "{", ""])
def test_a_config_json_of_another_kind_is_told_with_its_file(tmp_path: Path, text: str) -> None:
    file = tmp_path / "config.json"
    file.write_text(text)
    run = CliRunner().invoke(app, ["plan", RECOMMENDED, "--config", str(file)])
    assert run.exit_code == 2
    assert str(file) in run.output


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("gpu_hours: [{gpu: h200, kind: rent, usd_per_gpu_hour: 3, date: 2026-11-01, source: us}]", "kind"),
        (
            "gpu_hours: [{gpu: h200, kind: spot, usd_per_gpu_hour: .nan, date: 2026-11-01, source: us}]",
            "usd_per_gpu_hour",
        ),
        (
            "gpu_hours: [{gpu: h200, kind: spot, usd_per_gpu_hour: -1, date: 2026-11-01, source: us}]",
            "usd_per_gpu_hour",
        ),
        ("gpu_hours: [{gpu: h200, kind: spot, usd_per_gpu_hour: 1, date: yesterday, source: us}]", "2026-11-30"),
        ("gpu_hours: [{gpu: h200, kind: spot, usd_per_gpu_hour: 1, date: 2026-02-31, source: us}]", "cannot read"),
        ('gpu_hours: [{gpu: h200, kind: spot, usd_per_gpu_hour: 1, date: "2026-02-31", source: us}]', "no date"),
        ("[" * 5000, "cannot read"),
        ("gpu_hours: [{gpu: h200, kind: spot, usd_per_gpu_hour: 1, date: 2026-11-01}]", "source"),
        ("gpus: []", "gpus"),
        ("[", "cannot read"),
        ("- 1", "not valid"),
    ],
)
def test_a_wrong_price_file_is_told_with_its_fault(tmp_path: Path, text: str, says: str) -> None:
    file = tmp_path / "prices.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=says) as told:
        load_prices(file)
    assert str(file) in str(told.value)


def test_what_we_would_run_instead_is_printed_without_marks() -> None:
    run = CliRunner().invoke(app, ["plan", RECOMMENDED])
    assert "\nWe would run nemotron-3-ultra-8xh200-nvfp4:" in run.stdout
    assert "[bold]" not in run.stdout
