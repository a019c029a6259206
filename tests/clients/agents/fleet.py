"""Two nodes and a gateway for agents, as processes; each session has a key of its own, by which the log is read."""

import json
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx

from gateway.access.new_keys import make_key
from gateway.core.access.api_keys import key_id
from tests.clients.say import say
from tests.real.processes import running, wait_for
from workers.cpu_node import free_port

_CONTEXT = 400_000
"""Of the fake node, whose tokenizer makes about twice as many tokens of an agent's prompt as a real one."""
_SET_UP_SECONDS = 900.0
_LOG_SECONDS = 10.0
_SHORT = {"thinking": {"max_budget": 48}, "output": {"max_tokens": 1024}, "loops": {"answer": True}}
"""What a tiny model on a CPU may do: it repeats itself to the end of its context where nothing stops it."""


@dataclass(frozen=True, slots=True)
class Key:
    """A key and the name that the log has for it."""

    key: str
    id: str


@dataclass(frozen=True, slots=True)
class AgentFleet:
    """Where the gateway listens, the keys of its sessions, its log, where fake nodes are told to fail."""

    url: str
    keys: Sequence[Key]
    log: Path
    controls: Sequence[str] = ()

    def let_nodes_die(self) -> None:
        """Each node cuts its next chat after a few tokens; what goes on with a stream comes as completions."""
        fault = {"kind": "die", "after": 12, "next": 1, "path": "/v1/chat/completions"}
        for control in self.controls:
            httpx.post(f"{control}/fake/control", json={"faults": [fault]}, trust_env=False).raise_for_status()

    def heal_nodes(self) -> None:
        """No faults any more."""
        for control in self.controls:
            httpx.post(f"{control}/fake/control", json={"faults": []}, trust_env=False).raise_for_status()

    def requests(self, key: Key) -> list[dict[str, Any]]:
        """What was logged of the requests that came with a key, in their order."""
        lines = [line for line in self.log.read_text(errors="replace").splitlines() if '"event":"request"' in line]
        return [entry for entry in map(json.loads, lines) if entry["key"] == key.id]

    def new_requests(self, key: Key, before: int) -> list[dict[str, Any]]:
        """Those behind the first `before`, once the log has them: it is written a little later than the answer."""
        end = time.monotonic() + _LOG_SECONDS
        while len(found := self.requests(key)[before:]) == 0 and time.monotonic() < end:
            time.sleep(0.1)
        time.sleep(0.5)
        return self.requests(key)[before:] or found


@contextmanager
def agent_fleet(folder: Path, sessions: int, kind: str = "fake", rate: int = 400) -> Iterator[AgentFleet]:
    """Run it. `rate`: tokens per second of a fake node's stream."""
    with ExitStack() as stack:
        if kind == "fake":
            nodes = [stack.enter_context(_fake_node(folder, number, rate)) for number in range(2)]
        else:
            nodes = [stack.enter_context(_real_node(folder))]
        fleet = stack.enter_context(_gateway(folder, nodes, sessions, {} if kind == "fake" else _SHORT))
        found = (_said(log, r'"control": "(http://[^"]+)"') for log in sorted(folder.glob("node-*.log")))
        yield replace(fleet, controls=[control for control in found if control])


@contextmanager
def _fake_node(folder: Path, number: int, rate: int) -> Iterator[str]:
    log = folder / f"node-{number}.log"
    words = ["fleetgate-worker", "fake", "--port", "0", "--rate", str(rate), "--max-model-len", str(_CONTEXT)]
    with running(words, log) as process:
        yield wait_for(lambda: _said(log, r'"url": "(http://[^"]+)"'), process, log, 60)


@contextmanager
def _real_node(folder: Path) -> Iterator[str]:
    log = folder / "node.log"
    words = ["fleetgate-worker", "cpu-node", "--port", "0", "--max-model-len", "8192", "--log", f"{log}.vllm"]
    say("starting a real vLLM on the CPU; the first time sets it up, which takes some minutes")
    with running(words, log) as process:
        yield wait_for(lambda: _said(log, r"ready: (http://\S+)"), process, log, _SET_UP_SECONDS)


@contextmanager
def _gateway(folder: Path, nodes: Sequence[str], sessions: int, more: dict[str, Any]) -> Iterator[AgentFleet]:
    made = [make_key() for _ in range(sessions)]
    keys = [Key(key, key_id(bytes.fromhex(digest))) for key, digest in made]
    port, log, config = free_port("127.0.0.1"), folder / "gateway.log", folder / "fleetgate.yaml"
    settings = {
        "listen": {"port": port},
        "admin": {"port": free_port("127.0.0.1")},
        "nodes": [{"url": node} for node in nodes],
        "tenants": [{"name": "agents", "keys": [{"sha256": digest} for _, digest in made]}],
        "log": {"format": "json"},
        **more,
    }
    config.write_text(json.dumps(settings))
    url = f"http://127.0.0.1:{port}"
    with running(["fleetgate", "serve", "-c", str(config)], log) as process:
        wait_for(lambda: _ready(url), process, log, 60)
        yield AgentFleet(url, keys, log)


def _said(log: Path, pattern: str) -> str | None:
    match = re.search(pattern, log.read_text(errors="replace"))
    return match and match[1]


def _ready(url: str) -> bool | None:
    try:
        return httpx.get(f"{url}/ready", trust_env=False).is_success or None
    except httpx.TransportError:
        return None
