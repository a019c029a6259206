"""What large bodies cost the gateway, and the streams beside them.

    python -m loadtest.large_bodies gaps [--seconds 20]
    python -m loadtest.large_bodies cpu [--rounds 5] [--proxies fleetgate,vllm-router,vllm-router-cache-aware]

`gaps`: a stream with an event every 20 ms, while bodies of 10 MB come in one after the other; the worst time between
two reads of the stream. Each shape of a body has a run of its own; `none` is the stream alone. The body's node only
counts its bytes, and is another one than the stream's.

`cpu`: CPU time of a request with a body of ordinary text, one after the other on one connection. All proxies are alive
at once and take turns within a round, so that a ratio is that of the same seconds. The node is the same kind of sink.
"""

import argparse
import asyncio
import contextlib
import json
import re
import socket
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import cycle, product
from pathlib import Path
from tempfile import TemporaryDirectory

from loadtest import answers, pages, proc, proxies
from loadtest.asks import Target, request
from loadtest.processes import HOST, Child, end_on_signals, free_port, wait_until_answers
from loadtest.proxies import FLEETGATE, Place, Proxy

CHAT = "/v1/chat/completions"
LARGE = "large"
"""The model of the bodies; the stream's node has another one."""

SIZE = 10_000_000
RATE = 50.0
START_SECONDS = 60.0
SIZES = {"256 KB": 256_000, "1 MB": 1_000_000, "4 MB": 4_000_000}
REQUESTS = {"256 KB": 60, "1 MB": 20, "4 MB": 8}
"""Requests of one size, of one proxy in one round: about 50 ms of CPU."""

PROSE = (
    "The parliament, after three days of debate, agreed to the motion; its members (all 214 of them) had been asked. "
    "Nobody, said the chair, may leave before the vote: not today. And so they stayed, and voted in the end. "
)
CODE = 'def first(items: list[str]) -> str:\n\t"""The first."""\n\treturn items[0] if items else "none"  # as before\n'
TURN_LENGTH = 20_000
CACHE_AWARE = "vllm-router-cache-aware"


