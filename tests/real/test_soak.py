"""Three minutes of rough load with faults, by locust with two workers under a master: nothing of it is left.

`make soak MINUTES=30` is the long one. It needs no vLLM; it is here as it installs locust, and takes its time.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.real


def test_three_minutes_of_faults_leaves_nothing_behind(tmp_path: Path) -> None:
    path = tmp_path / "soak.json"
    argv = [sys.executable, "-m", "loadtest.soak", "--minutes", "3", "--generators", "2", "--json", str(path)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=600)
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads(path.read_text())
    assert told["leaks"] == []
    total = told["figures"][-1]["counts"]
    ended = sum(total[name] for name in ("ok", "left", "expected", "failed", "cut"))
    assert total["asked"] > 300
    uncounted = total["asked"] - ended
    assert 0 <= uncounted <= total["asked"] / 20, "each ends once; a slow machine cuts a few uncounted"
    assert total["ok"] > total["asked"] / 2
    assert len(told["samples"]) > 10 and told["faults"] >= 18
