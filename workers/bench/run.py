"""One bench from its first question to its last: looks at the node, climbs each ladder, asks the probe's questions."""

import asyncio
import os
import secrets
import shlex
import shutil
import signal
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from workers.bench.ladder import EVERY_GPU, FirstThatWorks, GpuRounds, LoadMaker, Rung, climb
from workers.bench.launched import Launched, read_launched
from workers.bench.node import MeasuredNode, look_at
from workers.bench.own_load import OwnLoad
from workers.bench.pages import get_page
from workers.bench.probe import Finding, ProbeRun, probe
from workers.bench.settings import Settings, steps_of
from workers.bench.vllm_load import VllmLoad
from workers.errors import ConfigError
from workers.gpus.telemetry import VISIBLE
from workers.profile import Profile

CONNECTIONS = httpx.Limits(max_connections=None, max_keepalive_connections=512)
API_KEY = "VLLM_API_KEY"
Say = Callable[[str], None]


@dataclass(slots=True)
class Found:
    """What a bench has so far; it stays when the bench is interrupted. `gpus`: how many of this machine were read."""

    node: MeasuredNode | None = None
    launched: Launched | None = None
    gpus: int = 0
    how: str = ""
    rungs: list[Rung] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What was asked for. `load`: auto, own or vllm; `until`: the monotonic second behind which no load may end."""

    url: str
    model: str | None
    profile: Profile | None
    settings: Settings
    load: str
    program: Sequence[str]
    tokenizer: str | None
    probes: bool
    until: float


async def run_bench(wanted: Wanted, found: Found, say: Say) -> None:
    """Fill `found`. Raises NodeFailed, ConfigError; SIGTERM cancels it."""
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    key, run, gpus = os.environ.get(API_KEY), secrets.token_hex(4), GpuRounds()
    with ExitStack() as stack:
        async with httpx.AsyncClient(
            base_url=wanted.url,
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=httpx.Timeout(wanted.settings.timeout, connect=10.0, pool=None),
            limits=CONNECTIONS,
            trust_env=False,
        ) as client:
            node = found.node = await look_at(client, wanted.url, wanted.model)
            await _introduce(client, node, say)
            steps = steps_of(wanted.settings, node, run)
            maker, why = _maker(wanted, client, node, run, say)
            say(f"load: {maker.name} ({why}); {'open loop' if wanted.settings.rates else 'closed loop'}")
            found.launched = read_launched(node.url) if node.is_here else None
            gpus.watch(stack, node.is_here, *_gpus_of(wanted.profile, found.launched))
            found.gpus = gpus.count
            if gpus.why_not:
                say(f"use of the GPUs is not read: {gpus.why_not}")
            for each in steps.values():
                found.how = maker.name
                await climb(each, maker, gpus, wanted.until, wanted.settings.chosen, found.rungs.append, say)
            found.how = maker.name
            if wanted.probes:
                say("asking the same cold and warm, alone and beside another")
                found.findings += await probe(ProbeRun(client, node, run, wanted.settings.timeout))


async def _introduce(client: httpx.AsyncClient, node: MeasuredNode, say: Say) -> None:
    version = f"vLLM {node.version}" if node.version else "a server that does not tell its version"
    say(f"{node.url} serves {node.model}: {version}, {node.context:,} tokens of context")
    if not node.counts_words:
        say(f"/tokenize does not answer: a word is taken to be {node.per_word:g} tokens")
    page = await get_page(client)
    if page is None:
        say("no /metrics: prefix hits, MTP and preemptions are not known")
    elif page.requests:
        say(f"the node has {page.requests} other requests now: the figures will not be its own alone")


def _gpus_of(profile: Profile | None, launched: Launched | None) -> tuple[str | None, int]:
    """CUDA_VISIBLE_DEVICES of the node, and how many GPUs it has on a machine."""
    environment = os.environ if launched is None else launched.environment
    return environment.get(VISIBLE), EVERY_GPU if profile is None else profile.hardware.gpus_per_node


def _maker(wanted: Wanted, client: httpx.AsyncClient, node: MeasuredNode, run: str, say: Say) -> tuple[LoadMaker, str]:
    """What sends the load, and why it. Raises ConfigError where vLLM's bench is wanted and cannot be."""
    own = OwnLoad(client, node.model, run)
    if wanted.load == "own":
        return own, "--load own"
    program, named = wanted.program, shlex.join(wanted.program)
    folder = Path(node.root)  # a repository's name is no path of ours
    tokenizer = wanted.tokenizer or (node.root if node.is_here and folder.is_absolute() and folder.is_dir() else None)
    missing = "" if tokenizer is not None else "no tokenizer is known: --tokenizer FOLDER"
    if shutil.which(program[0]) is None:
        missing = f"there is no program {named!r}"
    if missing and wanted.load == "vllm":
        raise ConfigError(f"--load vllm: {missing}")
    if missing or tokenizer is None:
        return own, f"vllm bench serve: {missing}"
    vllm = VllmLoad(client, node.url, node.model, program, tokenizer)
    why = f"{named}, tokenizer {tokenizer}"
    return (vllm if wanted.load == "vllm" else FirstThatWorks(vllm, own, say)), why
