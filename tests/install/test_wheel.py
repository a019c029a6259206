"""The wheel, installed into a fresh environment, is whole: every command works there, away from any checkout.

Nothing is fetched: the fresh environment is lent what the wheel requires, out of that of the tests, and nothing else.
So a module that imports anything else fails. `make check-install` does the same with pip, pipx and uv, from an index.
"""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import time
import venv
import zipfile
from collections.abc import Iterator
from importlib.metadata import Distribution, distribution
from pathlib import Path

import httpx
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.support.compiled import is_compiled

ROOT = Path(__file__).parents[2]
SECONDS = 60.0


def build(kind: str, source: Path, folder: Path) -> Path:
    """A wheel or an sdist, made of `source` without an index."""
    command = [sys.executable, "-m", "hatchling", "build", "--target", kind, "--directory", str(folder)]
    clean = {name: value for name, value in os.environ.items() if name != "HATCH_BUILD_HOOK_ENABLE_MYPYC"}
    subprocess.run(command, cwd=source, env=clean, check=True, capture_output=True)
    return next(folder.glob("*.whl" if kind == "wheel" else "*.tar.gz"))


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """This tree, without the libraries of a compiled one: a wheel of some of them is none."""
    if not is_compiled():
        return ROOT
    left_out = shutil.ignore_patterns("*.so", ".*_cache", "__pycache__", ".venv", ".git", ".hypothesis")
    return Path(shutil.copytree(ROOT, tmp_path_factory.mktemp("source") / "tree", ignore=left_out))


