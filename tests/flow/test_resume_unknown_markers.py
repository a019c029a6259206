"""Nodes whose markers of thinking are not known: what follows a break may be thinking, which clients may not see."""

from typing import Any

import httpx
import pytest

from tests.flow.resume_cuts import error_of
from tests.flow.test_resume import ASK, MODEL, PATH, normal
from tests.support.gateways import eventually, running_gateway
from workers.fake import FakeSettings, Fault, serve_fake

HIDING: dict[str, Any] = {"thinking": {"hide_reasoning": True}}


@pytest.mark.parametrize("config", [{}, HIDING], ids=["shown", "hidden"])
@pytest.mark.parametrize("after", range(1, 10))
async def test_no_thinking_becomes_answer(after: int, config: dict[str, Any]) -> None:
    """Where no event has told whether the model thinks, the answer ends."""
    made = FakeSettings(thinking_tokens=6, answer_tokens=6)
    chosen = {"budgets": {"canary": False}, "health": {"interval": 0.05, "failures": 1000}, **config}
    async with (
        serve_fake(made) as one,
        serve_fake(made) as other,
        running_gateway(one.url, other.url, **chosen) as gateway,
        httpx.AsyncClient(base_url=gateway.url, timeout=30, trust_env=False) as client,
    ):
        await eventually(lambda: all(node.ready for node in gateway.app.fleet.nodes))
        body = {"model": MODEL, "stream": True, **ASK["chat"]}
        expected = normal((await client.post(PATH["chat"], json=body)).text)
        for node in (one, other):
            node.set_faults(Fault("die", after=after, next=1, path="/v1/chat"))
        answer = await client.post(PATH["chat"], json=body)
        if after > 1:
            assert normal(answer.text) == expected
        else:
            assert '"content":"When"' not in answer.text and '"content":"' not in answer.text.split("\n\n", 1)[1]
            error = error_of(answer)
            assert (error["code"], error["retry_safe"]) == ("stream_not_resumable", True)
            assert "begins with thinking" in error["message"]
