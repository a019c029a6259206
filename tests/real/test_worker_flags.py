"""Every flag of every profile, held against the help of a real vLLM: the CPU build in the worker's cache."""

import json
import os
import subprocess

import pytest

from workers.argv import Binding, Machine, flags_of, weights_of
from workers.cpu_runtime import ensure_cpu_runtime
from workers.flags.flagset import FlagSet, check_flags, load_recorded
from workers.flags.help import ask_installed
from workers.profile import Profile
from workers.profiles.load import load_profiles

pytestmark = [pytest.mark.real, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def installed() -> FlagSet:
    python = ensure_cpu_runtime(print, os.environ)
    return ask_installed([str(python), "-m", "vllm.entrypoints.openai.api_server"])


@pytest.mark.parametrize("profile", load_profiles().values(), ids=list(load_profiles()))
def test_the_installed_vllm_takes_every_flag(installed: FlagSet, profile: Profile) -> None:
    verdicts = check_flags(flags_of(profile, weights_of(profile), Binding()), installed)
    assert [v for v in verdicts if v.state == "wrong"] == []


def test_what_was_read_from_the_sources_is_what_the_help_says(installed: FlagSet) -> None:
    recorded = load_recorded("0.32.0")
    missing = {flag for flag in recorded.flags if not installed.knows(flag)}
    # Flags of other platforms and of plugins may differ; what the profiles use may not (the test above).
    assert len(missing) <= len(recorded.flags) // 50, sorted(missing)


PARSE = """
import json, sys
from vllm.entrypoints.launchers.cli_args import make_arg_parser
from vllm.utils.argparse_utils import FlexibleArgumentParser
seen = {}
for name, words in json.load(sys.stdin).items():
    parsed = make_arg_parser(FlexibleArgumentParser()).parse_args(words)
    seen[name] = [parsed.tensor_parallel_size, parsed.nnodes, parsed.headless, parsed.max_model_len]
print(json.dumps(seen))
"""


def test_the_real_parser_reads_every_command() -> None:
    """Values too: JSON of configurations, choices, numbers. The second machine of a pair among them."""
    profiles = load_profiles()
    words = {
        f"{name}/{rank}": [
            word
            for flag in flags_of(profile, weights_of(profile), Binding(), Machine(rank, "10.0.0.1"))
            for word in flag.words
        ]
        for name, profile in profiles.items()
        for rank in range(profile.hardware.nodes)
    }
    python = ensure_cpu_runtime(print, os.environ)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    run = subprocess.run(
        [str(python), "-c", PARSE], input=json.dumps(words), capture_output=True, text=True, env=environment
    )
    assert run.returncode == 0, run.stderr[-2000:]
    seen = json.loads(run.stdout.splitlines()[-1])
    for key, (tensor, machines, headless, context) in seen.items():
        name, rank = key.split("/")
        profile = profiles[name]
        joined = profile.parallel.backend == "mp"
        assert (tensor, context) == (profile.parallel.tensor, profile.max_model_len)
        assert machines == (profile.hardware.nodes if joined else 1)
        assert headless is (joined and rank != "0")
    assert seen.keys() == words.keys()
