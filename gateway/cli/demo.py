"""`fleetgate demo`: a node and a gateway on this machine, and what to type to talk to them.

Both run as the processes that an operator would start, so that the demo shows the product and not a copy of it.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import httpx
from tenacity import RetryError, Retrying, retry_if_exception_type, retry_if_result, stop_after_delay, wait_fixed

from gateway.access.new_keys import make_key
from gateway.server.process import ListenError, listen

NodeKind = Literal["vllm", "fake"]

MODEL = "nemotron-3-ultra"
QUESTION = "What is the capital of France? Tell me about it."
SHORT = {"thinking_token_budget": 24, "max_tokens": 120}
"""A model of 135M parameters often never comes to an end of its thoughts: vLLM's budget makes it answer."""

SETUP_SECONDS = 3600.0
STOP_SECONDS = 20.0

Say = Callable[[str], None]


class DemoError(Exception):
    """The demo cannot go on; says why and what to do."""


def run_demo(kind: NodeKind, port: int, admin_port: int, say: Say) -> None:
    """Start everything, print how to use it, wait for Ctrl-C (or SIGTERM), stop everything that was started."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with tempfile.TemporaryDirectory(prefix="fleetgate-demo-") as folder:
        try:
            _serve_until_interrupted(kind, port, admin_port, Path(folder), say)
        except KeyboardInterrupt:
            say("\nStopped; nothing is left running.")


def _serve_until_interrupted(kind: NodeKind, port: int, admin_port: int, folder: Path, say: Say) -> None:
    for wanted in (port, admin_port):
        _require_port(wanted)
    node_port = _free_port()
    node_url = f"http://127.0.0.1:{node_port}"
    say(_introduction(kind))
    quiet = subprocess.DEVNULL if kind == "fake" else None
    with _process(_node_command(kind, node_port), say, quiet) as node:
        _wait_until_up(f"{node_url}/health", node, "the node", SETUP_SECONDS)
        key, digest = make_key()
        config = folder / "fleetgate.yaml"
        config.write_text(_config(node_url, port, admin_port, digest))
        log = folder / "gateway.log"
        with (
            log.open("w") as output,
            _process([*_command("fleetgate"), "serve", "-c", str(config)], say, output) as gate,
        ):
            url = f"http://127.0.0.1:{port}"
            _wait_until_up(f"{url}/ready", gate, "the gateway", 60.0, log)
            say(f"[demo] Asking the model through the gateway: {QUESTION!r} ...")
            say(f"[demo] {_first_answer(url, key)}")
            say(_how_to_use(url, admin_port, key))
            _wait_for_the_first_to_end(node, gate, log)


def _introduction(kind: NodeKind) -> str:
    if kind == "fake":
        return (
            "[demo] Starting a fake node and the gateway in front of it. "
            "The node has vLLM's API and no model: it answers with any words."
        )
    return (
        "[demo] Starting a real vLLM with a tiny thinking model on this machine's CPU, and the gateway before it.\n"
        "[demo] The first run installs vLLM for CPU and builds the model: 3 to 6 minutes, about 3 GB in your cache.\n"
        "[demo] Later runs take about a minute. In a hurry? `make demo NODE=fake` answers in seconds."
    )


def _node_command(kind: NodeKind, port: int) -> list[str]:
    if kind == "fake":
        pace = ["--rate", "60", "--thinking-tokens", "60", "--answer-tokens", "40"]
        return [*_command("fleetgate-worker"), "fake", "--port", str(port), *pace]
    return [*_command("fleetgate-worker"), "cpu-node", "--port", str(port), "--served-model-name", MODEL]


def _command(name: str) -> list[str]:
    """The console script beside this interpreter, else the one on the PATH."""
    beside = Path(sys.executable).with_name(name)
    found = str(beside) if beside.exists() else shutil.which(name)
    if found is None:
        raise DemoError(f"The command {name} is not installed: run `pip install -e .` in the repository.")
    return [found]


@contextmanager
def _process(command: list[str], say: Say, output: object = None) -> Iterator[subprocess.Popen[bytes]]:
    """Run `command` in a process group of its own (so that Ctrl-C reaches it through us, in order) until the end."""
    with subprocess.Popen(command, start_new_session=True, stdout=output, stderr=output) as process:  # type: ignore[call-overload]
        try:
            yield process
        finally:
            _stop(process, say)


def _stop(process: subprocess.Popen[bytes], say: Say) -> None:
    if process.poll() is not None:
        return
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        say(f"[demo] {Path(process.args[0]).name} does not stop: sending SIGKILL.")  # type: ignore[index,arg-type]
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _require_port(port: int) -> None:
    try:
        listen("127.0.0.1", port).close()
    except ListenError as error:
        raise DemoError(f"{error}; choose another with --port or --admin-port (make demo PORT=8081)") from None


def _free_port() -> int:
    with listen("127.0.0.1", 0) as sock:
        return int(sock.getsockname()[1])


def _config(node_url: str, port: int, admin_port: int, digest: str) -> str:
    return (
        f"listen: {{port: {port}}}\n"
        f"admin: {{port: {admin_port}}}\n"
        f"nodes:\n  - url: {node_url}\n"
        f"tenants:\n  - name: demo\n    keys:\n      - sha256: {digest}\n"
        "timeouts: {shutdown: 5}\n"
        "log: {format: text}\n"
    )


def _wait_until_up(
    url: str, process: subprocess.Popen[bytes], name: str, seconds: float, log: Path | None = None
) -> None:
    """Wait until `url` answers 200; DemoError where the process ends first or the time is over."""

    def is_up() -> bool:
        if process.poll() is not None:
            raise DemoError(f"{name} ended with status {process.returncode} before it was ready.{_tail(log)}")
        return httpx.get(url, timeout=5, trust_env=False).status_code == 200

    retrying = Retrying(
        stop=stop_after_delay(seconds),
        wait=wait_fixed(0.25),
        retry=retry_if_exception_type(httpx.TransportError) | retry_if_result(lambda up: not up),
    )
    try:
        retrying(is_up)
    except RetryError:
        raise DemoError(f"{name} was not ready within {seconds:.0f} s.{_tail(log)}") from None


def _tail(log: Path | None) -> str:
    if log is None:
        return ""
    return "\nIts last lines:\n" + "\n".join(log.read_text().splitlines()[-10:])


def _first_answer(url: str, key: str) -> str:
    """One real answer, so that what is printed next is known to work."""
    body = {"model": MODEL, "messages": [{"role": "user", "content": QUESTION}], "temperature": 0, **SHORT}
    answer = httpx.post(
        f"{url}/v1/chat/completions",
        json=body,
        headers={"authorization": f"Bearer {key}"},
        timeout=300,
        trust_env=False,
    )
    if answer.status_code != 200:
        raise DemoError(f"the first request failed with status {answer.status_code}: {answer.text}")
    message = answer.json()["choices"][0]["message"]
    thought = message.get("reasoning") or message.get("reasoning_content") or ""
    said = re.sub(r"\s+", " ", message.get("content") or "").strip()
    return f"It thought {len(thought.split())} words, then said: {said[:200]}"


def _how_to_use(url: str, admin_port: int, key: str) -> str:
    message = f'{{"role": "user", "content": "{QUESTION}"}}'
    short, budget = json.dumps(SHORT)[1:-1], SHORT["thinking_token_budget"]
    ask = f'{{"model": "{MODEL}", "stream": true, {short}, "messages": [{message}]}}'
    return f"""
fleetgate is ready.

  URL     {url}/v1
  key     {key}
  model   {MODEL}
  admin   http://127.0.0.1:{admin_port}/openapi.json  (metrics: /metrics)

With curl:

  curl -N {url}/v1/chat/completions -H 'Authorization: Bearer {key}' -H 'Content-Type: application/json' \\
    -d '{ask}'

With the OpenAI SDK (pip install openai):

  from openai import OpenAI
  client = OpenAI(base_url="{url}/v1", api_key="{key}")
  ask = {{"model": "{MODEL}", "max_tokens": {SHORT["max_tokens"]}, "messages": [{message}]}}
  for chunk in client.chat.completions.create(**ask, stream=True, extra_body={{"thinking_token_budget": {budget}}}):
      delta = chunk.choices[0].delta
      print(getattr(delta, "reasoning", None) or delta.content or "", end="", flush=True)

Ctrl-C stops everything.
"""


def _wait_for_the_first_to_end(node: subprocess.Popen[bytes], gate: subprocess.Popen[bytes], log: Path) -> None:
    while node.poll() is None and gate.poll() is None:
        time.sleep(0.5)
    name = "the node" if node.poll() is not None else "the gateway"
    raise DemoError(f"{name} ended by itself.{_tail(log)}")
