"""Coding agents on two real vLLMs: by vLLM's own counters, their prompts are found in caches as often as on one."""

import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.real.conftest import Server
from tests.real.killable import KillableNode
from tests.real.test_routing import WORDS, hit_rate
from tests.real.transparency_cases import MODEL

pytestmark = [pytest.mark.real, pytest.mark.prove]

SESSIONS, TURNS, SUB_TURNS, AT_ONCE = 6, 7, 3, 3
ALLOWED_LOSS = 0.02


@pytest.mark.timeout(1800)
def test_two_nodes_find_as_much_in_their_caches_as_one(vllm: Server, second: KillableNode, tmp_path: Path) -> None:
    second.up()
    nodes = [vllm, Server(second.url)]
    rates = {}
    for name, used in (("one", nodes[:1]), ("two", nodes)):
        folder = tmp_path / name
        folder.mkdir()
        rates[name] = hit_rate("expected_wait", used, folder, lambda url, run=name: _play(url, run))  # type: ignore[misc]
    print(f"prefix cache hits of coding agents: {rates['one']:.3f} on one node, {rates['two']:.3f} on two")
    assert rates["two"] >= rates["one"] - ALLOWED_LOSS


def _play(url: str, run: str) -> None:
    """All sessions, `AT_ONCE` of them at a time."""
    with ThreadPoolExecutor(AT_ONCE) as threads:
        list(threads.map(lambda number: _Session(url, run, number).run(), range(SESSIONS)))


class _Session:
    """A session as Claude Code 2.1.90 has them: a main agent that calls tools, and a sub-agent half-way. All sessions
    of a run have the same prompts; their folders, tasks and results differ, and so does each request's attribution."""

    def __init__(self, url: str, run: str, number: int) -> None:
        self._url = url
        self._run = run
        self._dice = random.Random(f"{run} {number}")
        self._name = f"{run}-{number}"

    def run(self) -> None:
        with httpx.Client(timeout=300, trust_env=False) as client:
            main = self._opening()
            for turn in range(TURNS):
                self._ask(client, f"{self._run} You are an agent. {_prompt(self._run, 350)}", main)
                if turn == TURNS // 2:
                    sub = self._opening()
                    for _ in range(SUB_TURNS):
                        self._ask(client, f"{self._run} You look for things. {_prompt(self._run + 'sub', 200)}", sub)

    def _opening(self) -> list[dict[str, Any]]:
        date = "<system-reminder>\n# currentDate\nToday's date is 2026-11-30.\n</system-reminder>"
        texts = (date, f"{self._name} {self._words(60)}")
        return [{"role": "user", "content": [{"type": "text", "text": text} for text in texts]}]

    def _ask(self, client: httpx.Client, prompt: str, messages: list[dict[str, Any]]) -> None:
        """One turn; its answer, and the result of the tool that it might have called, are added."""
        attribution = f"x-anthropic-billing-header: cc_version=2.1.90.232; cch={self._dice.randrange(16**5):05x};"
        system = [{"type": "text", "text": text} for text in (attribution, prompt)]
        body = {"model": MODEL, "system": system, "messages": messages, "max_tokens": 4, "stream": True}
        headers = {"x-claude-code-session-id": self._name, "anthropic-version": "2023-06-01"}
        answer = client.post(f"{self._url}/v1/messages", json=body, headers=headers)
        assert answer.status_code == 200 and "message_stop" in answer.text, answer.text
        messages.append({"role": "assistant", "content": "So it is."})
        messages.append({"role": "user", "content": self._words(100)})

    def _words(self, count: int) -> str:
        return " ".join(self._dice.choices(WORDS, k=count))


def _prompt(seed: str, words: int) -> str:
    return " ".join(random.Random(seed).choices(WORDS, k=words))
