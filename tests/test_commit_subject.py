"""The commit-msg hook: subjects are imperative and at most 60 characters."""

import subprocess
from pathlib import Path

import pytest

HOOK = Path(__file__).parent.parent / ".ci" / "commit-subject"


@pytest.mark.parametrize(
    ("subject", "good"),
    [
        ("Key the compiled build by interpreter", True),
        ("Process large bodies in steps", True),
        ("Feed the watch whole events", True),
        ("A" * 60, True),
        ("Sag, was ein Gerät über Äöü weiß und täte, wäre es ein Böö", True),
        ('Revert "Key the compiled build by what its interpreter is called"', True),
        ("A" * 61, False),
        ("Added a test", False),
        ("Adding a test", False),
        ("Adds a test", False),
        ("add a test", False),
        ("Add a test.", False),
        ("", False),
    ],
)
def test_a_subject(tmp_path: Path, subject: str, good: bool) -> None:
    message = tmp_path / "message"
    message.write_text(f"{subject}\n\nThe why, which may be long, and ends with a full stop. {'x' * 80}\n")
    done = subprocess.run(
        [HOOK, message], capture_output=True, text=True, env={"LC_ALL": "C.UTF-8", "PATH": "/usr/bin:/bin"}
    )
    assert (done.returncode == 0) is good, done.stderr
    assert good or "at most 60 characters" in done.stderr
