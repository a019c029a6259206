"""docs/planning.md shows what `plan` prints."""

import re
from pathlib import Path

import pytest

from tests.workers.planning_page import BLOCK, PAGE, printed
from workers.catalog.facts import find_gpu, load_gpus
from workers.catalog.prices import load_prices
from workers.workload.workload import known_workloads

BLOCKS = [(found["command"], found["output"]) for found in BLOCK.finditer(PAGE.read_text())]


@pytest.mark.parametrize(("command", "shown"), BLOCKS, ids=[command for command, _ in BLOCKS])
def test_a_plan_on_the_page_is_what_the_command_prints(command: str, shown: str) -> None:
    """`python -m tests.workers.planning_page` writes them anew."""
    assert printed(command) == shown


def test_the_prices_on_the_page_are_a_file_of_prices(tmp_path: Path) -> None:
    (example,) = re.findall(r"```yaml\n(.*?)```", PAGE.read_text(), re.DOTALL)
    (tmp_path / "prices.yaml").write_text(example)
    assert len(load_prices(tmp_path / "prices.yaml").gpu_hours) == len(load_prices().gpu_hours) + 1


def test_the_page_has_every_workload_and_every_gpu() -> None:
    commands = " ".join(command for command, _ in BLOCKS)
    assert all(f"--workload {name}" in commands for name in known_workloads())
    page = PAGE.read_text()
    for gpu in load_gpus():
        if gpu.nvml_gb is not None:
            assert f"| {find_gpu(gpu.name).name.upper()} | {gpu.memory_gb:g} | {gpu.nvml_gb:g} |" in page
