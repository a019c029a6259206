"""A real vLLM and a real gateway, started by the commands that people use and shared by all tests of the run."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from tests.real.processes import running, wait_for
from tests.real.transparency_cases import MODEL
from workers.cpu_node import free_port

SET_UP_SECONDS = 900.0  # a first run installs vLLM and builds the model: about three minutes where downloads are quick


@dataclass(frozen=True, slots=True)
class Server:
    """Where something listens, and the name of the model it serves."""

    url: str
    model: str = MODEL

    def client(self) -> httpx.Client:
        """For plain HTTP. No proxy of the environment comes between."""
        return httpx.Client(base_url=self.url, timeout=60, trust_env=False)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The first test of the run waits for the set-up, which counts into its time."""
    here = Path(__file__).parent
    for item in items:
        if item.path.is_relative_to(here):
            item.add_marker(pytest.mark.timeout(SET_UP_SECONDS + 60))


@pytest.fixture(scope="session")
def vllm(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> Iterator[Server]:
    """One vLLM for the whole run; float32, since texts are compared and near-ties flip in bfloat16."""
    _tell(pytestconfig, "starting a real vLLM on the CPU; the first time sets it up, which takes some minutes")
    log = tmp_path_factory.mktemp("vllm") / "cpu-node.log"
    command = ["fleetgate-worker", "cpu-node", "--port", "0", "--dtype", "float32", "--log", f"{log}.vllm"]
    with running(command, log) as process:
        url = wait_for(lambda: _said(log, r"ready: (http://\S+)"), process, log, SET_UP_SECONDS)
        _tell(pytestconfig, f"vLLM is up at {url}")
        yield Server(url)


@pytest.fixture(scope="session")
def gateway(vllm: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The gateway in front of it, with no policy: `fleetgate serve --node URL`."""
    log = tmp_path_factory.mktemp("gateway") / "gateway.log"
    host, port, admin = "127.0.0.1", free_port("127.0.0.1"), free_port("127.0.0.1")
    server = Server(f"http://{host}:{port}")
    listen = ["--host", host, "--port", str(port), "--admin-port", str(admin)]
    with running(["fleetgate", "serve", "--node", vllm.url, *listen], log) as process:
        wait_for(lambda: _ready(server.url), process, log, 30.0)
        yield server


def _said(log: Path, pattern: str) -> str | None:
    match = re.search(pattern, log.read_text(errors="replace"))
    return match and match[1]


def _ready(url: str) -> bool | None:
    try:
        return httpx.get(f"{url}/ready", trust_env=False).is_success or None
    except httpx.TransportError:
        return None


def _tell(config: pytest.Config, line: str) -> None:
    # Minutes without a word look like a hang, and pytest keeps back what fixtures print.
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    if reporter is not None:
        reporter.write_line(line)
