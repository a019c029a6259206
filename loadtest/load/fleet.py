"""What a load starts itself: fake nodes, a Redis, a gateway with two tenants or more; and what it does to them."""

import hashlib
import json
import os
import signal
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from loadtest import proxies
from loadtest.answers import MODEL
from loadtest.load.timetable import Fault
from loadtest.processes import (
    HOST,
    Child,
    StartedProcesses,
    StartError,
    free_port,
    wait_until_answers,
    wait_until_listens,
)
from loadtest.redis import redis_program
from loadtest.stage import FakeNode

START_SECONDS = 60.0
ADMIN_SECONDS = 30.0
PLACES = 32
READY = b"GET /ready HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"
NODE = (
    "--served-model-name", MODEL, "--max-model-len", "131072", "--rate", "50", "--prefill-rate", "20000",
    "--max-num-seqs", str(PLACES),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class FleetSize:
    """How much is started: fake nodes, worker processes of the gateway, tenants."""

    nodes: int = 3
    workers: int = 1
    tenants: Sequence[str] = ("acme", "globex")


class LoadFleet(StartedProcesses):
    """The processes; a context manager. `settings` of the gateway go over those here."""

    def __init__(self, size: FleetSize, settings: Mapping[str, Any] | None = None) -> None:
        super().__init__()
        self.size = size
        self.keys = {tenant: f"sk-fg-load-{tenant}" for tenant in size.tenants}
        self.nodes: list[FakeNode] = []
        self.port = self.admin_port = self.redis_port = 0
        self._settings = dict(settings or {})
        # The kernel ends a child with the thread that started it (`loadtest/processes.py`), and faults have threads of
        # their own: what they start anew is started by this one.
        self._starter = ThreadPoolExecutor(1)

    @property
    def url(self) -> str:
        """Where clients go."""
        return f"http://{HOST}:{self.port}"

    @property
    def admin_url(self) -> str:
        """Where operators go."""
        return f"http://{HOST}:{self.admin_port}"

    @property
    def gateway_pid(self) -> int:
        """The gateway's process, or its supervisor's."""
        return self._gateway.pid

    @property
    def gateway_log(self) -> str:
        """What the gateway has printed."""
        return (self._folder / "gateway.log").read_text(errors="replace")

    def inflict(self, fault: Fault) -> None:
        """Do it, wait as long as it lasts, and undo it."""
        if fault.action == "reload":
            self._reload()
        elif fault.action == "redis-away":
            self._redis.stop()
            time.sleep(fault.lasts)
            self._starter.submit(self._start_redis).result()
        elif fault.action == "redis-hang":
            os.kill(self._redis.pid, signal.SIGSTOP)
            time.sleep(fault.lasts)
            os.kill(self._redis.pid, signal.SIGCONT)
        else:
            self._inflict_node(self.nodes[int(fault.node) - 1], fault)

    def _inflict_node(self, node: FakeNode, fault: Fault) -> None:
        if fault.action == "kill":
            node.kill()
            time.sleep(fault.lasts)
            node.stop()
            self._starter.submit(node.start).result()
        elif fault.action == "stall":
            node.set_fault(kind="wedge", scope="all")
            time.sleep(fault.lasts)
            node.set_fault()
        else:
            drain(node.url, self.admin_url, "", fault.lasts)

    def _start(self) -> None:
        self._stack.callback(self._starter.shutdown)
        self._folder = Path(self._stack.enter_context(TemporaryDirectory(prefix="fleetgate-load-")))
        for _ in range(self.size.nodes):
            node = FakeNode(self._folder, *NODE)
            self._stack.callback(node.stop)
            self.nodes.append(node)
        self.redis_port, self.port, self.admin_port = free_port(), free_port(), free_port()
        self._stack.callback(lambda: self._redis.stop())
        self._start_redis()
        self._config = self._folder / "fleetgate.yaml"
        self._config.write_text(json.dumps(self._document()))
        argv = [proxies.FLEETGATE.program, "serve", "--config", str(self._config), "--host", HOST]
        argv += ["--port", str(self.port), "--admin-port", str(self.admin_port)]
        self._gateway = self._stack.enter_context(Child(argv, self._folder / "gateway.log"))
        wait_until_answers(self._gateway, self.port, READY, START_SECONDS)

    def _start_redis(self) -> None:
        argv = [
            redis_program(),
            "--bind",
            HOST,
            "--port",
            str(self.redis_port),
            "--save",
            "",
            "--dir",
            str(self._folder),
        ]
        self._redis = Child(argv, self._folder / "redis.log")
        wait_until_listens(self._redis, self.redis_port, START_SECONDS)

    def _document(self) -> dict[str, Any]:
        limits = {"requests_per_minute": 100_000, "concurrent_requests": 2000, "output_tokens_per_minute": 10**8}
        tenants = [
            {"name": name, "keys": [{"sha256": hashlib.sha256(key.encode()).hexdigest()}], "limits": limits}
            for name, key in self.keys.items()
        ]
        return {
            "nodes": [{"url": node.url, "max_concurrency": PLACES} for node in self.nodes],
            "models": [{"name": MODEL, "price": {"input": 0.5, "cached": 0.1, "output": 2.5}}],
            "tenants": tenants,
            "redis": {"url": f"redis://{HOST}:{self.redis_port}", "timeout": 1.0},
            "log": {"level": "warning"},
            "workers": self.size.workers,
            **self._settings,
        }

    def _reload(self) -> None:
        """Read the file again, with a tenant's share changed, so that there is something to change."""
        document = json.loads(self._config.read_text())
        document["tenants"][0]["share"] = 3 - document["tenants"][0].get("share", 1)
        self._config.write_text(json.dumps(document))
        tell_admin(self.admin_url, "", "reload")


def drain(node: str, admin: str, token: str, seconds: float) -> None:
    """Drain a node; undrain it after `seconds`, whatever has become of the drain. Raises StartError, OSError."""
    try:
        tell_admin(admin, token, "drain", {"node": node, "deadline": seconds})
        time.sleep(seconds)
    finally:
        tell_admin(admin, token, "undrain", {"node": node})


def tell_admin(admin: str, token: str, order: str, body: Mapping[str, Any] | None = None) -> None:
    """What `fleetgate drain` and its like send. A process of its own would take seconds on a machine under load.

    Raises StartError with the answer where it is refused, OSError where nobody answers.
    """
    headers = {"content-type": "application/json"} | ({"authorization": f"Bearer {token}"} if token else {})
    data = json.dumps(body).encode() if body is not None else b""
    request = urllib.request.Request(f"{admin}/admin/{order}", data, headers)
    try:
        with urllib.request.urlopen(request, timeout=ADMIN_SECONDS) as answer:
            answer.read()
    except urllib.error.HTTPError as error:
        with error:
            raise StartError(f"{order}: {error.code} {error.read(300).decode(errors='replace')}") from None
