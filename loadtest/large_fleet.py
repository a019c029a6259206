"""A gateway before a fleet of any size, with a Redis beside it: one process each, and what each has used so far."""

import json
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from loadtest import proc
from loadtest.measure import CLIENT_SECONDS
from loadtest.processes import (
    HOST,
    Child,
    StartedProcesses,
    StartError,
    free_port,
    wait_until_answers,
    wait_until_listens,
)
from loadtest.proxies import Proxy
from loadtest.redis import redis_program
from loadtest.tally import Report

START_SECONDS = 120.0
HEALTH = b"GET /health HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Used:
    """CPU of the gateway and of Redis in seconds since they began, at `at` (seconds of any clock)."""

    at: float
    gateway: float
    redis: float


class LargeFleet(StartedProcesses):
    """`size` mock nodes in one process, a Redis and a gateway; a context manager. `settings` of the gateway go over
    those here: nodes of 64 places each, no canary."""

    def __init__(self, gateway: Proxy, size: int, settings: Mapping[str, Any] | None = None) -> None:
        super().__init__()
        self.size = size
        self._gateway = gateway
        self._settings = dict(settings or {})
        self.port = self.admin = self.redis = 0

    def load(self, *flags: str) -> Report:
        """Run one load client to its end. Raises subprocess.SubprocessError."""
        argv = [sys.executable, "-m", "loadtest.client", "--port", str(self.port), *flags]
        done = subprocess.run(argv, check=True, capture_output=True, timeout=CLIENT_SECONDS)
        return Report(**json.loads(done.stdout))

    def used(self) -> Used:
        """What both have used by now."""
        return Used(time.monotonic(), proc.tree_cost(self._child.pid).cpu_seconds, redis_cpu(self.redis))

    def resident(self) -> float:
        """The gateway's resident set in MB."""
        return proc.tree_cost(self._child.pid).rss_bytes / 1e6

    def _start(self) -> None:
        folder = Path(self._stack.enter_context(TemporaryDirectory(prefix="fleetgate-scale-")))
        ports = self._start_nodes(folder)
        self.redis = free_port()
        argv = [redis_program(), "--bind", HOST, "--port", str(self.redis), "--save", "", "--dir", str(folder)]
        wait_until_listens(self._run(argv, folder / "redis.log"), self.redis, START_SECONDS)
        self.port, self.admin = free_port(), free_port()
        config = {
            "nodes": [{"url": f"http://{HOST}:{port}", "max_concurrency": 64} for port in ports],
            "redis": {"url": f"redis://{HOST}:{self.redis}", "timeout": 1.0},
            "budgets": {"canary": False},
            "log": {"level": "error"},
            **self._settings,
        }
        path = folder / "fleetgate.yaml"
        path.write_text(json.dumps(config))
        argv = [self._gateway.executable, "serve", "--config", str(path), "--host", HOST]
        argv += ["--port", str(self.port), "--admin-port", str(self.admin)]
        self._child = self._run(argv, folder / "gateway.log")
        wait_until_answers(self._child, self.port, HEALTH, START_SECONDS)
        self._wait_until_ready()

    def _start_nodes(self, folder: Path) -> list[int]:
        log = folder / "nodes.log"
        count = max(2, self.size)
        child = self._run([sys.executable, "-m", "loadtest.mock_node", "--count", str(count)], log)
        end = time.monotonic() + START_SECONDS
        while not (told := log.read_text()).endswith("\n"):
            if child.ended or time.monotonic() > end:
                raise StartError(f"the nodes do not listen:\n{child.log_tail()}")
            time.sleep(0.05)
        ports: list[int] = json.loads(told)
        return ports[: self.size]

    def _run(self, argv: list[str], log: Path) -> Child:
        return self._stack.enter_context(Child(argv, log, self._gateway.environment))

    def _wait_until_ready(self) -> None:
        end = time.monotonic() + START_SECONDS
        while time.monotonic() < end:
            with urllib.request.urlopen(f"http://{HOST}:{self.admin}/admin/nodes", timeout=30) as answer:
                if sum(node["ready"] for node in json.load(answer)) == self.size:
                    return
            time.sleep(0.2)
        raise StartError(f"not all nodes are ready within {START_SECONDS:.0f} s")


def redis_cpu(port: int) -> float:
    """The CPU seconds, user and system, that the Redis at `port` says to have used."""
    with socket.create_connection((HOST, port), timeout=10.0) as connection, connection.makefile("rb") as reader:
        connection.sendall(b"INFO cpu\r\n")
        told = reader.read(int(reader.readline()[1:])).decode()
    fields = dict(line.split(":", 1) for line in told.splitlines() if ":" in line)
    return float(fields["used_cpu_user"]) + float(fields["used_cpu_sys"])
