"""Does the probe find a cache that changes answers, and leave alone what is none."""

from collections.abc import Sequence
from typing import Any

import httpx
import pytest

from tests.workers.bench.servers import Token, scripted_node
from workers.bench.exact import Exact, compare
from workers.bench.node import look_at
from workers.bench.probe import QUESTIONS, Finding, ProbeRun, probe
from workers.fake import FakeSettings, Fault, serve_fake

SURE: Sequence[Token] = [(number, 3.0) for number in range(48)]
UNSURE: Sequence[Token] = [*SURE[:7], (7, 0.1), *SURE[8:]]


def parted(tokens: Sequence[Token], place: int, margin: float) -> Sequence[Token]:
    return [*tokens[:place], (999, margin), *tokens[place + 1 :]]


async def probed(url: str, seconds: float = 60.0) -> list[Finding]:
    async with httpx.AsyncClient(base_url=url, trust_env=False) as client:
        return await probe(ProbeRun(client, await look_at(client, url, None), "run", seconds))


class Cache:
    """Cold: `cold` (the second time `again`), warm: `warm`."""

    def __init__(self, cold: Sequence[Token], warm: Sequence[Token], again: Sequence[Token] | None = None) -> None:
        self._tokens = {True: warm, False: cold}
        self._again = cold if again is None else again
        self._seen: set[str] = set()

    def __call__(self, body: dict[str, Any]) -> tuple[Sequence[Token], int | None]:
        salt = body["cache_salt"]
        is_warm = salt in self._seen
        self._seen.add(salt)
        if not is_warm and salt.endswith("-b"):
            return self._again, 0
        return self._tokens[is_warm], 1024 if is_warm else 0


async def test_a_node_with_a_right_cache_is_equal_throughout() -> None:
    async with serve_fake(FakeSettings(rate=400, prefill_rate=4000, max_model_len=2048)) as node:
        findings = await probed(node.url)
    assert {finding.verdict for finding in findings} == {"equal"}
    assert len(findings) == len(QUESTIONS) + 2
    assert "tokens cached" in findings[0].told
    assert "of prefill beside it" in findings[-1].told


@pytest.mark.parametrize(
    ("cold", "warm", "again", "verdict"),
    [
        (SURE, SURE, None, "equal"),
        (SURE, parted(SURE, 7, 3.0), None, "WRONG"),
        (SURE, parted(SURE, 7, 0.1), None, "WRONG"),  # it was sure, and is not any more
        (UNSURE, parted(UNSURE, 7, 3.0), None, "WRONG"),
        (UNSURE, parted(UNSURE, 7, 0.1), None, "near tie"),
        (SURE, parted(SURE, 7, 3.0), parted(SURE, 3, 3.0), "not shown"),  # cold answers part sooner: not deterministic
        (SURE, parted(SURE, 7, 3.0), parted(SURE, 9, 3.0), "WRONG"),
        (SURE, SURE[:40], None, "WRONG"),
    ],
)
async def test_a_cache_that_changes_answers_is_found(
    cold: Sequence[Token], warm: Sequence[Token], again: Sequence[Token] | None, verdict: str
) -> None:
    with scripted_node(Cache(cold, warm, again)) as node:
        findings = await probed(node.url)
    assert [finding.verdict for finding in findings[: len(QUESTIONS)]] == [verdict] * len(QUESTIONS)


async def test_without_a_hit_nothing_is_shown() -> None:
    with scripted_node(lambda body: (SURE, None)) as node:
        findings = await probed(node.url)
    assert findings[0] == Finding(
        "prefix cache 1", "not shown", "the second asking found nothing in the cache: is prefix caching on?"
    )


async def test_an_answer_that_changes_beside_a_long_prompt_is_found() -> None:
    def reply(body: dict[str, Any]) -> tuple[Sequence[Token], int | None]:
        return (parted(SURE, 5, 2.0) if body["cache_salt"] == "run-long-b" else SURE), 100

    with scripted_node(reply) as node:
        *_, short, long = await probed(node.url)
    assert short.verdict in ("equal", "not shown")  # the scripted node answers at once: they may not have met
    assert long.verdict in ("WRONG", "not shown")


@pytest.mark.parametrize("fault", [Fault("status", status=500), Fault("die", after=3), Fault("error_event", after=3)])
async def test_a_question_that_fails_is_a_finding(fault: Fault) -> None:
    async with serve_fake(FakeSettings(max_model_len=2048, faults=(fault,))) as node:
        findings = await probed(node.url)
    assert {finding.verdict for finding in findings} == {"not shown"}
    assert all(finding.told.startswith("a request failed: ") for finding in findings)


def test_a_shorter_answer_is_a_difference() -> None:
    assert compare(Exact(["1", "2"]), Exact(["1", "2"])) is None
    difference = compare(Exact(["1", "2"], [1.0, 2.0]), Exact(["1"], [1.0]))
    assert difference is not None and (difference.place, difference.margin) == (1, 2.0)
    untold = compare(Exact(["1"]), Exact(["2"]))
    assert untold is not None and not untold.is_near_tie