def filled(head: bytes, piece: bytes, tail: bytes, size: int = SIZE) -> bytes:
    """A body of about `size` bytes: `piece` over and over, with commas between."""
    return head + b",".join([piece] * ((size - len(head) - len(tail)) // (len(piece) + 1))) + tail


ASKED = b'"model":"large","max_tokens":8'
TURN = b'{"role":"user","content":"hi"}'
SHAPES: dict[str, Callable[[], bytes]] = {
    "none": lambda: b"",
    "one text": lambda: body_of_text(SIZE),
    "turns of 1 KB": lambda: filled(
        b"{" + ASKED + b',"messages":[', json.dumps({"role": "user", "content": PROSE * 3}).encode(), b"]}"
    ),
    "small objects": lambda: filled(b"{" + ASKED + b',"messages":[' + TURN + b'],"documents":[', b'{"a":1}', b"]}"),
    "small turns": lambda: filled(b"{" + ASKED + b',"messages":[', TURN, b"]}"),
    "small turns, a \\u0022": lambda: filled(b"{" + ASKED + b',"user":"\\u0022","messages":[', TURN, b"]}"),
    "token ids": lambda: filled(b"{" + ASKED + b',"messages":[' + TURN + b'],"prompt":[', b"12345", b"]}"),
    "a key twice": lambda: filled(b"{" + ASKED + b',"messages":[', TURN, b'],"model":"large"}'),
}


def body_of_text(size: int, text: str = PROSE) -> bytes:
    """A conversation of `text`, over and over, of `size` bytes, in turns of 20 KB."""
    said = text * max(1, TURN_LENGTH // len(text))
    contents = [said[at : at + TURN_LENGTH] for at in range(0, len(said), TURN_LENGTH)]
    head, tail, turns = b"{" + ASKED + b',"messages":[', b"]}", list[bytes]()
    left = size - len(head) - len(tail)
    for turn in cycle([json.dumps({"role": "user", "content": content}).encode() for content in contents]):
        left -= len(turn) + 1
        if left < 0:
            break
        turns.append(turn)
    return head + b",".join(turns) + tail


def texts() -> dict[str, str]:
    """What the bodies say. A processor learns the line that `code` repeats, but not the sources of the gateway."""
    sources = sorted(Path(__file__).parents[1].glob("gateway/**/*.py"))
    return {"prose": PROSE, "code": CODE, "sources": "".join(path.read_text() for path in sources)}


# The sink


async def sink(port: int, model: str) -> None:
    """A node of `model` that reads a body's bytes, and answers all alike. Serves until it is ended."""
    cards = {"object": "list", "data": [{**pages.CARD, "id": model, "root": model}]}
    told = {
        **pages.PAGES,
        "/metrics": pages.metrics(0),
        "/v1/models": answers.response(200, json.dumps(cards).encode()),
        CHAT: answers.plain(False),
    }

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                path = head.split(b" ", 2)[1].decode()
                length = _length(head)
                while length:
                    length -= len(await reader.read(min(length, 1 << 18)) or b"x" * length)
                writer.write(told.get(path, pages.NOT_FOUND))

    server = await asyncio.start_server(serve, HOST, port, limit=1 << 20)
    async with server:
        await server.serve_forever()


def _length(head: bytes) -> int:
    found = re.search(rb"\r\ncontent-length: *(\d+)", head, re.IGNORECASE)
    return int(found[1]) if found else 0


class Sink:
    """The sink in a process; a context manager."""

    def __init__(self, folder: Path, model: str) -> None:
        self.port = free_port()
        argv = [sys.executable, "-m", "loadtest.large_bodies", "sink", "--port", str(self.port), "--model", model]
        self.child = Child(argv, folder / "sink.log")

    def __enter__(self) -> "Sink":
        wait_until_answers(self.child, self.port, b"GET /health HTTP/1.1\r\nhost: a\r\n\r\n", START_SECONDS)
        return self

    def __exit__(self, *_: object) -> None:
        self.child.stop()


class Connection:
    """A kept connection that sends one body after the other."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection((HOST, port), timeout=60.0)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # as clients' libraries do
        self._answers = self._socket.makefile("rb")

    def ask(self, body: bytes) -> int:
        """The answer's status. Raises OSError, ValueError."""
        head = f"POST {CHAT} HTTP/1.1\r\nhost: {HOST}\r\ncontent-type: application/json\r\n"
        self._socket.sendall(head.encode() + b"content-length: %d\r\n\r\n" % len(body))
        self._socket.sendall(body)
        status, length = int(self._answers.readline().split()[1]), 0
        while (line := self._answers.readline().lower()) not in (b"\r\n", b""):
            if line.startswith(b"content-length:"):
                length = int(line.split(b":")[1])
        self._answers.read(length)
        return status

    def close(self) -> None:
        self._answers.close()
        self._socket.close()


# Gaps


def gaps(options: argparse.Namespace) -> None:
    """For each shape: the bodies that came in, their statuses, and the stream's worst and median gap in ms."""
    with TemporaryDirectory(prefix="fleetgate-bodies-") as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        port = _gateway(folder, stack)
        print("| body | MB | answered | worst gap, ms | p99.9 | median |")
        print("|---|---:|---|---:|---:|---:|")
        for shape, make in SHAPES.items():
            if options.shapes and shape not in options.shapes.split(","):
                continue
            body, stop = make(), threading.Event()
            seen: list[int] = []
            sender = threading.Thread(target=_send, args=(port, body, stop, seen))
            if body:
                sender.start()
                time.sleep(1.0)  # the reader's process starts once
            found = _listen(port, options.seconds)
            stop.set()
            if body:
                sender.join()
            told = ", ".join(f"{seen.count(status)}x {status}" for status in sorted(set(seen)))
            worst, tail = max(found), sorted(found)[int(len(found) * 0.999)]
            figures = f"{worst * 1e3:.0f} | {tail * 1e3:.0f} | {statistics.median(found) * 1e3:.1f}"
            print(f"| {shape} | {len(body) / 1e6:.1f} | {told} | {figures} |", flush=True)


def _gateway(folder: Path, stack: contextlib.ExitStack) -> int:
    node, bodies = free_port(), stack.enter_context(Sink(folder, LARGE))
    argv = [sys.executable, "-m", "loadtest.mock_node", "--port", str(node)]
    child = stack.enter_context(Child(argv, folder / "node.log"))
    wait_until_answers(child, node, request(Target(HOST, node), 0, 1.0), START_SECONDS)
    port, admin, config = free_port(), free_port(), folder / "fleetgate.yaml"
    urls = [{"url": f"http://{HOST}:{each}"} for each in (node, bodies.port)]
    bounds = {"memory": 4 << 30, "max_json_values": 10_000_000}  # the former default would refuse all of them
    config.write_text(json.dumps({"nodes": urls, "budgets": {"canary": False}, "requests": bounds}))
    address = ["--host", HOST, "--port", str(port), "--admin-port", str(admin)]
    argv = [FLEETGATE.executable, "serve", "--config", str(config), *address]
    child = stack.enter_context(Child(argv, folder / "gateway.log"))
    wait_until_answers(child, port, request(Target(HOST, port), 0, 1.0), START_SECONDS)
    return port


def _send(port: int, body: bytes, stop: threading.Event, seen: list[int]) -> None:
    connection = Connection(port)
    while not stop.is_set():
        seen.append(connection.ask(body))
    connection.close()


def _listen(port: int, seconds: float) -> list[float]:
    """Seconds between the reads of a stream."""
    stream = socket.create_connection((HOST, port), timeout=60.0)
    stream.sendall(request(Target(HOST, port), round(RATE * seconds), RATE))
    found, last = [], 0.0
    while data := stream.recv(1 << 16):
        now = time.perf_counter()
        if last:
            found.append(now - last)
        last = now
        if b"[DONE]" in data:
            break
    stream.close()
    return found


# CPU


def cpu(options: argparse.Namespace) -> None:
    """The table of CPU time per request."""
    router = next(proxy for proxy in proxies.EVERYONE if proxy.name == "vllm-router")
    aware = replace(router, name=CACHE_AWARE, argv=lambda proxy, place: _cache_aware(router, place))
    known = {proxy.name: proxy for proxy in (*proxies.EVERYONE, *proxies.OWN, aware)}
    names = options.proxies.split(",")
    print("| body | " + " | ".join(f"{name}, ms" for name in names) + " |\n|---|" + "---:|" * len(names))
    with TemporaryDirectory(prefix="fleetgate-bodies-") as name, contextlib.ExitStack() as stack:
        running = [_proxy(known[each], Path(name), stack) for each in names]
        for (name, text), (size, length) in product(texts().items(), SIZES.items()):
            body = body_of_text(length, text).replace(ASKED, json.dumps({"model": answers.MODEL}).encode()[1:-1])
            rounds = [list(_round(running, body, REQUESTS[size], number)) for number in range(options.rounds)]
            cells = []
            for at in range(len(names)):
                ratios = [costs[0] / costs[at] for costs in rounds]
                cost = statistics.median(costs[at] for costs in rounds) * 1e3
                spread = f"{names[0]} is {statistics.median(ratios):.2f}x ({min(ratios):.2f}–{max(ratios):.2f})"
                cells.append(f"{cost:.2f}" + (f"; {spread}" if at else ""))
            print(f"| {size}, {name} | " + " | ".join(cells) + " |", flush=True)


def _cache_aware(router: Proxy, place: Place) -> list[str]:
    argv = router.argv(router, place)
    return [*argv[: argv.index("--policy")], "--policy", "cache_aware", *argv[argv.index("--policy") + 2 :]]


def _proxy(proxy: Proxy, folder: Path, stack: contextlib.ExitStack) -> tuple[Connection, int]:
    home = folder / proxy.name
    home.mkdir()
    node = stack.enter_context(Sink(home, answers.MODEL))
    place = Place(node=node.port, port=free_port(), folder=home, redis=free_port())
    child = stack.enter_context(Child(proxy.argv(proxy, place), home / "proxy.log", proxy.environment))
    wait_until_answers(child, place.port, request(Target(HOST, place.port), 0, 1.0), START_SECONDS)
    connection = Connection(place.port)
    stack.callback(connection.close)
    return connection, child.pid


def _round(running: list[tuple[Connection, int]], body: bytes, count: int, number: int) -> Iterator[float]:
    """CPU seconds per request of each."""
    found: dict[int, float] = {}
    turn = number % len(running)
    for connection, pid in running[turn:] + running[:turn]:
        for _ in range(2):
            assert connection.ask(body) == 200
        before = proc.tree_cost(pid).cpu_seconds
        for _ in range(count):
            connection.ask(body)
        found[pid] = (proc.tree_cost(pid).cpu_seconds - before) / count
    return iter([found[pid] for _, pid in running])


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description="What large bodies cost the gateway, and the streams beside them.")
    parser.add_argument("what", choices=["gaps", "cpu", "sink"])
    parser.add_argument("--seconds", type=float, default=20.0, help="of the stream, for each shape")
    parser.add_argument("--shapes", default="", help=f"comma-separated; all by default: {', '.join(SHAPES)}")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--proxies", default=f"fleetgate,vllm-router,{CACHE_AWARE}")
    parser.add_argument("--port", type=int, default=8000, help=argparse.SUPPRESS)
    parser.add_argument("--model", default=LARGE, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    end_on_signals()
    if options.what == "sink":
        asyncio.run(sink(options.port, options.model))
    elif options.what == "gaps":
        gaps(options)
    else:
        cpu(options)


if __name__ == "__main__":
    main()
