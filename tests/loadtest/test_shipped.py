"""What is measured is what is shipped: compiled anew where the tree has changed, and said where that cannot be."""

import sys
from pathlib import Path

import pytest

from loadtest import proxies, shipped

PYTHON = Path(sys.executable).resolve()


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return made(tmp_path / "tree")


def made(at: Path) -> Path:
    (at / "gateway" / "core" / "http").mkdir(parents=True)
    (at / "gateway" / "core" / "http" / "sse.py").write_text("A = 1\n")
    (at / "pyproject.toml").write_text("[project]\n")
    return at


def test_a_build_is_one_of_this_tree_as_long_as_no_source_changes(tree: Path, tmp_path: Path) -> None:
    built = made(tmp_path / "built")
    (built / ".venv" / "bin").mkdir(parents=True)
    (built / ".venv" / "bin" / "python").symlink_to(sys.executable)
    assert not shipped.is_copy(built, tree, PYTHON), "it was given up half-way"
    (built / ".venv" / ".ready").touch()
    (tree / "README.md").write_text("A word more.\n")
    assert shipped.is_copy(built, tree, PYTHON)
    for file in ("gateway/core/http/sse.py", "pyproject.toml", "gateway/new.py"):
        (tree / file).write_text("# changed\n")
        assert not shipped.is_copy(built, tree, PYTHON), file
        (built / file).write_text("# changed\n")
        assert shipped.is_copy(built, tree, PYTHON)
    other = tmp_path / "another-python"
    other.touch()
    assert not shipped.is_copy(built, tree, other)


def test_rivals_alone_need_no_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shipped, "COMPILED", tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    said: list[str] = []
    assert shipped.shipped([proxies.ROUTER], said.append) == [proxies.ROUTER]
    assert said == []
    ours = [proxies.FLEETGATE, proxies.ROUTER, proxies.POLICIES]
    assert shipped.shipped(ours, said.append) == ours
    assert "no gcc" in said[0] and "not compiled" in said[0]


def test_a_build_is_used_and_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shipped, "COMPILED", tmp_path)
    monkeypatch.setattr(shipped, "is_copy", lambda built, tree, python: True)
    ours, rival, policies = shipped.shipped([proxies.FLEETGATE, proxies.ROUTER, proxies.POLICIES], print)
    assert rival == proxies.ROUTER
    for proxy, source in ((ours, proxies.FLEETGATE), (policies, proxies.POLICIES)):
        assert proxy.program == str(tmp_path / ".venv" / "bin" / "fleetgate")
        assert (proxy.name, proxy.key) == (source.name, source.key)
        assert proxy.version == f"this tree, compiled, run by {PYTHON}"


def test_a_python_is_known_by_any_of_its_names(tmp_path: Path) -> None:
    link = tmp_path / "some-python"
    link.symlink_to(PYTHON)
    assert shipped.interpreter_of(str(link)) == shipped.interpreter_of(sys.executable) == PYTHON
    with pytest.raises(SystemExit, match=r"--python no-such-python: .*No such file"):
        shipped.interpreter_of("no-such-python")
