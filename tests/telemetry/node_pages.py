"""The node metrics after each step of a fleet's history, as JSON: `python -m tests.telemetry.node_pages SEED`."""

import json
import random
import sys
from collections.abc import Iterator

from gateway.core.fleet.node_facts import CanaryRuns, NodeFacts
from gateway.telemetry.metrics import LabelBounds, Metrics
from gateway.telemetry.node_gauges import STATES

STEPS = 60
NAMES = "abcdef"
OWN_LABELS = 4
"""Fewer than names: the others are added up."""


def histories(seed: int) -> Iterator[list[NodeFacts]]:
    """What a process sees of its nodes, step by step. They come, change, leave and come back with no counts."""
    draw = random.Random(seed)
    nodes: dict[str, NodeFacts] = {}
    for _ in range(STEPS):
        for name in NAMES:
            chance = draw.random()
            if chance < 0.1:
                nodes.pop(name, None)
            elif chance < 0.5:
                nodes[name] = _changed(nodes.get(name, NodeFacts(name, False, "open", {}, False, 0)), draw)
        yield list(nodes.values())


def _changed(facts: NodeFacts, draw: random.Random) -> NodeFacts:
    cause = draw.choice(["refused", "silent"])
    opened = {**facts.opened, cause: facts.opened.get(cause, 0) + 1} if draw.random() < 0.3 else facts.opened
    runs = facts.canaries.after(draw.choice(CanaryRuns._fields)) if draw.random() < 0.3 else facts.canaries
    state = draw.choice(STATES)
    told = draw.random() < 0.7
    return NodeFacts(
        *(facts.name, state == "closed", state, opened, draw.random() < 0.2, draw.randrange(9)),
        max_concurrency=draw.choice([None, 8, 64]),
        canaries=runs,
        holds_budgets=draw.choice([None, True, False]),
        kv_use=draw.random() if told else None,
        waiting=draw.randrange(3) if told else None,
    )


def main() -> None:
    """Print the pages."""
    metrics = Metrics(LabelBounds(nodes=OWN_LABELS))
    pages = []
    for nodes in histories(int(sys.argv[1])):
        metrics.fleet_state(0, nodes)
        pages.append(
            sorted(line for line in metrics.page().decode().splitlines() if "{node=" in line or ',node="' in line)
        )
    json.dump(pages, sys.stdout)


if __name__ == "__main__":
    main()
