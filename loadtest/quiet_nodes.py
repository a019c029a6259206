"""Many nodes that nobody asks anything, in one process: they answer what a gateway asks on its own account.

    python -m loadtest.quiet_nodes --count 1000    # prints the ports as one line of JSON, then serves

/metrics has the families of a vLLM 0.32 with their histograms, 50 KB; its counters grow while `--busy` requests run.
As there, /metrics/ has only what it is asked for by name.
"""

import argparse
import asyncio
import contextlib
import json
import time
from collections.abc import Collection
from urllib.parse import parse_qs

import httptools
import uvloop

HOST = "127.0.0.1"
MODEL = "nemotron-3-ultra"
GAUGES = ("num_requests_running", "num_requests_waiting", "kv_cache_usage_perc", "engine_sleep_state")
COUNTERS = (
    "prefix_cache_queries",
    "prefix_cache_hits",
    "external_prefix_cache_queries",
    "external_prefix_cache_hits",
    "mm_cache_queries",
    "mm_cache_hits",
    "num_preemptions",
    "prompt_tokens",
    "generation_tokens",
)
REASONS = ("stop", "length", "abort", "error", "repetition")
HISTOGRAMS = (
    "request_prompt_tokens",
    "request_generation_tokens",
    "iteration_tokens_total",
    "request_max_num_generation_tokens",
    "request_params_n",
    "request_params_max_tokens",
    "time_to_first_token_seconds",
    "inter_token_latency_seconds",
    "request_time_per_output_token_seconds",
    "e2e_request_latency_seconds",
    "request_queue_time_seconds",
    "request_inference_time_seconds",
    "request_prefill_time_seconds",
    "request_decode_time_seconds",
    "request_prefill_kv_computed_tokens",
)
BUCKETS = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80, 160, 640)
LABELS = 'engine="0",model_name="nemotron-3-ultra"'
HANDLERS = ("/v1/chat/completions", "/v1/models", "/health", "/metrics", "/tokenize", "/version")
CONSTANT = {
    b"/health": b"",
    b"/version": b'{"version":"0.32.0"}',
    b"/tokenize": b'{"count":1,"max_model_len":262144,"tokens":[12]}',
    b"/v1/completions": b'{"id":"cmpl-1","object":"text_completion","choices":[{"index":0,"text":"2"}]}',
}


def head_of(name: str, kind: str) -> str:
    """The two lines of comment before a family."""
    return f"# HELP {name} Number of things of this name that the engine has seen so far.\n# TYPE {name} {kind}\n"


def metrics_page(started: float, running: int, generated: int) -> bytes:
    """A page of a node that began at `started` (seconds since 1970), and has made `generated` tokens."""
    parts = _counts(started, running, generated)
    for name in HISTOGRAMS:
        parts += [head_of(f"vllm:{name}", "histogram")]
        parts += [f'vllm:{name}_bucket{{{LABELS},le="{bound}"}} 0.0\n' for bound in (*BUCKETS, "+Inf")]
        parts += [f"vllm:{name}_count{{{LABELS}}} 0.0\n", f"vllm:{name}_sum{{{LABELS}}} 0.0\n"]
    parts += [head_of("http_request_duration_seconds", "histogram")]
    for handler in HANDLERS:
        parts += [
            f'http_request_duration_seconds_bucket{{handler="{handler}",le="{bound}",method="GET"}} 0.0\n'
            for bound in (*BUCKETS, "+Inf")
        ]
    return "".join(parts).encode()


def short_page(started: float, running: int, generated: int, names: Collection[str]) -> bytes:
    """What is left of the page where it is asked for metrics by name: none of the histograms is."""
    lines = "".join(_counts(started, running, generated)).splitlines(keepends=True)
    return "".join([line for line in lines if _name_in(line) in names]).encode()


def _counts(started: float, running: int, generated: int) -> list[str]:
    parts = [head_of("process_start_time_seconds", "gauge"), f"process_start_time_seconds {started:.2f}\n"]
    told = {"num_requests_running": running, "generation_tokens": generated}
    for name in GAUGES:
        parts += [head_of(f"vllm:{name}", "gauge"), f"vllm:{name}{{{LABELS}}} {float(told.get(name, 0))}\n"]
    for name in COUNTERS:
        parts += [head_of(f"vllm:{name}_total", "counter")]
        parts += [f"vllm:{name}_total{{{LABELS}}} {float(told.get(name, 0))}\n"]
        parts += [head_of(f"vllm:{name}_created", "gauge"), f"vllm:{name}_created{{{LABELS}}} {started:.7e}\n"]
    parts += [head_of("vllm:request_success_total", "counter")]
    parts += [f'vllm:request_success_total{{{LABELS},finished_reason="{reason}"}} 0.0\n' for reason in REASONS]
    return parts


def _name_in(line: str) -> str:
    return line.split(" ", 3)[2] if line.startswith("#") else line.partition("{")[0].partition(" ")[0]


class Question(asyncio.Protocol):
    """One connection to one of the nodes; every request is answered at once."""

    def __init__(self, started: float, busy: int, filters: bool = True) -> None:
        """`filters`: `/metrics/` has what it is asked for by name; else nothing, as of a vLLM with several API
        servers."""
        self._parser = httptools.HttpRequestParser(self)
        self._started = started
        self._busy = busy
        self._filters = filters
        self._path = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # uvloop's is one in all but name

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_url(self, url: bytes) -> None:
        self._path = url

    def on_message_complete(self) -> None:
        assert self._transport is not None
        body = self._body()
        status = b"404 Not Found" if body is None else b"200 OK"
        body = body or b""
        head = b"HTTP/1.1 %b\r\ncontent-length: %d\r\ncontent-type: application/json\r\n\r\n" % (status, len(body))
        self._transport.write(head + body)

    def _body(self) -> bytes | None:
        path, _, query = self._path.partition(b"?")
        if path in (b"/metrics", b"/metrics/"):
            made = round(self._busy * 50 * (time.time() - self._started))
            names = parse_qs(query.decode()).get("name[]") if path == b"/metrics/" else None
            if names is None:
                return metrics_page(self._started, self._busy, made)
            return short_page(self._started, self._busy, made, names) if self._filters else b""
        if self._path == b"/v1/models":
            card = {"id": MODEL, "object": "model", "created": int(time.time()), "owned_by": "vllm", "root": MODEL}
            return json.dumps({"object": "list", "data": [{**card, "parent": None, "max_model_len": 262144}]}).encode()
        return CONSTANT.get(self._path)


async def serve(count: int, busy: int, filters: bool) -> None:
    """Serve until cancelled."""
    loop, started = asyncio.get_running_loop(), time.time()
    servers = [await loop.create_server(lambda: Question(started, busy, filters), HOST, 0) for _ in range(count)]
    print(json.dumps([server.sockets[0].getsockname()[1] for server in servers]), flush=True)
    await loop.create_future()


def main() -> None:
    """Run the nodes until told to stop."""
    parser = argparse.ArgumentParser(description="Nodes that answer probes and nothing else.")
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--busy", type=int, default=0, help="requests that run on each node")
    parser.add_argument("--whole", action="store_true", help="their metrics cannot be asked for by name")
    options = parser.parse_args()
    with contextlib.suppress(KeyboardInterrupt):
        uvloop.run(serve(options.count, options.busy, not options.whole))


if __name__ == "__main__":
    main()
