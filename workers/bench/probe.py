"""Does the node's cache, or the cutting of prompts into chunks, change its answers?

Each question is asked cold twice (two salts, so that neither finds the other's prefix), then warm. Cold and cold
differ where the node is not deterministic: then warm can prove nothing. Where they agree and warm parts from them, the
cache is wrong, unless the two likeliest tokens were about even there (`NEAR_TIE`). Then a long prompt and a short
question, each alone and both at once, so that the long one is computed in chunks between the short one's tokens.
"""

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any, Literal

import httpx

from workers.bench.exact import Difference, Exact, ask_exactly, compare
from workers.bench.node import MeasuredNode
from workers.bench.pages import counts_between, get_page
from workers.bench.prose import write_prose
from workers.errors import NodeFailed

Verdict = Literal["equal", "near tie", "WRONG", "not shown"]
QUESTIONS = (
    "How many rivers does this text name? Say why.",
    "Which person of the text acts most often?",
    "Sum the text up in one sentence.",
)
SHORT_QUESTION = "What is the capital of France? Tell me about it."
ANSWER_TOKENS = 48
LONG_ANSWER_TOKENS = 192
PROMPT_TOKENS = 3000
LONG_PROMPT_TOKENS = 24_000


@dataclass(frozen=True, slots=True)
class Finding:
    """One comparison: what of, its verdict, and what was seen."""

    of: str
    verdict: Verdict
    told: str


@dataclass(frozen=True, slots=True)
class ProbeRun:
    """What all questions of one probe need. `run` makes them new to the cache; `seconds`: for one answer."""

    client: httpx.AsyncClient
    node: MeasuredNode
    run: str
    seconds: float

    async def ask(self, prompt: str, tokens: int, salt: str, begun: asyncio.Event | None = None) -> Exact:
        """One exact answer."""
        wake = begun.set if begun is not None else lambda: None
        return await ask_exactly(self.client, self.node.model, prompt, tokens, f"{self.run}-{salt}", self.seconds, wake)

    def prompt(self, name: str, tokens: int, question: str) -> str:
        """About `tokens` of text with a question behind it."""
        return f"{write_prose(f'{self.run}/{name}', round(tokens / self.node.per_word))}\n\n{question}"


async def probe(run: ProbeRun) -> list[Finding]:
    """All comparisons. A question that fails is a finding, too."""
    findings = []
    for number, question in enumerate(QUESTIONS):
        findings.append(await _told(f"prefix cache {number + 1}", _prefix(run, number, question)))
    return findings + await _chunks(run)


async def _told(of: str, check: Coroutine[Any, Any, Finding]) -> Finding:
    try:
        return await check
    except NodeFailed as error:
        return Finding(of, "not shown", f"a request failed: {error}")


async def _prefix(run: ProbeRun, number: int, question: str) -> Finding:
    of = f"prefix cache {number + 1}"
    prompt = run.prompt(f"probe/{number}", min(PROMPT_TOKENS, run.node.context // 3), question)
    cold = await run.ask(prompt, ANSWER_TOKENS, f"{number}-a")
    again = await run.ask(prompt, ANSWER_TOKENS, f"{number}-b")
    before = await get_page(run.client)
    warm = await run.ask(prompt, ANSWER_TOKENS, f"{number}-a")
    hits = counts_between(before, await get_page(run.client)).hit_rate
    if not warm.cached and not hits:
        return Finding(of, "not shown", "the second asking found nothing in the cache: is prefix caching on?")
    cached = f"{warm.cached:,} tokens cached" if warm.cached else f"{100 * (hits or 0):.0f}% of the prompt cached"
    control, difference = compare(cold, again), compare(cold, warm)
    if difference is None:
        return Finding(of, "equal", f"{len(warm.tokens)} tokens, {cached}")
    if control is not None and control.place <= difference.place:
        return Finding(of, "not shown", f"two cold answers part at token {control.place}: not deterministic here")
    return _judge(of, "cold and warm", difference, cached)


async def _chunks(run: ProbeRun) -> list[Finding]:
    """The short question and the long prompt, alone and beside each other."""
    names = ("short question beside a long prompt", "long prompt beside a short question")
    room = run.node.context - 2 * ANSWER_TOKENS - 128
    long = run.prompt("probe/long", max(64, min(LONG_PROMPT_TOKENS, round(room * 0.85))), QUESTIONS[0])
    try:
        short_alone = await run.ask(SHORT_QUESTION, LONG_ANSWER_TOKENS, "short-a")
        long_alone = await run.ask(long, ANSWER_TOKENS, "long-a")
        short, other = await _beside(run, long)
    except NodeFailed as error:
        return [Finding(name, "not shown", f"a request failed: {error}") for name in names]
    if short.end <= other.sent or (other.first or other.end) <= (short.first or short.end):
        return [Finding(name, "not shown", "they did not run at the same time") for name in names]
    stood = max(0.0, min(short.end, other.first or other.end) - other.sent)
    told = f"{stood:.1f} s of prefill beside it"
    pairs = ((names[0], short_alone, short), (names[1], long_alone, other))
    return [_judge_pair(name, alone, beside, told) for name, alone, beside in pairs]


async def _beside(run: ProbeRun, long: str) -> tuple[Exact, Exact]:
    begun = asyncio.Event()
    task = asyncio.create_task(run.ask(SHORT_QUESTION, LONG_ANSWER_TOKENS, "short-b", begun))
    waiting = asyncio.create_task(begun.wait())
    try:
        await asyncio.wait([task, waiting], return_when=asyncio.FIRST_COMPLETED)
        other = await run.ask(long, ANSWER_TOKENS, "long-b")
        return await task, other
    finally:
        for each in (task, waiting):
            each.cancel()
        await asyncio.gather(task, waiting, return_exceptions=True)


def _judge_pair(of: str, alone: Exact, beside: Exact, told: str) -> Finding:
    difference = compare(alone, beside)
    if difference is None:
        return Finding(of, "equal", f"{len(beside.tokens)} tokens, {told}")
    return _judge(of, "alone and beside", difference, told)


def _judge(of: str, what: str, difference: Difference, told: str) -> Finding:
    if difference.margin is None:
        return Finding(of, "not shown", f"{what} part at token {difference.place}; the node tells no probabilities")
    seen = f"{what} part at token {difference.place}, where the likeliest tokens are {difference.margin:.2f} nats apart"
    return Finding(of, "near tie" if difference.is_near_tie else "WRONG", f"{seen} ({told})")
