"""A small server that looks like a vLLM to the launcher: its log lines, its routes, and its ways of dying.

Started as a process by test_launch.py. It steers by files in --folder, so that a test can change its mind while it
runs: `waits` keeps it from listening, `running` holds the number of running requests, `zombie` makes completions fail
while /health stays green, `dead` makes /health 503, `nonsense` makes it answer what is no JSON, `crash` ends the
process. `starts` counts how often it was started, `signals` what it was sent, `pid` is its process id.
"""

import argparse
import json
import os
import signal
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

LOG = [
    "INFO 06-16 core.py:114] Initializing a V1 LLM engine (v0.32.0) with config: ...",
    "INFO 06-16 gpu_model_runner.py:5040] Starting to load model /models/x...",
    "Loading safetensors checkpoint shards:   0% Completed | 0/4 [00:00<?, ?it/s]",
    "Loading safetensors checkpoint shards: 100% Completed | 4/4 [00:02<00:00, 2.0it/s]",
    "INFO 06-16 default_loader.py:248] Loading weights took 2.04 seconds",
    "INFO 06-16 backends.py:707] torch.compile and initial profiling/warmup run together took 31.50 s in total",
    "INFO 06-16 kv_cache_utils.py:2328] GPU KV cache size: 1,234,560 tokens",
]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--never-ready", action="store_true")
    parser.add_argument("--dies-of-budget", action="store_true")
    parser.add_argument("--talks", action="store_true", help="logs some megabytes before it listens")
    parser.add_argument("--deaf", action="store_true", help="ignores SIGTERM")
    args, _ = parser.parse_known_args()  # flags of vLLM's
    count(args.folder / "starts")
    signal.signal(signal.SIGTERM, lambda number, _: end(args, number))
    signal.signal(signal.SIGUSR1, lambda number, _: note(args.folder / "signals", number))
    for line in LOG:
        print(line, flush=True)
    for number in range(30_000 if args.talks else 0):
        print(f"INFO {number}", "x" * 100, flush=True)
    if args.never_ready:
        sys.exit(3)
    (args.folder / "pid").write_text(str(os.getpid()))
    while (args.folder / "waits").exists():
        time.sleep(0.02)
    server = ThreadingHTTPServer(("127.0.0.1", args.port), route(args))
    server.daemon_threads = True
    server.timeout = 0.05
    while not (args.folder / "crash").exists():
        server.handle_request()
    (args.folder / "crash").unlink()
    sys.exit(7)


def end(args: argparse.Namespace, number: int) -> None:
    note(args.folder / "signals", number)
    if not args.deaf:
        os._exit(0)


def count(file: Path) -> None:
    file.write_text(str(int(file.read_text()) + 1 if file.exists() else 1))


def note(file: Path, number: int) -> None:
    with file.open("a") as stream:
        stream.write(f"{signal.Signals(number).name} {time.time()}\n")


def route(args: argparse.Namespace) -> type[BaseHTTPRequestHandler]:
    folder: Path = args.folder

    class Routes(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            running = (folder / "running").read_text() if (folder / "running").exists() else "0"
            metrics = (
                f'vllm:num_requests_running{{engine="0"}} {running}\nvllm:num_requests_waiting{{engine="0"}} 0.0\n'
            )
            bodies: dict[str, str] = {
                "/health": "",
                "/metrics": metrics,
                "/version": json.dumps({"version": "0.32.0"}),
                "/v1/models": json.dumps({"data": [{"id": "nemotron-3-ultra", "max_model_len": 2048}]}),
            }
            dead = self.path == "/health" and (folder / "dead").exists()
            self.reply(503 if dead else 200, bodies.get(self.path, ""))

        def do_POST(self) -> None:
            body: dict[str, Any] = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            note_request(folder, body)
            if "thinking_token_budget" in body and args.dies_of_budget:
                os._exit(9)
            if (folder / "zombie").exists():
                return self.reply(500, '{"error": {"message": "cannot schedule new futures after shutdown"}}')
            if self.path == "/tokenize":
                return self.reply(200, json.dumps({"count": len(body["prompt"].split())}))
            thought = " ".join(["hm"] * int(body.get("thinking_token_budget", 40)))
            message = {"role": "assistant", "content": "yes", "reasoning": thought}
            return self.reply(200, json.dumps({"choices": [{"message": message}], "usage": {}}))

        def reply(self, status: int, text: str) -> None:
            if (folder / "nonsense").exists() and status == 200:
                text = "<html>" + text
            self.send_response(status)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_: object) -> None:
            """Silence."""

    return Routes


def note_request(folder: Path, body: dict[str, Any]) -> None:
    with (folder / "requests").open("a") as stream:
        stream.write(json.dumps(body) + "\n")


if __name__ == "__main__":
    main()
