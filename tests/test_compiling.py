"""What the build hook compiles, mypyc can take. The C compiler is not run here: `make test-compiled` does."""

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
    assert "gateway/relay/exchange.py" in files
    command = [sys.executable, "-c", TRANSLATE, str(tmp_path), "--ignore-missing-imports", *files]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
