"""A real vLLM and a real gateway, started by the commands that people use and shared by all tests of the run."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from tests.real.killable import KillableNode, killable_node
from tests.real.processes import running, wait_for
from tests.real.progress import SET_UP_SECONDS, Progress
from tests.real.transparency_cases import MODEL
from workers.cpu_node import free_port


@dataclass(frozen=True, slots=True)
class Server:
    """Where something listens, and the name of the model it serves. `log`: vLLM's."""

    url: str
    model: str = MODEL
    log: Path | None = None

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
def vllm(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One vLLM for the whole run; float32, since texts are compared and near-ties flip in bfloat16."""
    log = tmp_path_factory.mktemp("vllm") / "cpu-node.log"
    command = ["fleetgate-worker", "cpu-node", "--port", "0", "--dtype", "float32", "--log", f"{log}.vllm"]
    command += ["--", "--enable-log-requests"]
    with running(command, log) as process:
        if any("second" in getattr(item, "fixturenames", ()) for item in request.session.items):
            second: KillableNode = request.getfixturevalue("second")
            second.begin()  # at the same time: most of a start keeps one core busy
        progress = Progress(log, request.config)
        yield Server(wait_for(progress.url, process, log, SET_UP_SECONDS), log=Path(f"{log}.vllm"))


@pytest.fixture(scope="session")
def second(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> Iterator[KillableNode]:
    """Another vLLM beside it, which tests may kill: whoever needs it says `up`."""
    with killable_node(tmp_path_factory.mktemp("second"), pytestconfig) as node:
        yield node


@pytest.fixture(scope="session")
def gateway(vllm: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The gateway in front of it, with no policy: `fleetgate serve --node URL`."""
    with serving(tmp_path_factory.mktemp("gateway"), "--node", vllm.url) as server:
        yield server


@pytest.fixture(scope="session")
def passing(vllm: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The same without resume, for which streams of messages and responses are asked of nodes as chat."""
    folder = tmp_path_factory.mktemp("passing")
    config = folder / "fleetgate.yaml"
    config.write_text(f"nodes: [{{url: '{vllm.url}'}}]\nresume: {{enabled: false}}\n")
    with serving(folder, "-c", str(config)) as server:
        yield server


@contextlib.contextmanager
def serving(folder: Path, *options: str) -> Iterator[Server]:
    """A gateway whose questions to its node are over: tests count what the node runs."""
    log = folder / "gateway.log"
    host, port, admin = "127.0.0.1", free_port("127.0.0.1"), free_port("127.0.0.1")
    server = Server(f"http://{host}:{port}")
    listen = ["--host", host, "--port", str(port), "--admin-port", str(admin)]
    with running(["fleetgate", "serve", *options, *listen], log) as process:
        wait_for(lambda: ready(server.url), process, log, 120.0)
        wait_for(lambda: "node_canary_finished" in log.read_text() or None, process, log, 120.0)
        yield server


def ready(url: str) -> bool | None:
    try:
        return httpx.get(f"{url}/ready", trust_env=False).is_success or None
    except httpx.TransportError:
        return None
