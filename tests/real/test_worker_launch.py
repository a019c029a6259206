"""`launch` with a real vLLM on this CPU: from a profile to a ready node that keeps budgets, and drained to its end."""

import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from workers.cpu_runtime import ensure_cpu_runtime
from workers.tiny_model import ensure_tiny_model

pytestmark = [pytest.mark.real, pytest.mark.timeout(900)]

WORKER = str(Path(sys.executable).with_name("fleetgate-worker"))


def test_a_real_vllm_is_launched_tried_and_drained(tmp_path: Path) -> None:
    python = ensure_cpu_runtime(print, os.environ)
    model = ensure_tiny_model(print)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    program = shlex.join([str(python), "-m", "vllm.entrypoints.openai.api_server"])
    command = [WORKER, "launch", "tiny-cpu", "--model-dir", str(model), "--port", str(port), "--vllm", "0.32.0"]
    said = tmp_path / "said"
    with said.open("w") as stderr, (tmp_path / "log").open("w") as stdout:
        launcher = subprocess.Popen(
            [*command, "--program", program, "--heartbeat-seconds", "1"],
            stdout=stdout,
            stderr=stderr,
            env={**os.environ, "VLLM_CPU_OMP_THREADS_BIND": "0"},
        )
        try:
            deadline = time.monotonic() + 400
            while "serves nemotron-3-ultra" not in said.read_text():
                assert launcher.poll() is None, said.read_text() + (tmp_path / "log").read_text()[-3000:]
                assert time.monotonic() < deadline, said.read_text()
                time.sleep(0.5)
        finally:
            launcher.send_signal(signal.SIGTERM)
        assert launcher.wait(120) == 0
    told = said.read_text()
    assert "thinking budget: obeyed" in told
    assert "[load] weights loaded" in told
    assert "drained" in told
    with socket.socket() as client:
        assert client.connect_ex(("127.0.0.1", port)) != 0
    print(told)
