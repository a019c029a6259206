"""The metrics of docs/telemetry.md and the line of docs/logs.md are those that the gateway shows."""

import json
import re
from pathlib import Path
from typing import Any

from gateway.core.resume.note import ResumeNote
from gateway.core.telemetry.request_stats import RequestStats
from gateway.telemetry.definitions import METRICS
from gateway.telemetry.logs import log_fields
from gateway.telemetry.metrics import Metrics
from workers.gpus.metrics import GpuCollector

PAGE = (Path(__file__).parent.parent / "docs" / "telemetry.md").read_text()
ALERTS = (Path(__file__).parent.parent / "charts" / "fleetgate" / "files" / "alerts.yaml").read_text()
LOGS = (Path(__file__).parent.parent / "docs" / "logs.md").read_text()
ROWS = dict(re.findall(r"^\| `(fleetgate_\w+)` \| ([\w, ]*) \|", PAGE, re.MULTILINE))
WORKER = {f"{each.name}_total" if each.type == "counter" else each.name for each in GpuCollector(tuple).collect()}
"""Of the launcher's own listener: docs/deploy.md has them."""


def test_every_metric_stands_in_the_page_with_its_labels() -> None:
    assert {each.name: ", ".join(each.labels) for each in METRICS} == ROWS


def test_the_page_of_a_gateway_names_every_metric() -> None:
    shown = re.findall(r"^# TYPE (\w+) ", Metrics().page().decode(), re.MULTILINE)
    assert sorted(shown) == sorted(ROWS)


def test_other_pages_name_metrics_that_there_are() -> None:
    for page in (Path(__file__).parent.parent / "docs").glob("*.md"):
        named = set(re.findall(r"`(fleetgate_\w+)", page.read_text()))
        assert named <= ROWS.keys() | WORKER, page.name


def test_every_metric_of_gpus_stands_in_the_page_on_deployment() -> None:
    page = (Path(__file__).parent.parent / "docs" / "deploy.md").read_text()
    assert set(re.findall(r"`(fleetgate_worker_gpu_\w+)`", page)) == WORKER


def test_the_line_of_the_page_has_every_field_in_order() -> None:
    line = json.loads(LOGS.partition("```json")[2].partition("```")[0])
    fields: dict[str, Any] = log_fields(RequestStats(resumes=(ResumeNote("cut", "a", 1),)))
    assert [*line] == ["event", "level", "timestamp", *fields]
    assert [[*each] for each in line["resumes"]] == [[*each] for each in fields["resumes"]]


def test_dashboards_ask_for_metrics_that_there_are() -> None:
    folder = Path(__file__).parent.parent / "docker"
    text = "".join(board.read_text() for board in sorted((folder / "grafana" / "dashboards").glob("*.json")))
    named = {re.sub("_(bucket|count|sum)$", "", name) for name in re.findall(r"fleetgate_[a-z_]+", text)}
    assert named <= ROWS.keys() | WORKER and len(named) > 50
    counters = re.findall(r"^(DCGM_\w+),", (folder / "dcgm" / "counters.csv").read_text(), re.MULTILINE)
    asked = set(re.findall(r"DCGM_\w+", text)) | set(re.findall(r"DCGM_\w+", ALERTS))
    assert asked <= set(counters) and asked
