"""The places that the clients run in: a virtual environment for each requirements file, and a node_modules folder.

They lie in the user's cache, named after what they hold: a changed pin makes a new one, a whole one is taken as it is.
"""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

from workers.cache import Say, cache_home, exclusive

HERE = Path(__file__).parent


class EnvironmentMissing(Exception):
    """This machine cannot hold the environment; says why."""


def python_environment(name: str, say: Say) -> Path:
    """The interpreter of the environment of requirements-NAME.txt, made first where it is missing."""
    requirements = HERE / f"requirements-{name}.txt"
    python = f"py{sys.version_info.major}{sys.version_info.minor}"
    place = _place(f"{name}-{python}", requirements)
    with exclusive(place.with_suffix(".lock"), say):
        if not (place / ".ready").exists():
            say(f"installing the clients of {requirements.name} into {place}")
            shutil.rmtree(place, ignore_errors=True)
            _run([sys.executable, "-m", "venv", str(place)])
            pip = [str(place / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
            _run([*pip, "-r", str(requirements)])
            (place / ".ready").touch()
    return place / "bin" / "python"


def node_environment(script: Path, say: Say) -> Path:
    """A copy of `script` beside the node_modules folder of package.json, from where it finds its packages."""
    if shutil.which("node") is None:
        raise EnvironmentMissing("node is not on the PATH")
    return Path(shutil.copy(script, node_modules("", say).parent))


def node_modules(name: str, say: Say) -> Path:
    """The node_modules folder of package-NAME.json (package.json without a name), made first where it is missing."""
    npm = shutil.which("npm")
    if npm is None:
        raise EnvironmentMissing("npm is not on the PATH")
    package = HERE / (f"package-{name}.json" if name else "package.json")
    place = _place(f"node-{name}" if name else "node", package)
    with exclusive(place.with_suffix(".lock"), say):
        if not (place / ".ready").exists():
            say(f"installing the packages of {package.name} into {place}")
            shutil.rmtree(place, ignore_errors=True)
            place.mkdir(parents=True)
            shutil.copy(package, place / "package.json")
            _run([npm, "install", "--prefix", str(place), "--no-audit", "--no-fund", "--ignore-scripts"])
            (place / ".ready").touch()
    return place / "node_modules"


def _place(name: str, content: Path) -> Path:
    digest = hashlib.sha256(content.read_bytes()).hexdigest()[:10]
    return cache_home(os.environ) / "clients" / f"{name}-{digest}"


def _run(command: list[str]) -> None:
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode != 0:
        raise EnvironmentMissing(f"{' '.join(command)} failed:\n{done.stdout[-2000:]}")
