"""A picture of memory by part, one bar per profile, against what the node has."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from workers.errors import MissingTool
from workers.output_file import told_errors
from workers.plan import Plan

DASHED: Literal["--"] = "--"
SOLID: Literal["-"] = "-"


def plot_plans(plans: Sequence[Plan], target: Path) -> None:
    """Write the picture to `target` (its suffix says the format).

    Raises MissingTool without matplotlib, ConfigError where `target` cannot be written or has an unknown format.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as missing:
        raise MissingTool("--plot needs matplotlib: pip install 'fleetgate[plot]'") from missing
    figure = Figure(figsize=(11, 1.5 + 0.55 * len(plans)), layout="constrained")
    axes = figure.subplots()
    names = [plan.profile.name for plan in plans]
    left = [0.0] * len(plans)
    for label, color, parts in _parts(plans):
        axes.barh(names, parts, left=left, label=label, color=color)
        left = [start + part for start, part in zip(left, parts, strict=True)]
    rows = range(len(plans))
    for label, style, positions in (
        ("usable by vLLM", DASHED, [plan.memory.usable_gb for plan in plans]),
        ("node", SOLID, [plan.memory.node_gb for plan in plans]),
    ):
        low, high = [row - 0.42 for row in rows], [row + 0.42 for row in rows]
        axes.vlines(positions, low, high, colors="black", linestyles=style, label=label)
    axes.invert_yaxis()
    axes.set_xlabel("GB (decimal)")
    axes.set_title("GPU memory by part: the bar must end left of the dashed line")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.12), ncols=5, frameon=False)
    with told_errors("--plot", target):
        figure.savefig(target)


def _parts(plans: Sequence[Plan]) -> list[tuple[str, str, list[float]]]:
    memories = [plan.memory for plan in plans]
    weights = [m.checkpoint_gb or m.weights_gb for m in memories]
    overhead = [m.needed_gb - w for m, w in zip(memories, weights, strict=True)]
    states = [m.sequences * m.sequence.state_bytes * m.sequence.state_copies / 1e9 for m in memories]
    tokens = [m.kv_budget_gb - s for m, s in zip(memories, states, strict=True)]
    return [
        ("weights", "#4c72b0", weights),
        ("15% overhead", "#8da0cb", overhead),
        ("keys and values", "#dd8452", tokens),
        ("Mamba states", "#c44e52", states),
    ]
