"""Every flag of every profile, held against the help of a real vLLM: the CPU build in the worker's cache."""

import os

import pytest

from workers.argv import Binding, flags_of, weights_of
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
