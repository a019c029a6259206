"""The load itself, on fake nodes: closed and open, with failures, and broken off."""

import asyncio
import json
import re
import socket
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.gateways import eventually
from workers.bench.answers import LONGEST_LINE, Answer, ask, body_of
from workers.bench.figures import Figures, make_figures
from workers.bench.ladder import FirstThatWorks, GpuRounds, Rung, Step, climb
from workers.bench.load import Driver, Heard, Load
from workers.bench.own_load import OwnLoad
from workers.bench.vllm_load import VllmLoad
from workers.bench.workloads import Asker, Lengths, Question, Shape, ShapedAsker
from workers.errors import NodeFailed
from workers.fake import FakeSettings, Fault, serve_fake

MODEL = "nemotron-3-ultra"
SMALL = Shape("chat", 200, 20, 0.7)


def load(users: int | None = 3, rate: float | None = None, window: float = 0.5, **more: Any) -> Load:
    return Load(users, rate, ramp=0.1, window=window, requests=more.pop("requests", 10_000), timeout=30.0, **more)


async def drive(url: str, what: Load, asker: Asker | None = None) -> Heard:
    async with httpx.AsyncClient(base_url=url, trust_env=False) as client:
        return await Driver(client, MODEL, asker or ShapedAsker(SMALL, "run", 1.0), what, "seed").run()


async def test_a_closed_loop_keeps_its_users_busy() -> None:
    async with serve_fake(FakeSettings(rate=400, prefill_rate=20_000)) as node:
        heard = await drive(node.url, load(3, window=60.0, requests=20))
        await eventually(lambda: node.running == 0)
    figures = make_figures(heard)
    assert figures.failures == () and figures.whole + figures.cut == 20
    assert figures.cut == sum(not answer.whole for answer in heard.answers) <= 3
    assert figures.node.generated is not None and figures.node.hit_rate is not None
    assert 0.4 < figures.node.hit_rate < 0.95
    within = [answer for answer in heard.answers if answer.whole]
    assert all(answer.tokens == SMALL.output_tokens for answer in within)
    assert all(answer.prompt_tokens and answer.prompt_tokens > 150 for answer in within)


async def test_the_bound_on_requests_ends_a_load() -> None:
    async with serve_fake(FakeSettings()) as node:
        heard = await drive(node.url, load(2, window=60.0, requests=6))
    assert heard.ended == "no more requests"
    assert len(heard.answers) == 6


async def test_an_open_loop_sends_whether_answers_come_or_not() -> None:
    async with serve_fake(FakeSettings(max_num_seqs=1, rate=5)) as node:
        heard = await drive(node.url, load(None, rate=200.0, in_flight=40))
        await eventually(lambda: node.running + node.waiting == 0)
    assert len(heard.answers) == 40
    assert heard.in_flight == 40 - sum(answer.whole for answer in heard.answers)
    assert heard.unsent > 20, "what the bound kept back is counted"


class Times:
    """Questions at given seconds."""

    told = "times"
    lengths = Lengths(1, 4, None)

    def __init__(self, *at: float) -> None:
        self._at = list(at)

    def warm_up(self, user: int) -> Question | None:
        return None

    def next(self, user: int) -> Question | None:
        return Question("Hello", 4, self._at.pop(0)) if self._at else None


async def test_a_trace_comes_at_its_own_times() -> None:
    async with serve_fake(FakeSettings()) as node:
        heard = await drive(node.url, load(None, rate=1.0, window=60.0), Times(7.0, 7.0, 7.3))
    first, second, third = (answer.sent for answer in heard.answers)
    assert second - first < third - first
    assert third - first >= 0.29


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        (Fault("status", status=503), "HTTP 503: "),
        (Fault("status", status=429), "HTTP 429: "),
        (Fault("die", after=3), "RemoteProtocolError"),
        (Fault("eof", after=3), "the stream ended without [DONE]"),
        (Fault("error_event", after=3), "an error event: "),
        (Fault("garbage"), "RemoteProtocolError"),
    ],
)
async def test_a_failed_request_is_counted_and_told(fault: Fault, told: str) -> None:
    async with serve_fake(FakeSettings()) as node:
        node.set_faults(fault)
        heard = await drive(node.url, load(4, window=60.0), ShapedAsker(Shape("chat", 50, 20, 0.0), "run", 1.0))
    figures = make_figures(heard)
    assert figures.whole == 0 and figures.failed >= 10
    assert figures.failures[0][0].startswith(told)
    assert re.fullmatch(r"the first 1\d requests failed", heard.ended)


async def test_a_node_that_is_gone_is_told() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        heard = await drive(f"http://127.0.0.1:{taken.getsockname()[1]}", load(4, window=60.0))
    assert make_figures(heard).failures[0][0].startswith("ConnectError")


