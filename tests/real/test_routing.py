"""Two real vLLMs: what the gateway's routing is worth, by vLLM's own count of what it found in its prefix cache."""

import random
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from gateway.core.fleet.node_metrics import read_node_metrics
from tests.real.conftest import Server, ready
from tests.real.killable import KillableNode
from tests.real.processes import running, wait_for
from tests.real.transparency_cases import CHAT, MODEL
from workers.cpu_node import free_port

pytestmark = [pytest.mark.real, pytest.mark.prove]

TALKS, TURNS = 6, 4
WORDS = ["river", "stone", "light", "morning", "garden", "letter", "winter", "music", "island", "bridge"]


def hit_rate(policy: str, nodes: Sequence[Server], folder: Path, play: Callable[[str], None]) -> float:
    """The share of prompt tokens that `nodes` found in their caches while `play` used a gateway, whose URL it gets."""
    config = folder / f"{policy}.yaml"
    listed = "".join(f"\n  - url: {node.url}" for node in nodes)
    config.write_text(f"nodes:{listed}\nrouting:\n  policy: {policy}\nbudgets:\n  canary: false\n")
    port, admin = free_port("127.0.0.1"), free_port("127.0.0.1")
    url = f"http://127.0.0.1:{port}"
    log = folder / f"{policy}.log"
    command = ["fleetgate", "serve", "-c", str(config), "--port", str(port), "--admin-port", str(admin)]
    with running(command, log) as process:
        wait_for(lambda: _all_ready(f"http://127.0.0.1:{admin}") and ready(url), process, log, 60.0)
        before = [_counted(node) for node in nodes]
        play(url)
        after = [_counted(node) for node in nodes]
    queries = sum(new[0] - old[0] for new, old in zip(after, before, strict=True))
    return sum(new[1] - old[1] for new, old in zip(after, before, strict=True)) / queries


def test_conversations_find_their_caches(vllm: Server, second: KillableNode, tmp_path: Path) -> None:
    second.up()
    nodes = [vllm, Server(second.url)]
    turns, ours = (
        hit_rate(policy, nodes, tmp_path, lambda url, policy=policy: _talks(url, policy))  # type: ignore[misc]
        for policy in ("round_robin", "expected_wait")
    )
    print(f"prefix cache hits: {turns:.3f} of the prompt tokens with round robin, {ours:.3f} with expected wait")
    assert ours > 1.2 * turns


def _talks(url: str, policy: str) -> None:
    with ThreadPoolExecutor(TALKS) as threads:
        list(threads.map(lambda number: _talk(url, f"{policy} {number}"), range(TALKS)))


def _talk(url: str, name: str) -> None:
    dice = random.Random(name)
    messages = [{"role": "system", "content": f"{name} " + " ".join(dice.choices(WORDS, k=300))}]
    with httpx.Client(timeout=180, trust_env=False) as client:
        for _ in range(TURNS):
            messages.append({"role": "user", "content": " ".join(dice.choices(WORDS, k=150))})
            body = {"model": MODEL, "messages": messages, "max_tokens": 4, "temperature": 0}
            answer = client.post(f"{url}{CHAT}", json=body)
            assert answer.status_code == 200, answer.text
            messages.append({"role": "assistant", "content": "So it is."})


def _counted(node: Server) -> tuple[int, int]:
    """Prompt tokens that were looked for in the cache, and those that were found."""
    load = read_node_metrics(httpx.get(f"{node.url}/metrics", trust_env=False).content, 0.0)
    assert load.cache_queries is not None and load.cache_hits is not None
    return load.cache_queries, load.cache_hits


def _all_ready(admin: str) -> bool | None:
    try:
        nodes = httpx.get(f"{admin}/admin/nodes", trust_env=False).json()
    except httpx.TransportError:
        return None
    return all(node["ready"] for node in nodes) or None
