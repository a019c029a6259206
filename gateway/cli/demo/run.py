"""`fleetgate demo`: nodes and a gateway on this machine, a first answer, what to try, and each request as it goes by.

All run as the processes that an operator would start, so that the demo shows the product and not a copy of it.
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

from gateway.access.new_keys import make_key
from gateway.cli.demo.first_answer import QUESTION, show_first_answer
from gateway.cli.demo.nodes import DemoNode, NodeKind, look_after, missing, running_nodes
from gateway.cli.demo.processes import (
    DemoError,
    Process,
    command,
    free_port,
    interrupt_once,
    require_port,
    start,
    stop,
    wait_until_up,
)
from gateway.cli.demo.request_lines import RequestLines
from gateway.cli.demo.to_try import FEW, Demo, things_to_try
from gateway.cli.terminal import tell

GATEWAY_SECONDS = 60.0
LINE_SECONDS = 5.0
"""How long the first request's line is waited for: it is written after the answer."""


def run_demo(kind: NodeKind, count: int, port: int, admin_port: int) -> None:
    """Start everything, print how to use it, wait for Ctrl-C (or SIGTERM, or the terminal's end), stop everything."""
    interrupt_once()
    with tempfile.TemporaryDirectory(prefix="fleetgate-demo-") as folder:
        try:
            _serve_until_interrupted(kind, count, (port, admin_port), Path(folder))
        except (KeyboardInterrupt, BrokenPipeError):  # or nobody reads any more
            say("\nStopped; nothing is left running.")


def say(line: str) -> None:
    """To whoever still reads: at the end of a terminal everything else has still to be stopped."""
    try:
        tell(line)
    except OSError:
        sys.stdout = None  # else Python fails at its end, over what it could not write


def _serve_until_interrupted(kind: NodeKind, count: int, ports: tuple[int, int], folder: Path) -> None:
    for wanted in ports:
        require_port(wanted)
    public, admin = (wanted or free_port() for wanted in ports)
    say(_introduction(kind, count))
    with running_nodes(kind, count, say) as nodes:
        (key, digest), (few_key, few_digest) = make_key(), make_key()
        config = folder / "fleetgate.yaml"
        config.write_text(_config(nodes, public, admin, digest, few_digest))
        gate = start([command("fleetgate"), "serve", "-c", str(config)], subprocess.PIPE)
        try:
            _show(Demo(kind, f"http://127.0.0.1:{public}", f"http://127.0.0.1:{admin}", key, few_key, nodes), gate)
        finally:
            stop([gate], say)


def _show(demo: Demo, gate: Process) -> None:
    assert gate.stdout is not None
    lines = RequestLines(gate.stdout, say)
    wait_until_up(f"{demo.url}/ready", gate, "the gateway", GATEWAY_SECONDS, lines.last_lines)
    say(f"[demo] Asking the model through the gateway: {QUESTION!r}")
    show_first_answer(demo.url, demo.key, sys.stdout.isatty())
    lines.first.wait(LINE_SECONDS)
    say(things_to_try(demo, lines.records[-1]["node"] if lines.records else ""))
    while gate.poll() is None:  # which it does not by itself
        time.sleep(0.5)
        look_after(demo.nodes, demo.kind, say)
    raise DemoError(f"the gateway ended by itself.{lines.last_lines()}")


def _introduction(kind: NodeKind, count: int) -> str:
    if kind == "fake":
        return (
            f"[demo] Starting {count} fake nodes and the gateway in front of them; nothing is installed. "
            "A fake node has vLLM's API\n[demo] and no model: it answers with any words."
        )
    nodes = "a real vLLM" if count == 1 else f"{count} real vLLMs"
    start = f"[demo] Starting {nodes} with a tiny thinking model on this machine's CPU, and the gateway in front.\n"
    wanted = missing(kind)
    if not wanted:
        return (
            f"{start}[demo] vLLM and the model are there from an earlier run: nothing is installed. "
            "A vLLM takes about a minute to start."
        )
    listed = "\n".join(f"[demo]   {line}" for line in wanted)
    return (
        f"{start}[demo] The first run installs, outside of this folder and for good:\n{listed}\n"
        "[demo] In a hurry? Ctrl-C, and `--node fake` (make demo NODE=fake) answers in seconds."
    )


def _config(nodes: list[DemoNode], port: int, admin_port: int, digest: str, few_digest: str) -> str:
    return (
        f"listen: {{port: {port}}}\n"
        f"admin: {{port: {admin_port}}}\n"
        "nodes:\n" + "".join(f"  - url: {node.url}\n" for node in nodes) + "tenants:\n"
        f"  - name: demo\n    keys: [{{sha256: {digest}}}]\n    limits: {{requests_per_minute: 600}}\n"
        f"  - name: few\n    keys: [{{sha256: {few_digest}}}]\n    limits: {{requests_per_minute: {FEW}}}\n"
        "thinking: {max_budget: 1024}\n"
        "health: {interval: 0.5, slow_start: 0}\n"
        "timeouts: {shutdown: 5}\n"
    )
