"""Alerts and autoscaling ask for metrics that there are, with labels that they have, and fire when they should.

Which label a series has comes from the gateway's definitions, and from what Prometheus adds to a scrape.
"""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from gateway.telemetry.definitions import METRICS
from tests.charts.helm import CHART, MISSING, ROOT, documents, found_helm
from tests.charts.objects import one
from workers.gpus.metrics import GpuCollector

promql = pytest.importorskip("promql_parser")
FILE = CHART / "files" / "alerts.yaml"
GROUPS: list[dict[str, Any]] = yaml.safe_load(FILE.read_text())["groups"]
RULES: list[dict[str, Any]] = [rule for group in GROUPS for rule in group["rules"]]
BY_PROMETHEUS = {"namespace", "instance", "pod", "job", "service"}
MADE = {"host"}
"""By `label_replace`."""
LABELS = {each.name: set(each.labels) | BY_PROMETHEUS for each in METRICS}
LABELS |= {f"{each.name}_{end}": LABELS[each.name] | {"le"} for each in METRICS for end in ("bucket", "count", "sum")}
LABELS |= {
    f"{each.name}_total" if each.type == "counter" else each.name: {"gpu", "name", "kind", "xid"} | BY_PROMETHEUS | MADE
    for each in GpuCollector(tuple).collect()
}
FOREIGN = {
    "vllm:num_requests_running": BY_PROMETHEUS | MADE,
    "node_filesystem_avail_bytes": BY_PROMETHEUS | {"mountpoint", "log_disk"},
    "node_filesystem_size_bytes": BY_PROMETHEUS | {"mountpoint", "log_disk"},
    "DCGM_FI_DEV_GPU_UTIL": BY_PROMETHEUS | {"Hostname"},
}
"""Of vLLM, a node exporter and DCGM's, as they document them; `log_disk` is set as docs/alerts.md says."""
LABELS |= FOREIGN
ANY_METRIC = r"((?:fleetgate_|vllm:|node_filesystem_|DCGM_)\w+)(?:\{([^}]*)\})?"


def series(expression: str) -> list[tuple[str, set[str]]]:
    """The metrics in an expression, each with the labels that it is matched by. Raises where it is no PromQL."""
    promql.parse(expression)
    found = re.findall(ANY_METRIC, expression)
    return [(name, set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", inner))) for name, inner in found]


def asked(expression: str) -> None:
    """Its metrics exist, and have the labels that they are matched and grouped by."""
    found = series(expression)
    assert found
    for name, labels in found:
        assert labels <= LABELS[name], name
    for group in re.findall(r"\b(?:by|on) \(([^)]*)\)", expression):
        for label in group.split(", "):
            assert any(label in LABELS[name] for name, _ in found), label


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: str(rule["alert"]))
def test_an_alert_asks_for_metrics_that_there_are(rule: dict[str, Any]) -> None:
    asked(rule["expr"])
    assert rule["labels"]["severity"] in ("warning", "critical")
    words = " ".join(rule["annotations"].values())
    kept = ", ".join(re.findall(r"by \(([^)]*)\)", rule["expr"]))
    grouped = set(kept.split(", ")) if kept else None
    named = set(re.findall(r"\$labels\.(\w+)", words))
    if grouped is not None and not rule["expr"].startswith("fleetgate_"):
        assert named <= grouped, "the label is gone when the alert fires"


@pytest.mark.parametrize(
    "wrong", ["fleetgate_nodes > 0", 'sum(fleetgate_redis_up{modle="x"})', "sum(fleetgate_redis_up"]
)
def test_a_wrong_expression_is_found(wrong: str) -> None:
    with pytest.raises((AssertionError, KeyError, ValueError)):
        asked(wrong)


def test_each_alert_has_a_runbook_and_each_runbook_an_alert() -> None:
    page = ROOT / "docs" / "alerts.md"
    for rule in RULES:
        path, _, anchor = rule["annotations"]["runbook"].partition("#")
        assert ROOT / path == page and anchor == rule["alert"].lower()
    named = re.findall(r"^### (\w+)$", page.read_text(), re.MULTILINE)
    assert sorted(named) == sorted(rule["alert"] for rule in RULES)
    for text in re.split(r"^### \w+$", page.read_text(), flags=re.MULTILINE)[1:]:
        assert len(text.split()) > 10, "what to do"


def test_compose_and_the_chart_have_the_same_alerts() -> None:
    mounted = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]["prometheus"]["volumes"]
    assert f"./{FILE.parent.relative_to(ROOT)}:/etc/fleetgate-alerts:ro" in mounted
    if found_helm() is not None:
        assert one(documents("fleet"), "PrometheusRule")["spec"]["groups"] == GROUPS


@pytest.mark.skipif(found_helm() is None, reason=MISSING)
@pytest.mark.parametrize("example", ["fleet", "two-machines"])
def test_autoscaling_asks_for_metrics_that_there_are(example: str) -> None:
    spec = one(documents(example), "ScaledObject", "fleetgate-nemotron")["spec"]
    queries = {each["name"]: each["metadata"]["query"] for each in spec["triggers"]}
    assert queries.keys() == {"running", "waiting", "expected-wait"}
    for query in queries.values():
        asked(query)
    (pattern,) = re.findall(r'node=~"([^"]*)"', queries["running"])
    for name in ("fleetgate-nemotron-0.fleetgate-nemotron:8000", "fleetgate-nemotron-12.fleetgate-nemotron.ns:8000"):
        assert re.fullmatch(pattern, name), "Prometheus anchors a pattern at both ends"
    assert not re.fullmatch(pattern, "fleetgate-nemotron-b-0.fleetgate-nemotron-b:8000"), "another pool"


def test_alerts_fire_when_they_should(tmp_path: Path) -> None:
    """By Prometheus's own tool, on series that are made up."""
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed (Debian: prometheus)")
    cases = tmp_path / "cases.yaml"
    text = (Path(__file__).parent / "alert_cases.yaml").read_text()
    cases.write_text(text.replace("ALERTS", str(FILE)))
    done = subprocess.run([promtool, "test", "rules", str(cases)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    tested = {case["alertname"] for each in yaml.safe_load(text)["tests"] for case in each["alert_rule_test"]}
    assert tested == {rule["alert"] for rule in RULES}
