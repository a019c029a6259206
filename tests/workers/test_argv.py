"""The command of every profile: as recommended, as recorded, explained, and taken by the vLLM versions."""

import json
import shlex
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from workers.argv import Binding, Flag, command_line, flags_of, local_weights, weights_of
from workers.cli import app
from workers.errors import ConfigError
from workers.flags.flagset import check_flags, load_recorded, usable
from workers.flags.help import ask_installed, read_help
from workers.flags.sources import read_sources
from workers.profiles.load import find_profile, load_profiles

GOLDEN = Path(__file__).parent / "golden" / "argv"
ULTRA = "vllm serve nvidia/NVIDIA-Nemotron-3-Ultra-550B-A55B"
RED_HAT = "vllm serve RedHatAI/NVIDIA-Nemotron-3-Ultra-550B-A55B"

# The deployment guide's commands, written down by hand. The model's name differs for FP8: NVIDIA publishes none.
RECOMMENDED = {
    "nemotron-3-ultra-8xh200-fp8": f"{RED_HAT}-FP8-block --tensor-parallel-size 8 --enable-expert-parallel "
    "--gpu-memory-utilization 0.90 --max-model-len 32768 --trust-remote-code --port 8000",
    "nemotron-3-ultra-16xh100-fp8": f"{RED_HAT}-FP8-block --tensor-parallel-size 8 --pipeline-parallel-size 2 "
    "--distributed-executor-backend ray --enable-expert-parallel --gpu-memory-utilization 0.88 "
    "--max-model-len 32768 --trust-remote-code --port 8000",
    "nemotron-3-ultra-8xh100-nvfp4": f"{ULTRA}-NVFP4 --tensor-parallel-size 8 --enable-expert-parallel "
    "--gpu-memory-utilization 0.88 --max-model-len 32768 --trust-remote-code --port 8000",
}


def argv_of(name: str, *more: str) -> str:
    run = CliRunner().invoke(app, ["argv", name, *more])
    assert run.exit_code == 0, run.output
    return run.stdout.strip()


@pytest.mark.parametrize(("name", "command"), RECOMMENDED.items())
def test_the_recommended_command_leads(name: str, command: str) -> None:
    assert argv_of(name).startswith(command + " ")


def test_the_vendors_recipe_for_h200() -> None:
    command = argv_of("nemotron-3-ultra-8xh200-nvfp4")
    assert "--enable-expert-parallel" not in command
    for part in (
        "--gpu-memory-utilization 0.95",
        "--max-model-len 262144",
        "--kv-cache-dtype fp8",
        "--max-num-seqs 256",
        "--max-num-batched-tokens 24576",
        "--block-size 64",
        "--mamba-cache-mode align",
        "--mamba-ssm-cache-dtype bfloat16",
        '--speculative-config \'{"method": "mtp", "num_speculative_tokens": 5}\'',
        "--async-scheduling",
        "--attention-backend FLASH_ATTN",
        "--mamba-backend triton",
    ):
        assert part in command


@pytest.mark.parametrize("name", load_profiles())
@pytest.mark.parametrize("version", ["0.22.0", "0.32.0"])
def test_commands_are_the_recorded_ones(name: str, version: str) -> None:
    assert argv_of(name, "--vllm", version) == (GOLDEN / f"{name}--{version}.txt").read_text().strip()


@pytest.mark.parametrize("name", load_profiles())
@pytest.mark.parametrize("version", ["0.22.0", "0.32.0"])
def test_every_flag_exists_or_has_a_fallback(name: str, version: str) -> None:
    profile = find_profile(name)
    verdicts = check_flags(flags_of(profile, weights_of(profile), Binding()), load_recorded(version))
    assert [v for v in verdicts if v.state == "wrong"] == []
    assert all(v.told for v in verdicts if v.state == "left out")


