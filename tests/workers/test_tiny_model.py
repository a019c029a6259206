"""The tiny model's place: found where it is finished, never put over something else. tests/real prove its making."""

import errno
from pathlib import Path

import pytest

from workers.cache import exclusive
from workers.errors import SetUpFailed
from workers.tiny_model import ensure_tiny_model, is_model, recipe


def test_a_finished_model_is_taken(tmp_path: Path) -> None:
    """Nothing is set up for it, nothing is said."""
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_text("{}")
    assert is_model(tmp_path)
    assert ensure_tiny_model(lambda line: pytest.fail(line), tmp_path) == tmp_path


@pytest.mark.parametrize("is_file", [True, False], ids=["a file", "a directory with something in it"])
def test_something_else_is_left_alone(tmp_path: Path, is_file: bool) -> None:
    """Said before minutes of set-up."""
    out = tmp_path / "out"
    if not is_file:
        out.mkdir()
    (out if is_file else out / "thesis.tex").write_text("years of work")
    with pytest.raises(SetUpFailed, match="is not a model"):
        ensure_tiny_model(lambda line: pytest.fail(line), out)
    assert (out if is_file else out / "thesis.tex").read_text() == "years of work"


@pytest.mark.parametrize("below", ["file", "file/deeper"])
def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path, below: str) -> None:
    """Also where the user's cache is one: nothing but the environment variable names it."""
    (tmp_path / "file").write_text("")
    lock = tmp_path / below / "model.lock"
    with pytest.raises(SetUpFailed, match=r"model cannot be made: .*\n.*XDG_CACHE_HOME"), exclusive(lock, print):
        pytest.fail("is held")


def test_a_disk_that_fills_up_is_told(tmp_path: Path) -> None:
    with pytest.raises(SetUpFailed, match="No space left"), exclusive(tmp_path / "model.lock", print):
        raise OSError(errno.ENOSPC, "No space left on device")


def test_the_recipe_names_the_model(tmp_path: Path) -> None:
    """In the cache, a changed recipe is another directory."""
    said: list[str] = []
    directory = tmp_path / "fleetgate" / f"tiny-thinking-model-{recipe()}"
    directory.mkdir(parents=True)
    for name in ("config.json", "model.safetensors"):
        (directory / name).write_text("{}")
    assert ensure_tiny_model(said.append, environ={"XDG_CACHE_HOME": str(tmp_path)}) == directory
    assert not said
