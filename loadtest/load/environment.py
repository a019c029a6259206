"""Locust's own environment: it brings a pytest plugin and gevent, which the gateway's has no use for."""

import os
import subprocess
import sys
import venv
from pathlib import Path

REQUIREMENTS = ("locust>=2.40,<3", "openai>=3,<4", "httpx2>=2,<3")
INSTALL_SECONDS = 600.0


def home() -> Path:
    """Its folder in the user's cache, by the interpreter."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "fleetgate" / f"load-py{sys.version_info[0]}{sys.version_info[1]}"


def locust_argv() -> list[str]:
    """How locust is called; installed first where it is not. Raises subprocess.SubprocessError."""
    python = home() / "bin" / "python"
    done = home() / ".requirements"
    wanted = "\n".join(REQUIREMENTS)
    if not done.exists() or done.read_text() != wanted:
        venv.create(home(), with_pip=True, clear=True)
        pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, *REQUIREMENTS], check=True, timeout=INSTALL_SECONDS)
        done.write_text(wanted)
    return [str(python), "-m", "locust"]