def test_what_0_22_lacks_is_left_out_and_told() -> None:
    run = CliRunner().invoke(app, ["argv", "nemotron-3-ultra-8xh200-fp8", "--vllm", "0.22.0"])
    assert "--max-num-queued-reqs" not in run.stdout
    assert "left out --max-num-queued-reqs (vLLM 0.22.0)" in run.stderr
    assert "--max-num-queued-reqs 128" in argv_of("nemotron-3-ultra-8xh200-fp8", "--vllm", "0.32.0")


@pytest.mark.parametrize(
    "flag",
    [
        Flag("--no-such-flag", None, ""),
        Flag("--reasoning-parser", "nemotron_3", ""),  # the name that users of 0.22.1 report missing
        Flag("--mamba-cache-mode", "sometimes", ""),
        Flag("--speculative-config", '{"method": "telepathy"}', ""),
        Flag("--no-max-model-len", None, ""),
    ],
)
def test_a_flag_that_a_version_refuses_is_an_error(flag: Flag) -> None:
    known = load_recorded("0.22.0")
    (verdict,) = check_flags([flag], known)
    assert verdict.state == "wrong"
    with pytest.raises(ConfigError, match=r"vLLM 0\.22\.0 cannot run"):
        usable([flag], known)


def test_modes_that_went_away_are_seen() -> None:
    every_token = Flag("--mamba-cache-mode", "all", "")
    assert check_flags([every_token], load_recorded("0.22.0"))[0].state == "ok"
    assert check_flags([every_token], load_recorded("0.32.0"))[0].state == "wrong"


def test_explain_names_every_flag_with_a_reason() -> None:
    profile = find_profile("nemotron-3-ultra-16xh100-fp8")
    shown = CliRunner().invoke(app, ["argv", profile.name, "--explain"], env={"COLUMNS": "300"}).stdout
    for flag in usable(flags_of(profile, weights_of(profile), Binding()), load_recorded("0.32.0")):
        (line,) = [row for row in shown.splitlines() if row.strip().startswith(" ".join(flag.words) + "  ")]
        assert flag.why in line


def test_downloaded_weights_say_what_they_are(tmp_path: Path) -> None:
    (tmp_path / "fleetgate-checkpoint.json").write_text(
        json.dumps({"repository": f"{ULTRA.split()[-1]}-BF16", "revision": "abc", "quantization": "fp8"})
    )
    run = argv_of("nemotron-3-ultra-8xh200-fp8", "--model-dir", str(tmp_path))
    assert shlex.split(run)[2] == str(tmp_path)
    assert "--quantization fp8" in run


def test_the_bare_server_module_takes_the_model_as_a_flag() -> None:
    program = ["python", "-m", "vllm.entrypoints.openai.api_server"]
    words = command_line(local_weights(Path("/m")), [], program)
    assert words == [*program, "--model", "/m"]


def test_json_has_environment_and_words() -> None:
    document = json.loads(argv_of("nemotron-3-ultra-4xb200-nvfp4", "--json"))
    assert document["environment"] == {"VLLM_MEMORY_PROFILER_ESTIMATE_CUDAGRAPHS": "1"}
    assert document["argv"][:2] == ["vllm", "serve"]


# --- where flags are read from ---------------------------------------------------------------------


def test_sources_are_read_without_importing_them(tmp_path: Path) -> None:
    engine = tmp_path / "vllm" / "engine"
    engine.mkdir(parents=True)
    (engine / "arg_utils.py").write_text(
        "raise RuntimeError('imported')\n"
        "class EngineArgs:\n"
        "    enforce_eager: bool = False\n"
        "    mamba_cache_mode: MambaCacheMode = 1\n"
        "    quantization: Methods | str | None = None\n"
        "    def add_cli_args(parser):\n"
        "        parser.add_argument('--enforce-eager', **k)\n"
        "        parser.add_argument('--mamba-cache-mode', **k)\n"
        "        parser.add_argument('--quantization', '-q', **k)\n"
        "        parser.print('--not-a-flag')\n"
    )
    config = tmp_path / "vllm" / "config"
    config.mkdir()
    (config / "cache.py").write_text('MambaCacheMode = Literal["all", "none"]\nMethods = Literal["fp8"]\n')
    frontend = tmp_path / "vllm" / "entrypoints" / "openai"
    frontend.mkdir(parents=True)
    (frontend / "cli_args.py").write_text("class BaseFrontendArgs:\n    tool_call_parser: str | None = None\n")
    known = read_sources(tmp_path)
    assert known.flags == {"--enforce-eager", "--mamba-cache-mode", "--quantization", "--tool-call-parser"}
    assert known.switches == {"--enforce-eager"}
    assert known.knows("--no-enforce-eager")
    assert known.refuses("--mamba-cache-mode", "align")
    assert not known.refuses("--quantization", "anything")  # the type is open


