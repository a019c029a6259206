"""What routing is worth: agents on four nodes, through the gateway and through vllm-router's policies.

    python -m loadtest.routing [--gateways 1 4] [--json FILE]

The nodes are fakes with a prefill rate and a prefix cache each. Halfway a fifth node is added and one of the first is
taken away, another one in each round: which one decides more than a policy does, so four rounds are a fair
comparison, and fewer are not. With several processes the requests are dealt to them in turn, as many of the
rival as of the gateway, whose own share a Redis. Every candidate has the same words from the same seeds.
"""

import argparse
import asyncio
import json
import statistics
import urllib.parse
import urllib.request
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.table import Table

from loadtest import proc, proxies, results
from loadtest.agents import Heard, Talk, talk
from loadtest.answers import MODEL
from loadtest.install import install
from loadtest.processes import HOST, Child, end_on_signals, free_port, wait_until_answers
from loadtest.redis import redis_program

NODES = 4
FAKE = ("--prefill-rate", "8000", "--rate", "60", "--max-num-seqs", "32", "--block-size", "64", "--answer-tokens", "60")
START_SECONDS = 60.0
HEALTH = b"GET /health HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"
READY = b"GET /ready HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"
LISTED = b"GET /v1/models HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Candidate:
    """`name` for the table; `policy` of the router that `kind` names: fleetgate, fleetgate-alone (without Redis),
    vllm-router."""

    name: str
    kind: str
    policy: str


CANDIDATES = (
    Candidate("fleetgate expected_wait", "fleetgate", "expected_wait"),
    Candidate("fleetgate expected_wait, no Redis", "fleetgate-alone", "expected_wait"),
    Candidate("vllm-router cache_aware", "vllm-router", "cache_aware"),
    Candidate("vllm-router consistent_hash", "vllm-router", "consistent_hash"),
    Candidate("vllm-router power_of_two", "vllm-router", "power_of_two"),
)


class Team:
    """The processes of one candidate in front of one fleet; `urls` are where clients go."""

    def __init__(
        self, candidate: Candidate, nodes: Sequence[str], gateways: int, folder: Path, stack: ExitStack
    ) -> None:
        self.urls: list[str] = []
        self._nodes = list(nodes)
        self._config = folder / "fleetgate.yaml"
        self._admins: list[str] = []
        redis = None
        if candidate.kind == "fleetgate" and gateways > 1:
            port = free_port()
            options = ["--port", str(port), "--bind", HOST, "--save", "", "--dir", str(folder)]
            stack.enter_context(Child([redis_program(), *options], folder / "redis.log"))
            redis = f"redis://{HOST}:{port}"
        self._settings = {
            "routing": {"policy": candidate.policy},
            "health": {"slow_start": 0},
            "log": {"level": "warning"},
        }
        if redis is not None:
            self._settings["redis"] = {"url": redis, "timeout": 1.0}
        start = self._start_router if candidate.kind == "vllm-router" else self._start_gateway
        for number in range(gateways):
            start(candidate, folder, number, stack)

    def change(self, added: str, removed: str) -> None:
        """Tell every process of a new node, and that another is gone."""
        self._nodes = [node for node in self._nodes if node != removed] + [added]
        if self._admins:
            self._write()
            for admin in self._admins:
                _post(f"{admin}/admin/reload")
            return
        for url in self.urls:
            _post(f"{url}/add_worker?url={urllib.parse.quote(added, safe='')}")
            _post(f"{url}/remove_worker?url={urllib.parse.quote(removed, safe='')}")

    def _start_gateway(self, candidate: Candidate, folder: Path, number: int, stack: ExitStack) -> None:
        self._write()
        port, admin = free_port(), free_port()
        argv = [proxies.FLEETGATE.executable, "serve", "--config", str(self._config), "--host", HOST]
        argv += ["--port", str(port), "--admin-port", str(admin)]
        child = stack.enter_context(Child(argv, folder / f"gateway-{number}.log"))
        wait_until_answers(child, port, READY, START_SECONDS)
        self.urls.append(f"http://{HOST}:{port}")
        self._admins.append(f"http://{HOST}:{admin}")

    def _start_router(self, candidate: Candidate, folder: Path, number: int, stack: ExitStack) -> None:
        port = free_port()
        argv = [proxies.ROUTER.executable, "--host", HOST, "--port", str(port), "--policy", candidate.policy]
        argv += ["--prometheus-port", str(free_port()), "--log-level", "warning", "--worker-urls", *self._nodes]
        child = stack.enter_context(Child(argv, folder / f"router-{number}.log"))
        wait_until_answers(child, port, LISTED, START_SECONDS)
        self.urls.append(f"http://{HOST}:{port}")

    def _write(self) -> None:
        nodes = [{"url": node, "max_concurrency": 32} for node in self._nodes]
        self._config.write_text(json.dumps({**self._settings, "nodes": nodes}))


