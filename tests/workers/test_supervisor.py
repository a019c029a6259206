"""The supervisor in this process, where an order to stop can be put between two of its awaits."""

import asyncio
import os
import signal
import sys
from pathlib import Path

from tests.workers.test_launch import STAND_IN, free_port
from workers.argv import Binding
from workers.launch.plan import LaunchPlan, Patience
from workers.launch.supervisor import Supervisor
from workers.registration import Capacity, Registration
from workers.registry import NoRegistry


class StoppingRegistry(NoRegistry):
    """Orders the launcher to stop while a record that says ready is being written."""

    def __init__(self) -> None:
        self.states: list[str] = []

    async def announce(self, record: Registration) -> None:
        self.states.append(record.state)
        if record.state == "ready":
            os.kill(os.getpid(), signal.SIGTERM)
            await asyncio.sleep(60)  # cancelled by the order


def test_a_node_that_was_announced_as_ready_drains(tmp_path: Path) -> None:
    """Gateways may have read it, and sent."""
    port = free_port()
    plan = LaunchPlan(
        node_id="node",
        profile="tiny-cpu",
        served_name="m",
        command=(sys.executable, str(STAND_IN), "--folder", str(tmp_path), "--port", str(port)),
        environment=os.environ,
        binding=Binding("127.0.0.1", port),
        advertise=f"http://127.0.0.1:{port}",
        capacity=Capacity(max_concurrency=1, max_model_len=1),
        price=None,
        has_budgets=False,
        patience=Patience(heartbeat=60.0, settle=0.0, stop=5.0),
    )
    registry, said = StoppingRegistry(), list[str]()
    assert asyncio.run(Supervisor(plan, registry, said.append, said.append).run()) == 0
    assert registry.states == ["starting", "ready", "draining"] and "drained" in said