def test_what_is_no_vllm_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not a vLLM"):
        read_sources(tmp_path)
    (tmp_path / "x.whl").write_text("no zip")
    with pytest.raises(ConfigError, match="cannot read"):
        read_sources(tmp_path / "x.whl")


HELP = """usage: api_server.py [options]

ModelConfig:
  --model MODEL         Name of the model, see --tokenizer.
  --quantization, -q {fp8,awq,None}
                        Method. Use --kv-cache-dtype for the cache.
  --enforce-eager, --no-enforce-eager
                        Always eager.
  -h, --help            show this help message and exit
"""


def test_help_is_read() -> None:
    known = read_help(HELP, "installed", "test")
    assert known.flags == {"--model", "--quantization", "--enforce-eager", "--no-enforce-eager", "--help"}
    assert known.knows("--no-enforce-eager")
    assert known.refuses("--quantization", "int3")
    assert not known.refuses("--quantization", "fp8")


def test_the_installed_program_is_asked(tmp_path: Path) -> None:
    program = tmp_path / "server.py"
    program.write_text(f"import sys; assert sys.argv[1:] == ['--help=all']; print({HELP!r})")
    assert "--model" in ask_installed([sys.executable, str(program)]).flags
    program.write_text("import sys; sys.exit('broken')")
    with pytest.raises(ConfigError, match="broken"):
        ask_installed([sys.executable, str(program)])
    with pytest.raises(ConfigError, match=r"cannot run .*install vLLM on this machine"):
        ask_installed([str(tmp_path / "missing")])


def test_the_flags_command_fails_for_a_version_that_cannot_run_a_profile(tmp_path: Path) -> None:
    (tmp_path / "ours.yaml").write_text(
        "extends: tiny-cpu\nname: ours\nextra_flags: [{flag: --nonsense, why: a test}]\n"
    )
    run = CliRunner().invoke(app, ["flags", "ours", "--profiles", str(tmp_path), "--json"])
    assert run.exit_code == 1
    states = {v["flag"]: v["state"] for v in json.loads(run.stdout)["profiles"]["ours"]}
    assert states["--nonsense"] == "wrong"
    assert CliRunner().invoke(app, ["flags"]).exit_code == 0
    assert CliRunner().invoke(app, ["flags", "--vllm", "9.9"]).exit_code == 2


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["nemotron-3-ultra-16xh100-fp8", "--rank", "1"], "machines that vLLM joins itself"),
        (["nemotron-3-ultra-16xh100-fp8", "--head", "10.0.0.1"], "machines that vLLM joins itself"),
        (["tiny-cpu", "--head", "10.0.0.1"], "machines that vLLM joins itself"),
        (["tiny-cpu", "--rank", "1"], "from rank 0"),
        (["nemotron-3-ultra-16xh100-fp8-nnodes", "--rank", "2"], "from rank 0"),
    ],
)
def test_a_machine_that_the_node_does_not_have_is_refused(words: list[str], says: str) -> None:
    """A machine that Ray joins starts no vLLM: its command would have been the head's."""
    run = CliRunner().invoke(app, ["argv", *words])
    assert run.exit_code == 2 and says in run.output
