"""The gateway as its image has it: compiled (docs/deploy.md#compiled), by `make compiled` where it has changed."""

import argparse
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from loadtest.proxies import FLEETGATE, Proxy, cache

ROOT = Path(__file__).parent.parent
COMPILED = cache().with_name("compiled")
"""Where `make compiled` builds."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options that say which build is measured; see `built`."""
    parser.add_argument("--source", action="store_true", help="measure this tree as it is, not compiled")
    parser.add_argument(
        "--python",
        default=sys.executable,
        help="compile for this Python and run by it; the image's is an optimised one",
    )


def built(proxies: list[Proxy], options: argparse.Namespace, say: Callable[[str], None]) -> list[Proxy]:
    """The same proxies, those of this tree in the build that `options` ask for. Raises SystemExit as `shipped`."""
    return proxies if options.source else shipped(proxies, say, options.python)


def shipped(proxies: list[Proxy], say: Callable[[str], None], python: str = sys.executable) -> list[Proxy]:
    """The same proxies, those of this tree as they are shipped: compiled for and run by `python`, a name or a path.

    Without a C compiler, which is said, they stay as they are. Raises SystemExit where the tree cannot be compiled, or
    there is no such Python.
    """
    ours = [proxy for proxy in proxies if proxy.program == FLEETGATE.program]
    if not ours or COMPILED.resolve() == ROOT:
        return proxies
    interpreter = interpreter_of(python)
    if not is_copy(COMPILED, ROOT, interpreter):
        if shutil.which("gcc") is None:
            say("there is no gcc here: fleetgate is measured as `pip install` has it, not compiled as in the image")
            return proxies
        say(f"compiling fleetgate into {COMPILED}, once for each change: four minutes (--source does without)")
        compile_it(interpreter)
    program = str(COMPILED / ".venv" / "bin" / "fleetgate")
    version = f"this tree, compiled, run by {interpreter}"
    return [replace(proxy, program=program, version=version) if proxy in ours else proxy for proxy in proxies]


def interpreter_of(python: str) -> Path:
    """What a name or a path of a Python leads to, behind links, environments and shims. Raises SystemExit."""
    ask = "import os, sys; print(os.path.realpath(sys.executable))"
    try:
        return Path(subprocess.run([python, "-c", ask], capture_output=True, text=True, check=True).stdout.strip())
    except (OSError, subprocess.CalledProcessError) as error:
        raise SystemExit(f"--python {python}: {error}") from None


def is_copy(built: Path, tree: Path, interpreter: Path) -> bool:
    """Whether `built` is a whole build of what `tree` has now, for that Python."""
    return (
        (built / ".venv" / ".ready").exists()
        and (built / ".venv" / "bin" / "python").resolve() == interpreter
        and dict(_sources(built)) == dict(_sources(tree))
    )


def compile_it(interpreter: Path) -> None:
    """Run `make compiled` in this tree."""
    done = subprocess.run(["make", "compiled", f"PYTHON={interpreter}"], cwd=ROOT, capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"fleetgate cannot be compiled here (--source does without):\n{done.stderr[-2000:]}")


def _sources(tree: Path) -> Iterator[tuple[str, bytes]]:
    for path in (tree / "pyproject.toml", *(tree / "gateway").rglob("*.py")):
        yield str(path.relative_to(tree)), path.read_bytes()
