"""On a real vLLM: prompts are as long as the gateway counts, and no tenant finds another's in the cache."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from gateway.core.access.api_keys import key_digest
from gateway.core.dialects import DIALECTS
from gateway.core.fleet.node_metrics import read_node_metrics
from gateway.counting.files import load_counter
from tests.real.conftest import Server, ready
from tests.real.processes import running, wait_for
from tests.real.transparency_cases import CASES, CHAT, COMPLETIONS, MESSAGES, MODEL, RESPONSES, TOOL_HISTORY, TOOLS
from workers.cpu_node import free_port
from workers.tiny_model import ensure_tiny_model

pytestmark = pytest.mark.real

GENERATING = (CHAT, COMPLETIONS, RESPONSES, MESSAGES)
ONE, TWO = ({"authorization": f"Bearer fg-{name}"} for name in ("one", "two"))


@pytest.fixture(scope="module")
def model(vllm: Server) -> Path:
    return ensure_tiny_model(print)


@pytest.fixture(scope="module")
def counting(vllm: Server, model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Server]]:
    """A gateway that counts prompts and keeps two tenants apart, and its admin listener."""
    folder = tmp_path_factory.mktemp("counting")
    port, admin = free_port("127.0.0.1"), free_port("127.0.0.1")
    tenants: list[dict[str, Any]] = [
        {"name": name, "cache_salt": True, "keys": [{"sha256": key_digest(f"fg-{name}").hex()}]}
        for name in ("one", "two")
    ]
    tenants[1]["thinking"] = {"mode": "forbidden"}
    settings = {
        "nodes": [{"url": vllm.url}],
        "models": [{"name": MODEL, "tokenizer": str(model)}],
        "tenants": tenants,
        "limits": {"default": {"tokens_per_minute": 10_000_000}},
        "budgets": {"canary": False},
    }
    (folder / "fleetgate.yaml").write_text(yaml.safe_dump(settings))
    server = Server(f"http://127.0.0.1:{port}")
    log = folder / "gateway.log"
    command = ["fleetgate", "serve", "-c", str(folder / "fleetgate.yaml"), "--port", str(port)]
    with running([*command, "--admin-port", str(admin)], log) as process:
        wait_for(lambda: ready(server.url), process, log, 120.0)
        yield server, Server(f"http://127.0.0.1:{admin}")


def prompt_tokens(answer: dict[str, Any]) -> int:
    usage = answer["usage"]
    # Anthropic's input tokens are those beside the ones that were read from the cache or written to it.
    cached = (usage.get("cache_read_input_tokens") or 0) + (usage.get("cache_creation_input_tokens") or 0)
    return int(usage["prompt_tokens"] if "prompt_tokens" in usage else usage["input_tokens"] + cached)


async def test_the_count_is_the_nodes_own(vllm: Server, model: Path) -> None:
    """Every request of the transparency table, with one token of an answer."""
    counter = load_counter(MODEL, model)
    differ, seen = [], set()
    with vllm.client() as client:
        for case in CASES:
            if case.path not in GENERATING or case.status != 200 or not isinstance(case.body, dict):
                continue
            if case.path == MESSAGES and "budget_tokens" in case.body.get("thinking", {}):
                continue  # no answer to it is short
            short = {"max_tokens": 1, "max_output_tokens": 1, "max_completion_tokens": None, "min_tokens": 0}
            body = case.body | {name: short[name] for name in short if name in case.body} | {"stream": False}
            body.pop("stream_options", None)
            dialect = next(each for each in DIALECTS if each.path == case.path)
            counted = await counter.count(dialect.read(json.dumps(body).encode()), dialect)
            answer = client.post(case.path, json=body, headers=dict(case.headers))
            assert answer.status_code == 200, (case.name, answer.text)
            seen.add(case.path)
            if counted != prompt_tokens(answer.json()):
                differ.append((case.name, counted, prompt_tokens(answer.json())))
    assert not differ and seen == set(GENERATING)


def test_limits_go_by_it(counting: tuple[Server, Server]) -> None:
    """Plain and streamed, with tools and without, a talk, a budget, thinking forbidden by a rule: all of them right."""
    server, admin = counting
    turns = [{"role": "system", "content": "Be brief."}, *TOOL_HISTORY, {"role": "user", "content": "And now? " * 400}]
    bodies: list[dict[str, Any]] = [{"messages": turns[1:2]}, {"messages": turns}, {"messages": turns, "tools": TOOLS}]
    bodies.append({"messages": turns[1:2], "thinking_token_budget": 3, "max_tokens": 8})  # held by the gateway
    sent = 0
    with server.client() as client, admin.client() as told:
        for body in bodies:
            for who, stream in ((ONE, False), (ONE, True), (TWO, False), (TWO, True)):
                asked = {"model": MODEL, "max_tokens": 1, "stream": stream, **body}
                assert client.post(CHAT, json=asked, headers=who).status_code == 200
                sent += 1
        assert client.post(COMPLETIONS, json={"model": MODEL, "prompt": "One", "max_tokens": 1}, headers=ONE).is_success
        page = told.get("/metrics").text
    counted = [line for line in page.splitlines() if line.startswith("fleetgate_prompts_counted_total{")]
    assert counted == [f'fleetgate_prompts_counted_total{{how="exact",model="{MODEL}"}} {sent + 1}.0']


def test_no_tenant_finds_anothers_prompt_in_the_cache(vllm: Server, counting: tuple[Server, Server]) -> None:
    """By the node's own count of prompt tokens that it found in its prefix cache."""
    server, _ = counting
    prompt = "A prompt that only one of us has asked before. " * 60
    body = {"model": MODEL, "messages": [{"role": "user", "content": prompt}], "max_tokens": 1}

    def looked_up() -> tuple[int, int]:
        load = read_node_metrics(httpx.get(f"{vllm.url}/metrics", trust_env=False).content, 0.0)
        assert load.cache_queries is not None and load.cache_hits is not None
        return load.cache_queries, load.cache_hits

    def found(client: httpx.Client, who: dict[str, str]) -> int:
        queries, hits = looked_up()
        length = client.post(CHAT, json=body, headers=who).json()["usage"]["prompt_tokens"]
        deadline = time.monotonic() + 60
        while looked_up()[0] < queries + length and time.monotonic() < deadline:
            time.sleep(0.05)  # the page is a step behind
        return looked_up()[1] - hits

    with server.client() as client:
        ones, twos = [[found(client, who), found(client, who)] for who in (ONE, TWO)]
    assert ones[0] == twos[0] == 0 and ones[1] == twos[1] > 500, (ones, twos)
