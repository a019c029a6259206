"""The table of metrics in docs/telemetry.md is the one that the gateway shows."""

import re
from pathlib import Path

from gateway.telemetry.definitions import METRICS
from gateway.telemetry.metrics import Metrics

PAGE = (Path(__file__).parent.parent / "docs" / "telemetry.md").read_text()
ROWS = dict(re.findall(r"^\| `(fleetgate_\w+)` \| ([\w, ]*) \|", PAGE, re.MULTILINE))


def test_every_metric_stands_in_the_page_with_its_labels() -> None:
    assert {each.name: ", ".join(each.labels) for each in METRICS} == ROWS


def test_the_page_of_a_gateway_names_every_metric() -> None:
    shown = re.findall(r"^# TYPE (\w+) ", Metrics().page().decode(), re.MULTILINE)
    assert sorted(shown) == sorted(ROWS)


def test_other_pages_name_metrics_that_there_are() -> None:
    for page in (Path(__file__).parent.parent / "docs").glob("*.md"):
        named = set(re.findall(r"`(fleetgate_\w+)", page.read_text()))
        assert named <= ROWS.keys(), page.name
