"""docs/monitoring.md: its configuration is one that Prometheus takes, with the rules that it names."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.docs.site_hooks import ROOT

PAGE = (ROOT / "docs" / "monitoring.md").read_text()
ALERTS = ROOT / "charts" / "fleetgate" / "files" / "alerts.yaml"


def configuration() -> str:
    found = re.search(r"^```yml\n# prometheus.yml\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    assert found is not None
    return found[1]


def test_it_scrapes_the_ports_that_there_are() -> None:
    jobs = {each["job_name"]: each for each in yaml.safe_load(configuration())["scrape_configs"]}
    ports = {
        name: {target.rpartition(":")[2] for target in job["static_configs"][0]["targets"]}
        for name, job in jobs.items()
    }
    assert ports == {"fleetgate": {"9091"}, "vllm": {"8000"}, "gpu": {"9109"}}


def test_prometheus_takes_it(tmp_path: Path) -> None:
    if shutil.which("promtool") is None:
        pytest.skip("there is no promtool on this machine")
    shutil.copy(ALERTS, tmp_path / "fleetgate-alerts.yaml")
    (tmp_path / "fleetgate-token").write_text("token")
    file = tmp_path / "prometheus.yml"
    file.write_text(configuration().replace("/etc/prometheus/", f"{tmp_path}/"))
    checked = subprocess.run(["promtool", "check", "config", file], capture_output=True, text=True, timeout=60)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert "rules found" in checked.stdout
