"""The load of vLLM's own `vllm bench serve`, with our questions as its dataset.

It counts otherwise than ours: all requests from the first one sent to the last one answered, its start and its end
included, and it waits for every answer. It asks /v1/completions, whose every token is text, since its chat client
takes no notice of thinking.
"""

import asyncio
import contextlib
import json
import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx

from workers.bench.answers import SHOWN, Answer, ask, body_of, printable
from workers.bench.figures import Figures, GpuUse
from workers.bench.ladder import GpuRounds
from workers.bench.load import Load
from workers.bench.pages import NodeCounts, counts_between, get_page
from workers.bench.workloads import Asker, Question
from workers.errors import NodeFailed

ROUNDS = 4
"""Requests of each user, as far as the bound on requests allows."""
START_SECONDS = 180.0
END_SECONDS = 10.0
LAST_LINES = 6


class VllmLoad:
    """Runs `program bench serve` for each load. `tokenizer`: the model's folder or repository, to count tokens with."""

    name = "vllm bench serve"

    def __init__(self, client: httpx.AsyncClient, url: str, model: str, program: Sequence[str], tokenizer: str) -> None:
        self._client = client
        self._url = url
        self._model = model
        self._program = tuple(program)
        self._tokenizer = tokenizer
        key = os.environ.get("VLLM_API_KEY")
        self._environment = {**os.environ, **({"OPENAI_API_KEY": key} if key else {})}  # as its client calls it

    async def measure(self, load: Load, asker: Asker, gpus: GpuRounds, keep: Callable[[Figures], None]) -> None:
        """Run one load. Raises NodeFailed with the end of its output where it breaks off."""
        questions = list(_questions(load, asker))
        with TemporaryDirectory(prefix="fleetgate-bench-") as name:
            folder = Path(name)
            lines = [json.dumps({"prompt": q.prompt, "output_tokens": q.output_tokens}) for q in questions]
            (folder / "questions.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
            await self._warm_up(load, asker)
            before, since = await get_page(self._client), time.monotonic()
            output = await self._run(self._words(load, folder, len(questions)), load, folder)
            until, after = time.monotonic(), await get_page(self._client)
            try:
                result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
            except (OSError, ValueError, RecursionError) as error:
                raise NodeFailed(f"vllm bench serve left no result: {error}. Its last lines:\n{output}") from error
        since = max(since, until - float(result.get("duration") or 0.0))
        keep(_figures(load, result, gpus.use(since, until), counts_between(before, after)))

    async def _warm_up(self, load: Load, asker: Asker) -> None:
        """Send what the users have sent before, as our own load does. What fails here fails again in the load."""
        questions = [asker.warm_up(user) for user in range(load.users or 0)]
        bodies = [body_of(question, self._model) for question in questions if question is not None]
        now = time.monotonic()
        await asyncio.gather(*[ask(self._client, body, load.timeout, Answer(now)) for body in bodies])

    def _words(self, load: Load, folder: Path, count: int) -> list[str]:
        words = [*self._program, "bench", "serve", "--backend", "openai", "--base-url", self._url]
        words += ["--model", self._tokenizer, "--served-model-name", self._model, "--tokenizer", self._tokenizer]
        words += ["--dataset-name", "custom", "--dataset-path", str(folder / "questions.jsonl"), "--disable-shuffle"]
        words += ["--custom-output-len", "-1", "--num-prompts", str(count), "--ignore-eos", "--disable-tqdm"]
        words += ["--percentile-metrics", "ttft,tpot,itl", "--metric-percentiles", "50,99"]
        words += ["--save-result", "--save-detailed", "--result-dir", str(folder), "--result-filename", "result.json"]
        if load.users is not None:
            return [*words, "--max-concurrency", str(load.users), "--request-rate", "inf"]
        return [*words, "--request-rate", f"{load.rate:g}"]

    async def _run(self, words: Sequence[str], load: Load, folder: Path) -> str:
        """Run the command, bounded in time. Returns the end of its output."""
        log = folder / "output"
        with log.open("wb") as output:
            try:
                process = await asyncio.create_subprocess_exec(
                    *words,
                    stdout=output,
                    stderr=asyncio.subprocess.STDOUT,
                    start_new_session=True,
                    env=self._environment,
                )
            except OSError as error:
                raise NodeFailed(f"cannot start {words[0]}: {error}") from error
            try:
                async with asyncio.timeout(START_SECONDS + load.ramp + load.window + load.timeout):
                    code = await process.wait()
            except TimeoutError as error:
                raise NodeFailed(f"vllm bench serve did not end in time. Its last lines:\n{_end_of(log)}") from error
            finally:
                await _end(process)
        if code != 0:
            raise NodeFailed(f"vllm bench serve ended with code {code}. Its last lines:\n{_end_of(log)}")
        return _end_of(log)


async def _end(process: asyncio.subprocess.Process) -> None:
    """End it with everything that it started."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        if process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(process.wait(), END_SECONDS)


def _end_of(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    return "\n".join(f"    {printable(line)}" for line in lines[-LAST_LINES:])


def _questions(load: Load, asker: Asker) -> Sequence[Question]:
    """As many as the load has time for: `ROUNDS` of each user, or the arrivals of its window."""
    users = load.users or 1
    wanted = ROUNDS * users if load.users else round((load.rate or 1.0) * (load.ramp + load.window))
    found: list[Question] = []
    while len(found) < max(1, min(wanted, load.requests)):
        question = asker.next(len(found) % users)
        if question is None:
            break
        found.append(question)
    return found


def _figures(load: Load, result: Mapping[str, Any], gpus: GpuUse, counts: NodeCounts) -> Figures:
    seconds = max(float(result.get("duration") or 0.0), 1e-9)
    errors = [printable(" ".join(str(each).split())[-SHOWN:]) for each in result.get("errors") or () if each]
    failed = int(result.get("failed") or 0)
    failures: dict[str, int] = {}
    for error in errors:
        failures[error] = failures.get(error, 0) + 1
    if failed > len(errors):
        failures["not told by vllm bench serve"] = failed - len(errors)
    tpot = _milliseconds(result, "p50_tpot_ms")
    return Figures(
        load=load.told,
        users=load.users,
        rate=load.rate,
        seconds=seconds,
        whole=int(result.get("completed") or 0),
        failures=tuple(failures.items()),
        cut=0,
        unsent=0,
        tokens_in=float(result.get("total_input_tokens") or 0) / seconds,
        tokens_out=float(result.get("total_output_tokens") or 0) / seconds,
        ttft=(_milliseconds(result, "p50_ttft_ms"), _milliseconds(result, "p99_ttft_ms")),
        itl=(_milliseconds(result, "p50_itl_ms"), _milliseconds(result, "p99_itl_ms")),
        user_rate=1 / tpot if tpot else None,
        node=counts,
        gpus=gpus,
    )


def _milliseconds(result: Mapping[str, Any], name: str) -> float | None:
    """As seconds; None where nothing was measured (vLLM writes 0)."""
    value = result.get(name)
    return float(value) / 1000 if isinstance(value, (int, float)) and value > 0 else None