async def test_a_node_that_never_answers_is_a_failure_in_time() -> None:
    async with serve_fake(FakeSettings(faults=(Fault("hang"),))) as node:
        answer = Answer(0.0)
        async with httpx.AsyncClient(base_url=node.url, trust_env=False) as client:
            await ask(client, body_of(Question("Hello", 4), MODEL), 0.2, answer)
    assert answer.failure == "no whole answer within 0.2 s"


async def answered(text: str, status: int = 200) -> Answer:
    transport = httpx.MockTransport(lambda request: httpx.Response(status, text=text))
    answer = Answer(0.0)
    async with httpx.AsyncClient(base_url="http://node", transport=transport) as client:
        await ask(client, {}, 5.0, answer)
    return answer


async def test_a_line_without_an_end_is_told_and_not_kept() -> None:
    answer = await answered("data: " + "x" * (LONGEST_LINE + 10))
    assert answer.failure == f"EndlessLine: a line of more than {LONGEST_LINE:,} bytes"


@pytest.mark.parametrize(
    "text", ['{"error": {"message": "\\u001b[2Jgone"}}', "\x1b[2Jgone", '{"error": "\\u001b[2Jgone"}']
)
async def test_what_a_node_says_does_nothing_to_a_terminal(text: str) -> None:
    assert (await answered(text, 500)).failure == "HTTP 500:  [2Jgone"


async def test_an_error_of_thousands_of_brackets_is_told_as_it_is() -> None:
    failure = (await answered("[" * 5000, 500)).failure
    assert failure is not None and failure.startswith("HTTP 500: [[[")


@pytest.mark.parametrize(
    ("event", "told"),
    [
        ("{", "an event that is no chunk: {"),
        ("[" * 5000, "an event that is no chunk: [["),
        ("[]", "an event that is no chunk"),
        ('{"choices": [7]}', "an event that is no chunk"),
        ('{"choices": null, "usage": {"prompt_tokens_details": 7}}', "an event that is no chunk"),
        ("[DONE]", "an answer without a token"),
    ],
)
async def test_events_that_are_none_are_told(event: str, told: str) -> None:
    answer = await answered(f"data: {event}\n\n")
    assert answer.failure is not None and answer.failure.startswith(told)


async def test_an_interrupted_load_keeps_what_it_heard() -> None:
    kept: list[Figures] = []
    async with serve_fake(FakeSettings(rate=300)) as node:
        async with httpx.AsyncClient(base_url=node.url, trust_env=False) as client:
            maker = OwnLoad(client, MODEL, "run")
            asker = ShapedAsker(SMALL, "run", 1.0)
            task = asyncio.create_task(maker.measure(load(2, window=60.0), asker, GpuRounds(), kept.append))
            await eventually(lambda: node.stats.requests["/v1/chat/completions"] > 6)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await eventually(lambda: node.running == 0)
    assert kept[0].whole > 0
    assert any("interrupted" in remark for remark in kept[0].remarks)


class Speeds:
    """A load that gives these output tokens a second, or fails this share of its requests."""

    name = "speeds"

    def __init__(self, *speeds: float, failed: int = 0) -> None:
        self.left = list(speeds)
        self._failed = failed

    async def measure(self, load: Load, asker: Asker, gpus: GpuRounds, keep: Callable[[Figures], None]) -> None:
        heard = Heard(load, [Answer(0.0, failure="x") for _ in range(self._failed)], since=0.0, until=1.0)
        heard.answers.append(Answer(0.0, [0.5], counted=round(self.left.pop(0)), whole=True))
        keep(make_figures(heard))


async def climbed(maker: Speeds, chosen: bool = False, until: float = float("inf")) -> tuple[list[Rung], list[str]]:
    rungs: list[Rung] = []
    said: list[str] = []
    steps = [Step("chat", load(users), lambda: ShapedAsker(SMALL, "run", 1.0)) for users in (1, 2, 4, 8)]
    await climb(steps, maker, GpuRounds(), until, chosen, rungs.append, said.append)
    return rungs, said


async def test_a_ladder_ends_where_a_heavier_load_brings_nothing() -> None:
    rungs, said = await climbed(Speeds(100, 190, 191, 500))
    assert len(rungs) == 3
    assert said[-1] == "chat: a heavier load brings no more; the rest is left out"
    assert len((await climbed(Speeds(100, 190, 191, 500), chosen=True))[0]) == 4


async def test_a_ladder_ends_where_requests_fail_and_where_time_is_over() -> None:
    rungs, said = await climbed(Speeds(1, 2, 3, 4, failed=1), chosen=True)
    assert len(rungs) == 1 and said[-1].startswith("chat: 1 of 2 requests failed")
    rungs, said = await climbed(Speeds(1), until=0.0)
    assert rungs == [] and "no time is left" in said[0]


