"""The gateway as its image has it: compiled (docs/deploy.md#compiled), by `make compiled` where it has changed."""

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


def shipped(proxies: list[Proxy], say: Callable[[str], None]) -> list[Proxy]:
    """The same proxies, those of this tree as they are shipped. Raises SystemExit where it cannot be compiled.

    Without a C compiler, which is said, they stay as they are.
    """
    ours = [proxy for proxy in proxies if proxy.program == FLEETGATE.program]
    if not ours or COMPILED.resolve() == ROOT:
        return proxies
    if not is_copy(COMPILED, ROOT):
        if shutil.which("gcc") is None:
            say("there is no gcc here: fleetgate is measured as `pip install` has it, not compiled as in the image")
            return proxies
        say(f"compiling fleetgate into {COMPILED}, once for each change: four minutes (--source does without)")
        compile_it()
    program = str(COMPILED / ".venv" / "bin" / "fleetgate")
    return [
        replace(proxy, program=program, version="this tree, compiled") if proxy in ours else proxy for proxy in proxies
    ]


def is_copy(built: Path, tree: Path) -> bool:
    """Whether `built` is a whole build of what `tree` has now."""
    return (built / ".venv" / ".ready").exists() and dict(_sources(built)) == dict(_sources(tree))


def compile_it() -> None:
    """Run `make compiled` in this tree."""
    done = subprocess.run(["make", "compiled", f"PYTHON={sys.executable}"], cwd=ROOT, capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"fleetgate cannot be compiled here (--source does without):\n{done.stderr[-2000:]}")


def _sources(tree: Path) -> Iterator[tuple[str, bytes]]:
    for path in (tree / "pyproject.toml", *(tree / "gateway").rglob("*.py")):
        yield str(path.relative_to(tree)), path.read_bytes()
