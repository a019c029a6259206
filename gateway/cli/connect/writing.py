"""Configuration files changed on disk: shown first, written whole or not at all, never readable by others."""

import contextlib
import difflib
import json
import os
import secrets
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from gateway.cli.connect.client import ConfigFile
from gateway.cli.connect.merging import CannotEdit, merged_text

_OWNER_ONLY = stat.S_IRUSR | stat.S_IWUSR
_DIRECTORY = 0o700


@dataclass(frozen=True, slots=True)
class Change:
    """A file, what it holds and what it is to hold. `before` is None where there is none."""

    path: Path
    before: str | None
    after: str

    @property
    def is_needed(self) -> bool:
        """Whether anything is to be written: other content, or rights that let others read a key."""
        return self.before != self.after or bool(self.path.stat().st_mode & 0o077)


def plan_changes(files: Iterable[ConfigFile], home: Path) -> list[Change]:
    """What has to change. Raises `CannotEdit` where a file cannot be."""
    return [_plan(file, home) for file in files]


def _plan(file: ConfigFile, home: Path) -> Change:
    path = home / file.path
    if file.instead and (home / file.instead).exists():
        path = home / file.instead
    try:
        before = _read(path)
        is_new = before is None or not before.strip()
        settings = {**file.opening, **file.settings} if is_new and file.opening else file.settings
        return Change(path, before, merged_text(before or "", settings, file.form))
    except CannotEdit as error:
        raise CannotEdit(f"{path} is not changed, as {error}: enter the lines yourself") from None


def _read(path: Path) -> str | None:
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return file.read()
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise CannotEdit(f"it cannot be read ({error})") from None


def show_difference(change: Change, secret: str) -> Iterator[str]:
    """Lines of a unified difference, in which `secret` is shortened."""
    name = str(change.path)
    before, after = (text.splitlines() for text in (change.before or "", change.after))
    from_file = "/dev/null" if change.before is None else name
    for line in difflib.unified_diff(before, after, from_file, name, lineterm=""):
        yield _without(secret, line) if secret else line


def _without(secret: str, line: str) -> str:
    """The line with `secret` shortened, in each way in which a file may quote it."""
    for spelling in {secret, json.dumps(secret)[1:-1], secret.replace("'", "''")}:
        line = line.replace(spelling, shortened(secret))
    return line


def shortened(secret: str) -> str:
    """Enough of a key to know it by."""
    return f"{secret[:6]}..."


def write(change: Change) -> None:
    """Put the file in place at once, readable by its owner alone. Raises OSError, and `CannotEdit` where the file has
    changed since it was read."""
    path = Path(os.path.realpath(change.path))  # a link stays a link: people keep such files elsewhere
    path.parent.mkdir(mode=_DIRECTORY, parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{secrets.token_hex(6)}")
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _OWNER_ONLY)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8", newline="") as file:
            file.write(change.after)
            file.flush()
            os.fsync(file.fileno())
            _keep_owner(path, file.fileno())
        if _read(path) != change.before:
            raise CannotEdit(f"{path} has changed meanwhile: nothing was written")
        beside.replace(path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


def _keep_owner(path: Path, descriptor: int) -> None:
    with contextlib.suppress(OSError):  # where there is no file yet, or where it is ours anyway
        owner = path.stat()
        os.fchown(descriptor, owner.st_uid, owner.st_gid)
