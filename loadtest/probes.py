"""What a fleet costs that nobody asks anything: CPU and memory of the gateway, and how soon a fleet is ready.

    python -m loadtest.probes [--sizes 4 1000] [--gateways 1] [--busy 0] [--whole] [--listed] [--seconds 20]
    python -m loadtest.probes --source    # this tree as it is, not compiled

All nodes are in one process, `loadtest.quiet_nodes`. They register in Redis all at once, or with `--listed` stand in
the gateways' configuration, without Redis; `ready` is when every gateway says that all of them are. After a while the
gateways' CPU is taken over `--seconds`, and the memory of the first one. `--busy` nodes have requests of others.
docs/scaling.md has the results.
"""

import argparse
import json
import sys
import time
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from redis import Redis

from loadtest import proc, proxies
from loadtest.processes import (
    HOST,
    Child,
    StartedProcesses,
    StartError,
    end_on_signals,
    free_port,
    wait_until_answers,
    wait_until_listens,
)
from loadtest.proxies import Proxy
from loadtest.quiet_nodes import MODEL
from loadtest.redis import redis_program
from loadtest.shipped import add_options, built

SIZES = (4, 1000)
START_SECONDS = 120.0
SETTLE_SECONDS = 15.0
"""Canaries are over, and probes are spread, after this."""

HEARTBEAT_SECONDS = 5.0
"""As a launcher renews its record."""

HEALTH = b"GET /health HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"


@dataclass(frozen=True, slots=True)
class IdleCost:
    """`ready`: seconds from the registration of all nodes until every gateway has all of them ready; `core`: share of a
    core that one gateway uses, on average; `redis`: the same of Redis; `resident`: MB of the first gateway."""

    nodes: int
    gateways: int
    ready: float
    core: float
    redis: float
    resident: float


