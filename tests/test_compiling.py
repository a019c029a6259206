"""What the build hook compiles, mypyc can take. The C compiler is not run here: `make test-compiled` does."""

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pathspec
import pytest

ROOT = Path(__file__).parent.parent
WHEEL = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
HOOK = WHEEL["hooks"]["mypyc"]
TRANSLATE = """
import sys
from mypyc.build import mypycify
mypycify(sys.argv[2:], target_dir=sys.argv[1])
"""

_SETUP = re.compile(
    r"^char CPyDef_\w+_____mypyc_defaults_setup\(PyObject \*cpy_r___mypyc_self__\) \{.*?^\}", re.S | re.M
)


def compiled() -> list[str]:
    """The files that the hook chooses, relative to the checkout."""
    included, excluded = (pathspec.GitIgnoreSpec.from_lines(HOOK[name]) for name in ("include", "exclude"))
    files = (str(path.relative_to(ROOT)) for path in sorted((ROOT / "gateway").rglob("*.py")))
    return [file for file in files if included.match_file(file) and not excluded.match_file(file)]


def test_every_file_that_is_left_out_exists() -> None:
    named = [pattern for pattern in (*HOOK["include"], *HOOK["exclude"]) if pattern.startswith("/")]
    assert [pattern for pattern in named if not (ROOT / pattern.strip("/")).exists()] == []


@pytest.mark.timeout(300)
def test_mypyc_translates_what_the_image_has_compiled(tmp_path: Path) -> None:
    files = compiled()
    assert "gateway/upstream/exchange.py" in files
    command = [sys.executable, "-c", TRANSLATE, str(tmp_path), "--ignore-missing-imports", *files]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    defaults = "".join(_SETUP.findall("".join(file.read_text() for file in tmp_path.glob("**/__native*.c"))))
    assert [name for name in _class_defaults(files) if f"->_{name} = " not in defaults] == []


def _class_defaults(files: list[str]) -> list[str]:
    """Attributes that have a value on their class. mypyc leaves some of them out, without a word: they are then
    undefined in each object until they are set."""
    found = []
    for file in files:
        for node in ast.walk(ast.parse((ROOT / file).read_text())):
            if isinstance(node, ast.ClassDef) and _is_plain(node):
                found += [
                    each.target.id
                    for each in node.body
                    if isinstance(each, ast.AnnAssign) and isinstance(each.target, ast.Name) and each.value is not None
                    if "ClassVar" not in ast.unparse(each.annotation)
                ]
    return found


def _is_plain(node: ast.ClassDef) -> bool:
    """What is defined by its fields has an `__init__` that sets them."""
    words = [ast.unparse(word) for word in (*node.bases, *node.decorator_list)]
    return not any("NamedTuple" in word or "Protocol" in word or "dataclass" in word for word in words)
