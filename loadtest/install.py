"""Installing the rivals that come from an index, each into a venv of its own in the user's cache directory."""

import shutil
import subprocess
import sys
import venv
from collections.abc import Callable, Iterable

from loadtest.proxies import Proxy

INSTALL_SECONDS = 900.0


def install(proxies: Iterable[Proxy], say: Callable[[str], None]) -> None:
    """Install what is missing. One that cannot be installed is told with pip's last line, and is then absent."""
    for proxy in proxies:
        if not proxy.requirements or proxy.executable:
            continue
        say(f"installing {proxy.name} {proxy.version} into {proxy.home}")
        trouble = _install(proxy)
        if trouble:
            say(f"{proxy.name} cannot be installed here: {trouble}")


def _install(proxy: Proxy) -> str:
    """Make the venv; a half-made one is taken away again. Says what went wrong, or nothing."""
    venv.create(proxy.home, with_pip=True, clear=True)
    pip = [str(proxy.home / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    try:
        done = subprocess.run([*pip, *proxy.requirements], capture_output=True, text=True, timeout=INSTALL_SECONDS)
    except subprocess.TimeoutExpired:
        trouble = f"not done within {INSTALL_SECONDS:.0f} s"
    else:
        trouble = "" if done.returncode == 0 else _last_error(done.stderr)
    if trouble:
        shutil.rmtree(proxy.home, ignore_errors=True)
    return trouble


def _last_error(output: str) -> str:
    lines = [line for line in output.splitlines() if line.startswith("ERROR")] or output.splitlines()
    return lines[-1] if lines else f"pip said nothing (Python {sys.version.split()[0]})"