class QuietFleet(StartedProcesses):
    """`size` nodes in one process, a Redis, and gateways; a context manager."""

    def __init__(
        self, gateway: Proxy, size: int, gateways: int, busy: int, whole: bool = False, listed: bool = False
    ) -> None:
        """`whole`: metrics cannot be asked for by name; `listed`: there is no Redis."""
        super().__init__()
        self._whole = whole
        self._listed = listed
        self._started_at = time.time()
        self.size = size
        self._gateway = gateway
        self._count = gateways
        self._busy = busy
        self.admins: list[int] = []
        self.pids: list[int] = []

    def _start(self) -> None:
        folder = Path(self._stack.enter_context(TemporaryDirectory(prefix="fleetgate-probes-")))
        log = folder / "nodes.log"
        argv = [sys.executable, "-m", "loadtest.quiet_nodes", "--count", str(self.size), "--busy", str(self._busy)]
        child = self._stack.enter_context(Child([*argv, *["--whole"] * self._whole], log))
        end = time.monotonic() + START_SECONDS
        while not log.read_text().endswith("\n"):
            if child.ended or time.monotonic() > end:
                raise StartError(f"the nodes do not listen:\n{child.log_tail()}")
            time.sleep(0.05)
        self.ports: list[int] = json.loads(log.read_text())
        port = free_port()
        argv = [redis_program(), "--bind", HOST, "--port", str(port), "--save", "", "--dir", str(folder)]
        redis = self._stack.enter_context(Child(argv, folder / "redis.log"))
        wait_until_listens(redis, port, START_SECONDS)
        self.redis_pid = redis.pid
        self.redis = self._stack.enter_context(Redis(host=HOST, port=port, socket_timeout=10))
        for number in range(self._count):
            self._start_gateway(folder, number, port)

    def _start_gateway(self, folder: Path, number: int, redis: int) -> None:
        port, admin = free_port(), free_port()
        path = folder / f"{number}.yaml"
        settings = {
            "redis": {"url": f"redis://{HOST}:{redis}", "timeout": 1.0},
            "discovery": {"registrations": {"networks": ["127.0.0.0/8"]}},
            "log": {"level": "error"},
        }
        if self._listed:
            nodes = [{"url": f"http://{HOST}:{node}", "max_concurrency": 64} for node in self.ports]
            settings = {"nodes": nodes, "log": {"level": "error"}}
        path.write_text(json.dumps(settings))
        argv = [self._gateway.executable, "serve", "--config", str(path), "--host", HOST]
        argv += ["--port", str(port), "--admin-port", str(admin)]
        child = self._stack.enter_context(Child(argv, folder / f"{number}.log", self._gateway.environment))
        wait_until_answers(child, port, HEALTH, START_SECONDS)
        self.admins.append(admin)
        self.pids.append(child.pid)

    def register(self) -> None:
        """Write the records of all nodes, as their launchers do."""
        if self._listed:
            return
        now = time.time()
        with self.redis.pipeline(transaction=False) as pipeline:
            for port in self.ports:
                name = f"n-{port}"
                pipeline.set(
                    f"fleetgate:node:{name}", json.dumps(_record(name, port, self._started_at, now)), px=20_000
                )
                pipeline.zadd("fleetgate:nodes", {name: now + 20.0})
            pipeline.execute()

    def wait_until_ready(self) -> float:
        """Seconds until every gateway has every node ready. Raises StartError."""
        began = renewed = time.monotonic()
        waiting = list(self.admins)
        while waiting:
            if time.monotonic() - began > START_SECONDS:
                raise StartError(f"not all nodes are ready within {START_SECONDS:.0f} s")
            time.sleep(0.2)
            if time.monotonic() - renewed > HEARTBEAT_SECONDS:
                renewed = time.monotonic()
                self.register()
            waiting = [admin for admin in waiting if _ready(admin) < self.size]
        return time.monotonic() - began

    def keep(self, seconds: float) -> None:
        """Let `seconds` pass; records are renewed meanwhile."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self.register()
            time.sleep(min(left, HEARTBEAT_SECONDS))

    def cpu(self) -> tuple[float, float, float]:
        """CPU seconds so far of all gateways together and of Redis, and the time of it."""
        return (
            sum(proc.tree_cost(pid).cpu_seconds for pid in self.pids),
            proc.tree_cost(self.redis_pid).cpu_seconds,
            time.monotonic(),
        )


def _record(name: str, port: int, started: float, now: float) -> dict[str, object]:
    return {
        "schema": 1,
        "node_id": name,
        "url": f"http://{HOST}:{port}",
        "models": [MODEL],
        "profile": "quiet",
        "state": "ready",
        "capacity": {"max_concurrency": 64, "max_model_len": 262144},
        "price": None,
        "weight": 1.0,
        "labels": {},
        "vllm_version": "0.32.0",
        "canary": None,
        "gpus": None,
        "started_at": started,
        "heartbeat_at": now,
        "drain_deadline": None,
    }


def _ready(admin: int) -> int:
    with urllib.request.urlopen(f"http://{HOST}:{admin}/admin/nodes", timeout=30) as answer:
        return sum(node["ready"] for node in json.load(answer))


def measure_idle(
    gateway: Proxy, size: int, gateways: int, busy: int, seconds: float, whole: bool = False, listed: bool = False
) -> IdleCost:
    """One fleet from its registration on. Raises StartError."""
    with QuietFleet(gateway, size, gateways, busy, whole, listed) as fleet:
        fleet.register()
        ready = fleet.wait_until_ready()
        fleet.keep(SETTLE_SECONDS)
        began = fleet.cpu()
        fleet.keep(seconds)
        ended = fleet.cpu()
        passed = ended[2] - began[2]
        return IdleCost(
            size,
            gateways,
            ready,
            (ended[0] - began[0]) / passed / gateways,
            (ended[1] - began[1]) / passed,
            proc.tree_cost(fleet.pids[0]).rss_bytes / 1e6,
        )


def line(cost: IdleCost) -> str:
    """One row of the table in docs/scaling.md."""
    return (
        f"| {cost.nodes:,} | {cost.gateways} | {cost.ready:.1f} | {100 * cost.core:.1f}% |"
        f" {100 * cost.redis:.1f}% | {cost.resident:.0f} |"
    )


def measure_all(sizes: Sequence[int], measure: Callable[[int], IdleCost], say: Callable[[str], None]) -> list[IdleCost]:
    """Every size once. What a node costs in memory is the difference between two sizes."""
    found = []
    for size in sizes:
        found.append(measure(size))
        say(line(found[-1]))
    return found


def per_node(costs: Sequence[IdleCost]) -> float:
    """KB that a node costs in memory, between the smallest and the largest fleet."""
    small, large = min(costs, key=lambda cost: cost.nodes), max(costs, key=lambda cost: cost.nodes)
    return 1000 * (large.resident - small.resident) / max(1, large.nodes - small.nodes)


def main() -> None:
    """Measure, print and perhaps save."""
    parser = argparse.ArgumentParser(description="The cost of a fleet that nobody asks anything.")
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--gateways", type=int, default=1)
    parser.add_argument("--busy", type=int, default=0, help="requests that run on each node")
    parser.add_argument("--whole", action="store_true", help="metrics of the nodes cannot be asked for by name")
    parser.add_argument("--listed", action="store_true", help="nodes in the configuration, and no Redis")
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--json", type=Path)
    add_options(parser)
    options = parser.parse_args()
    end_on_signals()
    [gateway] = built([proxies.FLEETGATE], options, print)
    print("| nodes | gateways | ready, s | a gateway, of a core | Redis, of a core | gateway, MB resident |")
    print("|---:|---:|---:|---:|---:|---:|")

    def measure(size: int) -> IdleCost:
        how = (options.gateways, options.busy, options.seconds, options.whole, options.listed)
        return measure_idle(gateway, size, *how)

    costs = measure_all(options.sizes, measure, print)
    print(f"{per_node(costs):.0f} KB a node")
    if options.json:
        rows = [asdict(cost) for cost in costs]
        options.json.write_text(json.dumps({"machine": proc.machine(), "idle": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