def run(candidate: Candidate, gateways: int, what: Talk, seed: int) -> Heard:
    """Start everything afresh, let the agents talk, end everything."""
    with TemporaryDirectory(prefix="fleetgate-routing-") as name, ExitStack() as stack:
        folder = Path(name)
        *nodes, spare = [_start_node(folder, number, stack) for number in range(NODES + 1)]
        team = Team(candidate, nodes, gateways, folder, stack)
        return asyncio.run(talk(team.urls, what, lambda: team.change(spare, nodes[seed % NODES]), seed))


def compare(
    candidates: Sequence[Candidate], gateways: Sequence[int], what: Talk, rounds: int, say: Callable[[str], None]
) -> dict[tuple[str, int], list[Heard]]:
    """Every candidate with every number of gateways, `rounds` times, taking turns."""
    found: dict[tuple[str, int], list[Heard]] = {}
    for seed in range(1, rounds + 1):
        for count in gateways:
            for candidate in candidates:
                if candidate.kind == "fleetgate-alone" and count == 1:
                    continue  # one gateway shares with nobody
                heard = run(candidate, count, what, seed)
                say(f"{candidate.name}, {count} processes, round {seed}: {_spell(heard)}")
                found.setdefault((candidate.name, count), []).append(heard)
    return found


def table(found: dict[tuple[str, int], list[Heard]]) -> Table:
    """Medians of the rounds' waits, and the hit rate over all rounds."""
    shown = Table("policy", "processes", "TTFT p50 s", "TTFT p99 s", "hit rate", "failed")
    for (name, count), heard in sorted(found.items(), key=lambda item: item[0][1]):
        shown.add_row(name, str(count), *_row(heard))
    return shown


def _row(heard: Sequence[Heard]) -> list[str]:
    p50, p99 = (statistics.median(one.quantile(share) for one in heard) for share in (0.5, 0.99))
    hits = sum(one.cached for one in heard) / max(1, sum(one.prompt for one in heard))
    return [f"{p50:.3f}", f"{p99:.3f}", f"{hits:.3f}", str(sum(one.failed for one in heard))]


def _spell(heard: Heard) -> str:
    p50, p99, hits, failed = _row([heard])
    return f"TTFT p50 {p50} s, p99 {p99} s, hit rate {hits}, {failed} failed"


def _start_node(folder: Path, number: int, stack: ExitStack) -> str:
    port = free_port()
    program = Path(proxies.FLEETGATE.executable).with_name("fleetgate-worker")
    argv = [str(program), "fake", "--port", str(port), "--served-model-name", MODEL, *FAKE]
    child = stack.enter_context(Child(argv, folder / f"node-{number}.log"))
    wait_until_answers(child, port, HEALTH, START_SECONDS)
    return f"http://{HOST}:{port}"


def _post(url: str) -> None:
    with urllib.request.urlopen(urllib.request.Request(url, method="POST"), timeout=10) as answer:
        answer.read()


def main() -> None:
    """Install the rival, measure, print and perhaps save."""
    parser = argparse.ArgumentParser(description="Routing policies beside those of vllm-router.")
    parser.add_argument("--gateways", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--only", default="", help="candidates whose name holds this")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    end_on_signals()
    console = results.console()
    install([proxies.ROUTER], console.print)
    candidates = [one for one in CANDIDATES if options.only in one.name]
    found = compare(candidates, options.gateways, Talk(), options.rounds, console.print)
    console.print(table(found))
    if options.json:
        rows = [
            {"policy": name, "processes": count, "rows": [_row([one]) for one in heard]}
            for (name, count), heard in found.items()
        ]
        options.json.write_text(json.dumps({"machine": proc.machine(), "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
