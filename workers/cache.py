"""The worker's directory for what is expensive to make: virtual environments, models, logs of nodes.

Everything in it can be deleted at any time and is made again when it is needed.
"""

import fcntl
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from workers.errors import SetUpFailed

Say = Callable[[str], None]  # takes one line for the person at the terminal

GIGABYTE = 10**9


def cache_home(environ: Mapping[str, str]) -> Path:
    """`$XDG_CACHE_HOME/fleetgate`, or `~/.cache/fleetgate`. As its standard says, a relative one counts as unset."""
    configured = Path(environ.get("XDG_CACHE_HOME", ""))
    return (configured if configured.is_absolute() else Path.home() / ".cache") / "fleetgate"


@contextmanager
def exclusive(lock: Path, say: Say) -> Iterator[None]:
    """Hold an advisory lock on the file `lock`, waiting for whoever holds it.

    The kernel frees it when its holder ends, however it ends, so a crashed set-up blocks nobody. Raises SetUpFailed
    where the folder, or what is made in it, cannot be written.
    """
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        with lock.open("a") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                say(f"another process is making {lock.stem}; waiting for it")
                fcntl.flock(file, fcntl.LOCK_EX)
            yield
    except OSError as error:
        raise SetUpFailed(
            f"{lock.with_suffix('')} cannot be made: {error}.\n"
            "Name a folder that can be written, or point XDG_CACHE_HOME at one."
        ) from error


def require_space(where: Path, needed_bytes: int, what: str) -> None:
    """Raise SetUpFailed where the file system that will hold `where` has less than `needed_bytes` free."""
    existing = next(path for path in (where, *where.parents) if path.exists())
    free = shutil.disk_usage(existing).free
    if free < needed_bytes:
        raise SetUpFailed(
            f"{what} needs about {needed_bytes / GIGABYTE:.1f} GB in {where}, and {free / GIGABYTE:.1f} GB are free.\n"
            "Free some space, or point XDG_CACHE_HOME at a larger disk."
        )
