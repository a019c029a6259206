"""Installs the built package as people do, from an index: `make check-install`.

pip with the wheel and with the sdist, pipx, uv tool and uvx, each in a folder of its own that is removed again. And the
index is asked for wheels for aarch64 of all that the lock files of the image name. Each step prints what it proved; the
first that fails ends it.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
LOCKS = ("gateway", "gateway-extras", "build")
PYTHON_OF_THE_IMAGE = "3.12"
AARCH64 = ("manylinux2014_aarch64", "manylinux_2_17_aarch64", "manylinux_2_28_aarch64")
QUIET = ("--quiet", "--disable-pip-version-check")


def run(what: str, *words: str | Path, **variables: str | Path) -> str:
    """Run a command away from the checkout; its standard output."""
    started = time.monotonic()
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environ |= {name: str(value) for name, value in variables.items()}
    done = subprocess.run(list(map(str, words)), cwd="/", env=environ, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"FAILED: {what}\n{done.stdout}{done.stderr}")
    print(f"ok  {what} ({time.monotonic() - started:.0f} s)", flush=True)
    return done.stdout


def use(what: str, folder: Path) -> None:
    """The installed commands work."""
    run(f"{what}: fleetgate --version", folder / "fleetgate", "--version")
    run(f"{what}: fleetgate-worker plan", folder / "fleetgate-worker", "plan")


def try_installs(folder: Path) -> None:
    """All ways, with what is built here."""
    dist, tools = folder / "dist", folder / "tools"
    for kind in ("wheel", "sdist"):
        build = [sys.executable, "-m", "hatchling", "build", "--target", kind, "--directory", str(dist)]
        subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    wheel, sdist = next(dist.glob("*.whl")), next(dist.glob("*.tar.gz"))
    for name, package in (("wheel", wheel), ("sdist", sdist)):
        run(f"python -m venv for the {name}", sys.executable, "-m", "venv", folder / name)
        run(f"pip install {package.name}", folder / name / "bin" / "pip", "install", *QUIET, package)
        use(f"pip, {name}", folder / name / "bin")
    run("python -m venv for pipx and uv", sys.executable, "-m", "venv", tools)
    run("pip install pipx uv", tools / "bin" / "pip", "install", *QUIET, "pipx>=1.7,<2", "uv>=0.9,<1")
    homes = {"PIPX_HOME": folder / "pipx", "PIPX_BIN_DIR": folder / "pipx-bin", "PIPX_MAN_DIR": folder / "man"}
    run("pipx install", tools / "bin" / "pipx", "install", wheel, **homes)
    use("pipx", folder / "pipx-bin")
    homes = {name: folder / name for name in ("UV_TOOL_DIR", "UV_TOOL_BIN_DIR", "UV_CACHE_DIR")}
    run("uv tool install", tools / "bin" / "uv", "tool", "install", wheel, **homes)
    use("uv tool", folder / "UV_TOOL_BIN_DIR")
    run("uvx --from ... fleetgate", tools / "bin" / "uvx", "--from", wheel, "fleetgate", "--version", **homes)


def try_aarch64(folder: Path) -> None:
    """The image can be built for linux/arm64 without a compiler for what it installs."""
    platforms = [word for platform in AARCH64 for word in ("--platform", platform)]
    for lock in LOCKS:
        words = ["--no-deps", "--require-hashes", "--only-binary=:all:", "--python-version", PYTHON_OF_THE_IMAGE]
        words += [*platforms, "--dest", str(folder / lock), "--requirement", str(ROOT / "docker" / f"{lock}.lock")]
        run(f"wheels for aarch64 of docker/{lock}.lock", sys.executable, "-m", "pip", "download", *QUIET, *words)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="fleetgate-install-") as temporary:
        try_installs(Path(temporary))
        try_aarch64(Path(temporary))
