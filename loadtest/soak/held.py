"""What a gateway holds: counted from outside, in /proc, in its metrics, and in its keys in Redis."""

import os
import re
import urllib.request
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import redis

from loadtest import proc
from loadtest.processes import HOST

ZERO = (
    "fleetgate_open_requests",
    "fleetgate_waiting_requests",
    "fleetgate_node_in_flight",
    "fleetgate_reservations",
    "fleetgate_memory_held_bytes",
    "fleetgate_settlements_waiting",
    "fleetgate_usage_records_waiting",
)
"""Gauges that are 0 where nothing is asked."""
EMPTY = re.compile(r"fg1:\{route\}:(pending|entries|expiry|places|gateways:\w+)$")
"""Keys that are empty, or hold zeros, while no request runs (docs/redis-keys.md)."""
POOL = min(32, (os.cpu_count() or 1) + 4)
"""Threads that asyncio keeps for names and files, once they were needed."""
NAMES = {"gateways": "leases", "entries": "pending prompts", "expiry": "expiries of prompts"}
ALIVE = b"#"
"""The field of a gateway's leases by which the key exists while there are none."""
ENDED = (b"s", b"x")
"""What stands in `held` for a reservation that is settled, or has expired."""


@dataclass(frozen=True, slots=True)
class Held:
    """Counts of one moment. `gauges` are sums over labels; `sockets` are by the other side: client, node, redis, other.

    `files` are open files that are no connections. `keys` are Redis' by kind; `eternal` those without a time to live.
    `requests` are what Redis has of running ones: reservations, places, pending prompts.
    """

    gauges: dict[str, float]
    tasks: float
    processes: int
    threads: int
    files: int
    sockets: dict[str, int]
    requests: dict[str, int]
    keys: dict[str, int]
    eternal: dict[str, int]

    def leaks(self, before: "Held") -> Iterator[str]:
        """What should not be there when nothing is asked; `before` is the idle gateway at the start."""
        for name, value in self.gauges.items():
            if value:
                yield f"{name} is {value:g}"
        for name, count in self.requests.items():
            if count:
                yield f"{count} {name} in Redis"
        if self.sockets.get("client"):
            yield f"{self.sockets['client']} connections of clients"
        if self.tasks > before.tasks:
            yield f"{self.tasks:g} tasks, {before.tasks:g} before"
        for name, more in (("processes", 0), ("threads", POOL), ("files", 0)):
            now, was = getattr(self, name), getattr(before, name)
            if now > was + more:
                yield f"{now} {name}, {was} before"
        for name, count in self.eternal.items():
            if count > max(1, before.eternal.get(name, 0)):
                yield f"{count} keys {name} without a time to live, {before.eternal.get(name, 0)} before"


def count_held(pid: int, port: int, admin: str, redis_port: int, nodes: Iterable[int]) -> Held:
    """Count now. Raises OSError and redis.RedisError where one of them does not answer."""
    page = urllib.request.urlopen(f"{admin}/metrics", timeout=10).read().decode()
    tree = proc.descendants(pid, proc.snapshot())
    names = {redis_port: "redis", **dict.fromkeys(nodes, "node")}
    files, sockets, threads = 0, Counter[str](), 0
    for stat in tree:
        own = _files(stat.pid)
        threads += len(list((proc.PROC / str(stat.pid) / "task").iterdir()))
        connections = _connections(stat.pid, port, names)
        known = {inode: kind for inode, kind in connections.items() if inode in own}
        sockets.update(known.values())
        files += len(own) - len(known)
    requests, keys, eternal = _redis(redis_port)
    gauges = {name: gauge(page, name) for name in ZERO}
    tasks = gauge(page, "fleetgate_process_tasks")
    return Held(gauges, tasks, len(tree), threads, files, dict(sockets), requests, keys, eternal)


def gauge(page: str, name: str) -> float:
    """The sum of a metric's series."""
    return sum(float(value) for value in re.findall(rf"^{name}(?:{{[^}}]*}})? (\S+)$", page, re.MULTILINE))


def _files(pid: int) -> list[str]:
    """The open files of a process, sockets as their inode."""
    found = []
    for entry in (proc.PROC / str(pid) / "fd").iterdir():
        try:
            target = str(entry.readlink())
        except OSError:
            continue
        found.append(target.removeprefix("socket:[").removesuffix("]"))
    return found


def _connections(pid: int, port: int, names: dict[int, str]) -> dict[str, str]:
    """Connections of the process's network by inode: who is at the other side."""
    found = {}
    for table in ("tcp", "tcp6"):
        path = proc.PROC / str(pid) / "net" / table
        for line in path.read_text().splitlines()[1:] if path.exists() else ():
            fields = line.split()
            here, there = (int(address.rpartition(":")[2], 16) for address in fields[1:3])
            if fields[3] != "0A":  # listening
                found[fields[9]] = "client" if here == port else names.get(there, "other")
    return found


def _redis(port: int) -> tuple[dict[str, int], dict[str, int], dict[str, int]]:
    keys, eternal, requests = Counter[str](), Counter[str](), Counter[str]()
    with redis.Redis(host=HOST, port=port, socket_timeout=10) as client:
        for raw in client.scan_iter(count=500):
            key = raw.decode()
            kind = re.sub(r"[0-9a-f]{16,}|\d{4,}", "*", key)
            keys[kind] += 1
            if client.ttl(raw) == -1:
                eternal[kind] += 1
            if key.endswith(":held"):
                values = client.hvals(raw)
                requests["reservations"] += sum(value not in ENDED for value in values)
            elif EMPTY.match(key):
                requests[NAMES.get(name := key.rpartition("}:")[2].split(":")[0], name)] += _size(client, raw)
    return dict(requests), dict(keys), dict(eternal)


def _size(client: "redis.Redis", key: bytes) -> int:
    """Entries that stand for something: zeros of a hash do not."""
    if client.type(key) == b"zset":
        return int(client.zcard(key))
    return sum(value not in (b"0", b"") for field, value in client.hgetall(key).items() if field != ALIVE)