@pytest.fixture(scope="module")
def wheel(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("wheel", source, tmp_path_factory.mktemp("dist"))


def required(requirements: list[str]) -> Iterator[Distribution]:
    """What has to be installed beside the wheel, as this environment has it."""
    seen: set[str] = set()
    pending = [(requirement, "") for requirement in requirements]
    while pending:
        text, extra = pending.pop()
        requirement = Requirement(text)
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": extra}):
            continue
        name = canonicalize_name(requirement.name)
        if name not in seen:
            seen.add(name)
            yield distribution(name)
        for wanted in ("", *requirement.extras):
            pending += [(each, wanted) for each in distribution(name).requires or [] if f"{name}[{wanted}]" not in seen]
            seen.add(f"{name}[{wanted}]")


class Installed:
    """A fresh environment with the wheel."""

    def __init__(self, folder: Path, wheel: Path) -> None:
        self._bin = folder / "bin"
        venv.create(folder, symlinks=True, with_pip=False)
        pip = [sys.executable, "-m", "pip", "--python", str(self._bin / "python"), "install", "--no-index", "--no-deps"]
        subprocess.run([*pip, "--quiet", str(wheel)], check=True, capture_output=True)
        self.packages = next(folder.glob("lib/python3*/site-packages"))
        with zipfile.ZipFile(wheel) as archive:
            metadata = archive.read(next(name for name in archive.namelist() if name.endswith("/METADATA"))).decode()
        lines = [line.partition(": ")[2] for line in metadata.splitlines() if line.startswith("Requires-Dist: ")]
        for lent in required(lines):
            self._lend(lent)

    def _lend(self, lent: Distribution) -> None:
        """File by file: what other packages have in the same folder is not lent."""
        for file in lent.files or []:
            if ".." not in file.parts and "__pycache__" not in file.parts:
                place = self.packages / file
                place.parent.mkdir(parents=True, exist_ok=True)
                place.symlink_to(Path(str(lent.locate_file(file))))

    def command(self, name: str, *words: str) -> list[str]:
        return [str(self._bin / name), *words]

    def start(self, folder: Path, name: str, *words: str) -> "subprocess.Popen[str]":
        """A command that goes on, in a group of its own; its outputs are one pipe."""
        return subprocess.Popen(
            self.command(name, *words),
            cwd=folder,
            env=self.environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def environment(self, **variables: str) -> dict[str, str]:
        """Without what would lead to a checkout."""
        kept = ("HOME", "LANG", "TMPDIR")
        return {"PATH": "/usr/bin:/bin"} | {name: os.environ[name] for name in kept if name in os.environ} | variables

    def run(self, folder: Path, name: str, *words: str, **variables: str) -> str:
        """The standard output of a command that ends well, run in `folder`."""
        env = self.environment(**variables)
        done = subprocess.run(
            self.command(name, *words), cwd=folder, env=env, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    return Installed(tmp_path_factory.mktemp("fresh"), wheel)


@pytest.fixture
def processes() -> Iterator[list["subprocess.Popen[str]"]]:
    """Ended after the test, with what they started."""
    running: list[subprocess.Popen[str]] = []
    yield running
    for each in running:
        if each.poll() is None:
            os.killpg(each.pid, signal.SIGKILL)
        each.communicate()


def test_the_sdist_makes_the_same_wheel(source: Path, wheel: Path, tmp_path: Path) -> None:
    with tarfile.open(build("sdist", source, tmp_path)) as archive:
        archive.extractall(tmp_path, filter="data")
    unpacked = next(path for path in tmp_path.iterdir() if path.is_dir())
    with zipfile.ZipFile(wheel) as ours, zipfile.ZipFile(build("wheel", unpacked, tmp_path)) as its:
        assert {each.filename: each.CRC for each in its.infolist()} == {
            each.filename: each.CRC for each in ours.infolist()
        }


def test_commands_say_their_version(installed: Installed, tmp_path: Path) -> None:
    for name in ("fleetgate", "fleetgate-worker"):
        assert installed.run(tmp_path, name, "--version") == f"{name} {distribution('fleetgate').version}\n"
    where = "import gateway, workers; print(gateway.__path__[0], workers.__path__[0])"
    paths = installed.run(tmp_path, "python", "-c", where).split()
    assert paths == [str(installed.packages / name) for name in ("gateway", "workers")]


IMPORT_ALL = """
import importlib, pkgutil
import gateway, workers
missing = set()
for package in (gateway, workers):
    for each in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        try:
            importlib.import_module(each.name)
        except ModuleNotFoundError as error:
            missing.add(error.name.partition(".")[0])
print(*sorted(missing))
"""
OF_EXTRAS = {"tokenizers", "jinja2", "opentelemetry", "huggingface_hub", "pynvml", "boto3", "botocore", "matplotlib"}
OF_VLLM = {"torch", "transformers"}
"""For a script that runs in vLLM's own environment."""


def test_no_module_needs_more_than_the_wheel_requires(installed: Installed, tmp_path: Path) -> None:
    missing = installed.run(tmp_path, "python", "-c", IMPORT_ALL).split()
    assert set(missing) - OF_EXTRAS - OF_VLLM == set()


def test_a_node_is_planned(installed: Installed, tmp_path: Path) -> None:
    """Profiles, catalog and prices are in the wheel."""
    assert "nemotron-3-ultra-8xh200-fp8" in installed.run(tmp_path, "fleetgate-worker", "plan")
    planned = json.loads(installed.run(tmp_path, "fleetgate-worker", "plan", "nemotron-3-ultra-8xh200-fp8", "--json"))
    assert planned


def answered(address: str, key: str) -> int:
    """The status of the first answer of a gateway that has begun to listen, and found its node."""
    body = {"model": "nemotron-3-ultra", "messages": [{"role": "user", "content": "hello"}]}
    deadline, status = time.monotonic() + SECONDS, 0
    while status != 200 and time.monotonic() < deadline:
        time.sleep(0.1)
        with contextlib.suppress(httpx.TransportError):
            headers = {"authorization": f"Bearer {key}"}
            status = httpx.post(f"{address}/v1/chat/completions", json=body, headers=headers).status_code
    return status


def said(process: "subprocess.Popen[str]", words: str) -> str:
    """The next line of a command that has these words."""
    assert process.stdout is not None
    return next(line for line in iter(process.stdout.readline, "") if words in line)


def test_a_configuration_is_made_checked_and_served(
    installed: Installed, tmp_path: Path, processes: list["subprocess.Popen[str]"]
) -> None:
    node = installed.start(tmp_path, "fleetgate-worker", "fake")
    processes.append(node)
    url = json.loads(said(node, '"url"'))["url"]
    options = ["--yes", "--node", url, "--port", "0", "--admin-port", "0"]
    key = installed.run(tmp_path, "fleetgate", "init", *options).strip()
    assert "valid (1 node" in installed.run(tmp_path, "fleetgate", "check", "--strict", "--probe", "fleetgate.yaml")
    gate = installed.start(tmp_path, "fleetgate", "serve", "-c", "fleetgate.yaml")
    processes.append(gate)
    found = re.search(r"listens on (http://[0-9.:]+)", said(gate, "listens on http"))
    assert found is not None and answered(found[1], key) == 200
    gate.send_signal(signal.SIGTERM)
    assert gate.wait(SECONDS) == 0


def test_the_demo_runs(installed: Installed, tmp_path: Path, processes: list["subprocess.Popen[str]"]) -> None:
    options = ["--node", "fake", "--nodes", "1", "--port", "0", "--admin-port", "0"]
    demo = installed.start(tmp_path, "fleetgate", "demo", *options)
    processes.append(demo)
    assert said(demo, "fleetgate is ready.")
    demo.send_signal(signal.SIGINT)
    assert "nothing is left running" in demo.communicate(timeout=SECONDS)[0] and demo.returncode == 0


def test_the_shell_completes_commands(installed: Installed, tmp_path: Path) -> None:
    words = {"_FLEETGATE_COMPLETE": "complete_bash", "COMP_WORDS": "fleetgate rel", "COMP_CWORD": "1"}
    assert installed.run(tmp_path, "fleetgate", **words).split() == ["reload"]
    words = {"_FLEETGATE_WORKER_COMPLETE": "complete_bash", "COMP_WORDS": "fleetgate-worker pl", "COMP_CWORD": "1"}
    assert installed.run(tmp_path, "fleetgate-worker", **words).split() == ["plan"]
