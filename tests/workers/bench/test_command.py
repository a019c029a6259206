"""`fleetgate-worker bench` as a person runs it: on a fake node, saved and planned with, interrupted, asked wrongly."""

import asyncio
import json
import os
import signal
import subprocess
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from typer.testing import CliRunner

from tests.support.gateways import eventually
from tests.workers.bench.servers import scripted_node
from tests.workers.bench.test_probe import SURE, Cache, parted
from tests.workers.nvml import build
from tests.workers.test_launch import WORKER
from workers.cli import app
from workers.fake import FakeSettings, serve_fake
from workers.fake.server import FakeNode
from workers.profiles.load import find_profile

QUICK = ["--seconds", "0.5", "--scale", "0.02", "--users", "2", "--load", "own"]


def bench(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run it to its end."""
    return subprocess.run(
        [WORKER, "bench", *words], capture_output=True, text=True, timeout=120, env={**os.environ, **environment}
    )


def nothing_in(folder: Path) -> bool:
    return not list(folder.iterdir())


@pytest_asyncio.fixture
async def node() -> AsyncIterator[FakeNode]:
    async with serve_fake(FakeSettings(rate=400, prefill_rate=8000, max_model_len=4096)) as node:
        yield node


async def run(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return await asyncio.to_thread(lambda: bench(*words, **environment))


async def test_a_bench_is_shown_saved_and_planned_with(node: FakeNode, tmp_path: Path) -> None:
    trace = tmp_path / "trace.jsonl"
    lines = [{"timestamp": 10 * n, "input_length": 900, "output_length": 300, "hash_ids": [0, n]} for n in range(2000)]
    trace.write_text("".join(json.dumps(line) + "\n" for line in lines))
    words = [*QUICK, "--profiles", str(tmp_path), "--save", "--trace", str(trace), "--url", node.url]
    done = await run("tiny-cpu", *words)
    assert done.returncode == 0, done.stderr
    for text in (
        "chat 163 in / 20 out, 70% repeated",
        "agents 1,310 in",
        "reasoning 20 in / 163 out",
        "trace of 2,000",
    ):
        assert text in done.stdout
    assert "equal: prefix cache 1" in done.stdout
    assert "load: our own asyncio and httpx client (--load own); closed loop" in done.stderr
    assert "the flags are those of the profile, since the node's cannot be read" in done.stderr
    own = find_profile("tiny-cpu-measured", [tmp_path])
    assert [each.workload.split()[0] for each in own.throughput] == ["chat", "agents", "reasoning", "trace"]
    planned = CliRunner().invoke(
        app, ["plan", "tiny-cpu-measured", "--profiles", str(tmp_path), "--price", "1", "--json"]
    )
    (plan,) = json.loads(planned.stdout)
    assert plan["costs"][0]["tokens_per_second"] == pytest.approx(own.throughput[0].low)


async def test_use_of_gpus_is_shown_and_saved_figures_name_their_hardware(
    node: FakeNode, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    library = build(tmp_path_factory.mktemp("nvml"))
    said = tmp_path / "gpus"
    said.write_text("all use 95\n5 use 40\n")
    there = {"LD_LIBRARY_PATH": str(library.parent), "NVML_STAND_IN": str(said)}
    words = ["nemotron-3-ultra-8xh200-fp8", "--url", node.url, *QUICK, "--workload", "chat"]
    words += ["--json", "--no-probe", "--save", "--profiles", str(tmp_path)]
    done = await run(*words, **there)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    (rung,) = document["rungs"]
    assert (rung["gpus"]["5"], rung["gpus"]["6"], rung["gpu_spread"]) == pytest.approx((0.4, 0.95, 0.55))
    assert (rung["users"], rung["failures"], document["probe"]) == (2, {}, [])
    assert rung["tokens_out"] > 0 and rung["node"]["generated"] > 0
    own = find_profile("nemotron-3-ultra-8xh200-fp8-measured", [tmp_path])
    assert own.throughput[0].measured_with is not None
    assert own.throughput[0].measured_with.hardware == "8x h200"


async def test_figures_of_another_machine_are_not_saved_as_the_profiles(node: FakeNode, tmp_path: Path) -> None:
    words = ["nemotron-3-ultra-8xh200-fp8", "--url", node.url, *QUICK, "--workload", "chat", "--no-probe"]
    done = await run(*words, "--save", "--profiles", str(tmp_path))
    assert "nothing is saved: nemotron-3-ultra-8xh200-fp8 has 8 GPUs on a machine, and NVML shows 0 here" in done.stderr
    assert nothing_in(tmp_path)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
async def test_an_interrupted_bench_shows_what_there_is(
    node: FakeNode, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    words = [*QUICK, "--users", "2", "--seconds", "600", "--minutes", "60", "--workload", "chat", "--save"]
    process = await asyncio.create_subprocess_exec(
        *[WORKER, "bench", "tiny-cpu", "--url", node.url, "--profiles", str(tmp_path), *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        await eventually(lambda: node.stats.requests["/v1/chat/completions"] > 8)
    finally:
        process.send_signal(number)
        shown, said = await process.communicate()
    assert process.returncode == code
    assert b"2 users: ended after" in shown and b"interrupted" in shown
    assert said.endswith(b"bench: interrupted; nothing is saved\n")
    assert nothing_in(tmp_path)


def test_a_cache_that_changes_answers_fails_the_bench_and_nothing_is_saved(tmp_path: Path) -> None:
    cold_and_warm = Cache(SURE, parted(SURE, 7, 3.0))

    def reply(body: dict[str, Any]) -> tuple[Sequence[tuple[int, float]], int | None]:
        return cold_and_warm(body) if "cache_salt" in body else (SURE[:8], None)

    with scripted_node(reply) as node:
        words = ["--model", "tiny", "--url", node.url, *QUICK, "--workload", "chat"]
        done = CliRunner().invoke(app, ["bench", "tiny-cpu", *words, "--save", "--profiles", str(tmp_path)])
    assert done.exit_code == 1, done.stderr
    assert "WRONG: prefix cache 1: cold and warm part at token 7" in done.stdout
    assert "no /metrics: prefix hits, MTP and preemptions are not known" in done.stderr
    assert "/tokenize does not answer: a word is taken to be 1.25 tokens" in done.stderr
    assert "nothing is saved: the node's answers are wrong" in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--model", "other"], "does not serve other; it serves: tiny"),
        (["--load", "vllm", "--vllm-program", "no-such-vllm"], "--load vllm: there is no program 'no-such-vllm'"),
        (["--load", "vllm", "--vllm-program", "true"], "--load vllm: no tokenizer is known: --tokenizer FOLDER"),
        (["--trace", "no-such-trace"], "cannot read the trace no-such-trace"),
    ],
)
def test_what_the_node_cannot_do_is_told(words: list[str], told: str) -> None:
    with scripted_node(lambda body: (SURE, None)) as node:
        done = CliRunner().invoke(app, ["bench", node.url, *words])
    assert done.exit_code == 2
    assert told in " ".join(done.stderr.split())


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["ftp://h"], "is no node's URL: expected http://HOST:PORT"),
        (["http://user:pw@h:1"], "is no node's URL"),
        (["http://h:99999"], "is no node's URL"),
        (["http://h/v2"], "is no node's URL"),
        (["nothing-like-it"], "unknown profile 'nothing-like-it'"),
        (["http://127.0.0.1:1"], "does not answer /v1/models"),
        (["tiny-cpu", "--profile", "tiny-cpu"], "two profiles are given"),
        (["http://h:1", "--url", "http://i:1"], "--url belongs to a profile"),
        (["http://h:1", "--load", "other"], "--load 'other': expected one of auto, own, vllm"),
        (["http://h:1", "--users", "1", "--rate", "1"], "--users is a closed loop, --rate an open one"),
        (["http://h:1", "--users", "1.5"], "--users '1.5': expected whole numbers"),
        (["http://h:1", "--workload", "talk"], "unknown workload 'talk'"),
        (["http://h:1", "--save", "--profiles", "."], "--save needs to know what the node runs"),
        (["tiny-cpu", "--vllm-program", "vllm 'x"], "--vllm-program"),
        (["tiny-cpu", "--vllm-program", ""], "--vllm-program is empty"),
        (["tiny-cpu", "--save"], "--save needs a folder of your own profiles"),
    ],
)
def test_what_is_asked_wrongly_is_told(words: list[str], told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FLEETGATE_WORKER_PROFILES", raising=False)
    done = CliRunner().invoke(app, ["bench", *words])
    assert done.exit_code == 2
    assert told in " ".join(done.stderr.split())
