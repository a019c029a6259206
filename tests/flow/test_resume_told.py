"""What is told of an answer that broke off: its line in the log, metrics, the state of the fleet, and one usage."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx

from gateway.core.telemetry.request_stats import RequestStats
from gateway.telemetry.logs import log_fields
from tests.support.gateways import RunningGateway, eventually, running_gateway
from tests.support.nodes import MODEL
from workers.fake import FakeNode, FakeSettings, Fault, serve_fake

CHAT = {"model": MODEL, "stream": True, "messages": [{"role": "user", "content": "Tell me about Paris."}]}


class Stage:
    """Two nodes, a gateway, and the facts of the requests that ended."""

    def __init__(self, nodes: list[FakeNode], gateway: RunningGateway, client: httpx.AsyncClient) -> None:
        self.nodes = nodes
        self.names = {node.url.removeprefix("http://") for node in nodes}
        self.client = client
        self.ended: list[RequestStats] = []
        self._gateway = gateway
        pipeline = gateway.app.pipeline
        pipeline._observers = (*pipeline._observers, self.ended.append)

    def fault(self, *faults: Fault) -> None:
        for node in self.nodes:
            node.set_faults(*faults)

    async def ask(self) -> RequestStats:
        """One stream, read to its end."""
        before = len(self.ended)
        async with self.client.stream("POST", "/v1/chat/completions", json=CHAT) as answer:
            async for _ in answer.aiter_raw():
                pass
        await eventually(lambda: len(self.ended) > before)
        return self.ended[-1]

    def metrics(self) -> dict[str, float]:
        """Samples with a value, without their model."""
        lines = [line for line in self._gateway.app.metrics.page().decode().splitlines() if not line.startswith("#")]
        short = [line.replace(f',model="{MODEL}"', "").replace(f'{{model="{MODEL}"}}', "") for line in lines]
        pairs = [line.rsplit(" ", 1) for line in short]
        return {name: float(value) for name, value in pairs if float(value)}

    async def fleet(self) -> dict[str, Any]:
        async with httpx.AsyncClient(trust_env=False) as client:
            shown: dict[str, Any] = (await client.get(f"{self._gateway.admin_url}/admin/fleet")).json()
            return shown


@asynccontextmanager
async def stage() -> AsyncIterator[Stage]:
    settings = FakeSettings(thinking_tokens=8, answer_tokens=8)
    async with serve_fake(settings) as one, serve_fake(settings) as two:
        chosen: dict[str, Any] = {"budgets": {"canary": True}, "health": {"interval": 0.05, "failures": 1000}}
        async with (
            running_gateway(one.url, two.url, **chosen) as gateway,
            httpx.AsyncClient(base_url=gateway.url, timeout=30, trust_env=False) as client,
        ):
            known = gateway.app.fleet.nodes
            await eventually(lambda: all(node.capabilities.marker_shown is not None for node in known))
            yield Stage([one, two], gateway, client)


async def test_a_resumed_answer_is_told_everywhere_and_charged_once() -> None:
    async with stage() as on:
        whole = await on.ask()
        assert whole.resumes == () and log_fields(whole)["resumes"] is None and whole.usage is not None
        on.fault(Fault("die", after=5, next=1, path="/v1/chat"))
        stats = await on.ask()
        assert (stats.ending, stats.attempts, stats.lost, stats.estimated) == ("ok", 2, 0, False)
        assert stats.usage is not None
        assert stats.usage.counts()[:3] == whole.usage.counts()[:3], (
            "input, output and reasoning of the unbroken answer"
        )
        [note] = stats.resumes
        assert {note.source, note.target} == on.names and stats.node == note.target
        assert (note.cause, note.outcome) == ("cut", "resumed")
        assert 0 < note.token < whole.usage.output and note.pause is not None and note.pause > 0
        assert note.recomputed is not None and note.recomputed > 0
        line: Any = json.loads(json.dumps(log_fields(stats)))["resumes"]
        assert [(each["from"], each["to"], each["token"]) for each in line] == [(note.source, note.target, note.token)]
        found = on.metrics()
        assert found['fleetgate_resumes_total{cause="cut",outcome="resumed"}'] == 1
        assert found["fleetgate_resume_pause_seconds_count"] == 1
        assert found["fleetgate_recomputed_tokens_total"] == note.recomputed
        assert found[f'fleetgate_attempts_total{{node="{note.source}",outcome="cut"}}'] == 1
        shown = await on.fleet()
        assert {each["name"]: each["broke_off"] for each in shown["nodes"]} == {note.source: 1, note.target: 0}
        assert [(each["resumed"], each["not_resumed"]) for each in shown["models"]] == [(1, 0)]


async def test_an_answer_that_breaks_for_good_is_charged_all_parts_once() -> None:
    """The second node dies of it, too, some tokens later: no third is risked."""
    async with stage() as on:
        on.fault(Fault("die", after=5, next=1, path="/v1/chat"), Fault("die", after=3, next=1, path="/v1/completions"))
        stats = await on.ask()
        first, second = stats.resumes
        assert (first.outcome, second.outcome, second.source) == ("resumed", "refused", first.target)
        assert second.token > first.token
        assert (stats.ending, stats.status, stats.estimated) == ("stream_not_resumable", 200, True)
        assert stats.usage is not None and stats.usage.output >= second.token
        assert stats.usage.output - second.token <= 2, "an event may have had no token"
        shown = await on.fleet()
        assert [(each["resumed"], each["not_resumed"]) for each in shown["models"]] == [(1, 1)]
        assert [each["broke_off"] for each in shown["nodes"]] == [1, 1]


async def test_who_leaves_a_resumed_answer_pays_what_came() -> None:
    async with stage() as on:
        on.fault(
            Fault("die", after=5, next=1, path="/v1/chat"), Fault("stall", after=3, next=1, path="/v1/completions")
        )
        tokens = 0
        async with on.client.stream("POST", "/v1/chat/completions", json=CHAT) as answer:
            async for line in answer.aiter_lines():
                chunk = json.loads(line[6:]) if line.startswith("data: {") else {"choices": []}
                tokens += any(
                    choice["delta"].get(name) for choice in chunk["choices"] for name in ("reasoning", "content")
                )
                if line.startswith(": resumed"):
                    break
        await eventually(lambda: bool(on.ended))
        [stats] = on.ended
        [note] = stats.resumes
        assert (stats.ending, note.outcome, stats.estimated, stats.lost) == ("client_gone", "resumed", True, 0)
        assert stats.usage is not None and stats.usage.output >= max(note.token, tokens) > 0
