"""The fake node as a process: it names its URLs on its first line, serves, and goes when told."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx

START = "from workers.cli import main; main()"
BODY = {"messages": [{"role": "user", "content": "hi"}], "stream": True}


@contextmanager
def fake_process(*flags: str) -> Iterator[tuple[dict[str, Any], "subprocess.Popen[str]"]]:
    command = [sys.executable, "-c", START, "fake", *flags]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield json.loads(process.stdout.readline()), process
        finally:
            process.terminate()


def test_a_process_serves_streams_and_stops() -> None:
    with fake_process("--as", "vllm-0.22", "--served-model-name", "m", "--max-model-len", "999") as (info, process):
        assert info["version"] == "0.22.0"
        card = httpx.get(f"{info['url']}/v1/models").json()["data"][0]
        assert (card["id"], card["max_model_len"]) == ("m", 999)
        assert httpx.post(f"{info['url']}/v1/chat/completions", json=BODY).text.endswith("data: [DONE]\n\n")
        assert httpx.get(f"{info['control']}/fake/stats").json()["finished"] == 1
        process.terminate()
        assert process.wait(60) == 0


def test_exit_ends_the_process() -> None:
    with fake_process("--fault", "exit:after=2") as (info, process):
        try:
            httpx.post(f"{info['url']}/v1/chat/completions", json=BODY)
        except httpx.HTTPError:
            assert process.wait(60) == 1
        else:
            raise AssertionError("the stream should have broken")


def test_wrong_flags_are_refused() -> None:
    for flags in (["--as", "vllm-1"], ["--fault", "nope"]):
        command = [sys.executable, "-c", START, "fake", *flags]
        assert subprocess.run(command, capture_output=True, check=False).returncode == 2
