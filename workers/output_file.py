"""Files that a command writes because an option names them."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from workers.errors import ConfigError


def write_text(option: str, file: Path, text: str) -> None:
    """Write `text` to the file that `option` names. Raises ConfigError where that cannot be done."""
    with told_errors(option, file):
        file.write_text(text)


@contextmanager
def replaced_whole(file: Path) -> Iterator[Path]:
    """A new file beside `file`, which takes its place at the block's end, whole or not at all. Raises OSError."""
    descriptor, name = tempfile.mkstemp(prefix=f".{file.name}-", dir=file.parent)
    os.close(descriptor)
    beside = Path(name)
    try:
        yield beside
        beside.chmod(0o644)
        beside.replace(file)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


@contextmanager
def told_errors(option: str, file: Path) -> Iterator[None]:
    """Turns what the system says about a file that `option` names into a ConfigError."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise ConfigError(f"{option}: cannot write {file}: {reason}; name a file in a folder that exists") from error
    except ValueError as error:
        raise ConfigError(f"{option}: cannot write {str(file)!r}: {error}") from error
