"""The series of nodes are the same whether a process keeps facts or files, and cost next to nothing where it can."""

import json
import os
import re
import subprocess
import sys
import tracemalloc
from pathlib import Path

import pytest

from gateway.core.fleet.node_facts import CanaryRuns, NodeFacts
from gateway.core.telemetry.folded import OTHER
from gateway.telemetry.metrics import Metrics
from tests.telemetry.node_pages import OWN_LABELS, STEPS, histories

NODES = 300
MOST = 1500
"""Bytes of a node: its facts, which the fleet makes, and its places in dictionaries. A series of prometheus-client's
takes 750, and a node has 13."""


def pages(seed: int, shared: Path | None) -> list[list[str]]:
    environment = {key: value for key, value in os.environ.items() if "MULTIPROC" not in key.upper()}
    if shared is not None:
        shared.mkdir()
        environment["PROMETHEUS_MULTIPROC_DIR"] = str(shared)
    argv = [sys.executable, "-m", "tests.telemetry.node_pages", str(seed)]
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, check=True)
    return [[str(line) for line in page] for page in json.loads(done.stdout)]


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_one_process_and_one_of_several_show_the_same(seed: int, tmp_path: Path) -> None:
    alone, in_files = pages(seed, None), pages(seed, tmp_path / "shared")
    assert len(alone) == len(in_files) == STEPS
    for step, (one, other) in enumerate(zip(alone, in_files, strict=True)):
        assert one == other, f"step {step}"


@pytest.mark.parametrize("seed", [4, 5])
def test_pages_say_what_the_nodes_are(seed: int) -> None:
    taken_out: dict[str, int] = {}
    before: dict[str, NodeFacts] = {}
    labels: list[str] = []
    for nodes, page in zip(histories(seed), pages(seed, None), strict=True):
        shown = {key: float(value) for key, value in (line.rsplit(" ", 1) for line in page)}
        for facts in nodes:
            if facts.name not in labels and len(labels) < OWN_LABELS:
                labels.append(facts.name)
            label = facts.name if facts.name in labels else OTHER
            known = before[facts.name].opened if facts.name in before else {}
            taken_out[label] = taken_out.get(label, 0) + sum(facts.opened.values()) - sum(known.values())
        before = {facts.name: facts for facts in nodes}
        ready = dict.fromkeys({name if name in labels else OTHER for name in before}, 0.0)
        for facts in nodes:
            ready[facts.name if facts.name in labels else OTHER] += facts.ready
        assert ready == _by_node(shown, "fleetgate_node_ready")
        assert {label: total for label, total in taken_out.items() if total} == _by_node(
            shown, "fleetgate_node_taken_out_total"
        )


def _by_node(shown: dict[str, float], metric: str) -> dict[str, float]:
    found: dict[str, float] = {}
    for key, value in shown.items():
        name, _, labels = key.partition("{")
        node = re.search(r'node="([^"]*)"', labels)
        if name == metric and node is not None:
            found[node[1]] = found.get(node[1], 0) + value
    return found


def test_the_series_of_a_node_take_next_to_no_memory() -> None:
    metrics = Metrics()
    metrics.fleet_state(0, _fleet(1))
    tracemalloc.start()
    try:
        began = tracemalloc.get_traced_memory()[0]
        metrics.fleet_state(0, _fleet(NODES))
        assert metrics.page().count(b"fleetgate_node_ready{") == NODES
        taken = tracemalloc.get_traced_memory()[0] - began
    finally:
        tracemalloc.stop()
    assert taken / NODES < MOST


def _fleet(count: int) -> list[NodeFacts]:
    return [
        NodeFacts(f"node-{number}", True, "closed", {}, False, 0, 64, CanaryRuns(passed=1), True, number / count, 0)
        for number in range(count)
    ]
