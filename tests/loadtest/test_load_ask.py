"""One request of a load by the real OpenAI client against a fake node: what is measured, and how it is told."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from loadtest.load.ask import ask, client_of
from loadtest.load.scenarios import TOOLS
from loadtest.load.turns import Answer, Turn
from workers.fake import FakeSettings, Fault, serve_fake
from workers.fake.server import FakeNode

MODEL = "nemotron-3-ultra"


@pytest.fixture
async def node() -> AsyncIterator[FakeNode]:
    async with serve_fake(FakeSettings(rate=400)) as running:
        yield running


def turn(**fields: Any) -> Turn:
    return Turn(({"role": "user", "content": "hello"},), 10, 5, **fields)


async def asked(node: FakeNode, given: Turn, key: str = "none", timeout: float = 10.0) -> Answer:
    answer = Answer()
    with client_of(node.url, key, timeout) as client:
        await asyncio.to_thread(ask, client, given, MODEL, "marks", answer)
    return answer


async def test_a_stream_is_timed_and_counted(node: FakeNode) -> None:
    answer = await asked(node, turn())
    assert (answer.ending, answer.output_tokens, len(answer.gaps) + 1) == ("ok", 17, 15)
    assert answer.first_token is not None and answer.first_answer is not None and answer.whole is not None
    assert 0 < answer.first_token < answer.first_answer < answer.whole
    assert answer.text and answer.prompt_tokens > 1


async def test_calls_are_put_together(node: FakeNode) -> None:
    answer = await asked(node, turn(tools=TOOLS, call=True))
    assert [call["function"]["name"] for call in answer.calls] == ["read"]
    assert answer.calls[0]["id"] and answer.calls[0]["function"]["arguments"].startswith("{")


async def test_a_plain_answers_first_token_is_its_end(node: FakeNode) -> None:
    answer = await asked(node, turn(stream=False))
    assert (answer.ending, answer.gaps) == ("ok", [])
    assert answer.first_token == answer.whole


async def test_a_client_that_leaves_has_not_failed(node: FakeNode) -> None:
    answer = await asked(node, turn(leave_after=3))
    assert (answer.ending, answer.failed, len(answer.gaps)) == ("left", False, 2)


@pytest.mark.parametrize(
    ("fault", "cause"),
    [
        (Fault("status", status=503), "503 "),
        (Fault("die", after=3), "connection: "),
        (Fault("eof", after=3), "broken off"),
        (Fault("error_event", after=3), "in mid-answer: "),
        (Fault("refuse"), "connection: "),
        (Fault("garbage"), "connection: "),
        (Fault("hang"), "timeout"),
        (Fault("stall", after=3), "timeout"),
    ],
    ids=lambda value: value.kind if isinstance(value, Fault) else "",
)
async def test_errors_are_told_by_their_cause(node: FakeNode, fault: Fault, cause: str) -> None:
    node.set_faults(fault)
    answer = await asked(node, turn(), timeout=1.0)
    assert answer.failed and answer.ending.startswith(cause), answer.ending


async def test_an_error_that_was_provoked_is_none() -> None:
    async with serve_fake(FakeSettings(api_key="sk-right")) as node:
        assert (await asked(node, turn(expected=401), key="sk-wrong")).ending == "expected"
        assert (await asked(node, turn(), key="sk-wrong")).ending.startswith("401 ")