RESULT = {  # as vllm bench serve 0.32 wrote it on the CPU node, times rounded
    "duration": 2.0,
    "completed": 3,
    "failed": 1,
    "total_input_tokens": 320,
    "total_output_tokens": 120,
    "errors": ["", "", "Traceback: Service Unavailable", ""],
    "p50_ttft_ms": 274.4,
    "p99_ttft_ms": 370.5,
    "p50_tpot_ms": 20.0,
    "p99_tpot_ms": 25.0,
    "p50_itl_ms": 19.0,
    "p99_itl_ms": 31.0,
}
PROGRAM = """#!/bin/sh
while [ $# -gt 1 ]; do
  case "$1" in --result-dir) dir="$2";; --dataset-path) cp "$2" "{folder}/asked";; esac
  echo "$1 $2" >> "{folder}/words"
  shift
done
{body}
"""


def program(folder: Path, body: str) -> str:
    file = folder / "vllm"
    file.write_text(PROGRAM.format(folder=folder, body=body))
    file.chmod(file.stat().st_mode | stat.S_IEXEC)
    return str(file)


async def test_vllms_own_bench_is_run_with_our_questions(tmp_path: Path) -> None:
    (tmp_path / "made.json").write_text(json.dumps(RESULT))
    words = program(tmp_path, f'cp {tmp_path}/made.json "$dir/result.json"')
    kept: list[Figures] = []
    async with serve_fake(FakeSettings()) as node:
        async with httpx.AsyncClient(base_url=node.url, trust_env=False) as client:
            maker = VllmLoad(client, node.url, MODEL, [words], "/models/x")
            await maker.measure(load(2), ShapedAsker(SMALL, "run", 1.0), GpuRounds(), kept.append)
        warmed = node.stats.requests["/v1/chat/completions"]
    (figures,) = kept
    assert (figures.tokens_in, figures.tokens_out, figures.whole) == (160.0, 60.0, 3)
    assert figures.failures == (("Traceback: Service Unavailable", 1),)
    assert figures.ttft == (0.2744, 0.3705) and figures.itl == (0.019, 0.031) and figures.user_rate == 50.0
    assert warmed == 2, "what the users have sent before is sent before"
    asked = [json.loads(line) for line in (tmp_path / "asked").read_text().splitlines()]
    assert len(asked) == 8 and all(each["output_tokens"] == SMALL.output_tokens for each in asked)
    said = (tmp_path / "words").read_text()
    for pair in (f"--base-url {node.url}", "--max-concurrency 2", "--num-prompts 8", "--tokenizer /models/x"):
        assert pair in said


@pytest.mark.parametrize(
    ("body", "told"),
    [("echo no pandas; exit 3", "ended with code 3(.|\n)*no pandas"), ("echo odd", "left no result(.|\n)*odd")],
)
async def test_where_vllms_bench_breaks_off_ours_goes_on(tmp_path: Path, body: str, told: str) -> None:
    words = program(tmp_path, body)
    kept: list[Figures] = []
    said: list[str] = []
    async with serve_fake(FakeSettings(rate=400)) as node:
        async with httpx.AsyncClient(base_url=node.url, trust_env=False) as client:
            vllm = VllmLoad(client, node.url, MODEL, [words], "/models/x")
            asker = ShapedAsker(SMALL, "run", 1.0)
            with pytest.raises(NodeFailed, match=told):
                await vllm.measure(load(1), asker, GpuRounds(), kept.append)
            maker = FirstThatWorks(vllm, OwnLoad(client, MODEL, "run"), said.append)
            await maker.measure(load(1), asker, GpuRounds(), kept.append)
    assert kept[0].whole > 0
    assert maker.name == "our own asyncio and httpx client"
    assert said[0].endswith("our own asyncio and httpx client instead")


def exists(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


async def test_vllms_bench_ends_with_ours(tmp_path: Path) -> None:
    words = program(tmp_path, f"echo $$ > {tmp_path}/pid; exec sleep 600")
    async with serve_fake(FakeSettings()) as node, httpx.AsyncClient(base_url=node.url, trust_env=False) as client:
        vllm = VllmLoad(client, node.url, MODEL, [words], "/models/x")
        asker = ShapedAsker(SMALL, "run", 1.0)
        task = asyncio.create_task(vllm.measure(load(1), asker, GpuRounds(), lambda figures: None))
        await eventually(lambda: (tmp_path / "pid").exists() and bool((tmp_path / "pid").read_text().strip()))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert not exists(int((tmp_path / "pid").read_text()))
