"""An error that ends a responses stream has the number behind the last event that its client got."""

import json
from typing import Any

import httpx
import pytest

from gateway.core.http.sse import event_data, split_events
from tests.support.gateways import eventually, running_gateway
from tests.support.nodes import MODEL
from workers.fake import FakeNode, FakeSettings, Fault, serve_fake

ALONE: dict[str, Any] = {"resume": {"enabled": False}, "requests": {"max_attempts": 1}}
OVER_CHAT = {"models": [{"name": MODEL, "over_chat": True}]}
HIDDEN = {"thinking": {"hide_reasoning": True}}
GATEWAYS: dict[str, dict[str, Any]] = {
    "as it came": {},
    "hidden": HIDDEN,
    "over chat": OVER_CHAT,
    "over chat, hidden": {**OVER_CHAT, **HIDDEN},
}
SAY = "Go on. [[think=12]] [[answer=30]]"
BODIES: dict[str, Any] = {
    "an answer": SAY,
    "a compaction": [{"role": "user", "content": SAY}, {"type": "compaction_trigger"}],
}
RESPONSES = "/v1/responses"


def events_of(body: bytes) -> list[dict[str, Any]]:
    return [json.loads(data) for data in map(event_data, split_events(body)) if data]


async def told(url: str, given: Any = SAY) -> list[dict[str, Any]]:
    async with httpx.AsyncClient(base_url=url, timeout=60) as client:
        body = {"model": MODEL, "input": given, "stream": True, "max_output_tokens": 200}
        return events_of((await client.post(RESPONSES, json=body)).content)


def cut(fake: FakeNode, after: int, how: Fault | None) -> None:
    """Cut the next answers after so many events; `how` their bytes come."""
    fake.set_faults(Fault("die", after=after), *(() if how is None else (how,)))


@pytest.mark.parametrize("given", BODIES)
@pytest.mark.parametrize("kind", GATEWAYS)
async def test_it_goes_on_from_the_last_event(kind: str, given: str) -> None:
    """However the node's events come: each by itself, several at a time, in pieces, with comments between them."""
    async with serve_fake(FakeSettings()) as fake, running_gateway(fake.url, **ALONE, **GATEWAYS[kind]) as gateway:
        met = 0
        for how in (None, Fault("coalesce", size=5), Fault("split", size=40), Fault("comments", size=2)):
            for after in (3, 9, 17, 24, 33, 42):
                cut(fake, after, how)
                events = await told(gateway.url, BODIES[given])
                assert [event["sequence_number"] for event in events] == list(range(len(events))), (how, after)
                met += bool(events) and events[-1].get("code") == "upstream_cut"
        assert met >= 5, "elsewhere it had not begun, or was whole"


async def test_who_ends_it_makes_no_difference() -> None:
    """An operator, say, while the node makes a pause."""
    async with serve_fake(FakeSettings()) as fake, running_gateway(fake.url, **ALONE) as gateway:
        fake.set_faults(Fault("stall", after=9))
        async with (
            httpx.AsyncClient(base_url=gateway.admin_url, timeout=30) as admin,
            httpx.AsyncClient(base_url=gateway.url, timeout=30) as client,
        ):
            body = {"model": MODEL, "input": SAY, "stream": True}
            async with client.stream("POST", RESPONSES, json=body, headers={"x-request-id": "it"}) as answer:
                await eventually(lambda: bool(gateway.app.relay.open_exchanges))
                assert (await admin.delete("/admin/requests/it")).status_code == 200
                events = events_of(await answer.aread())
    assert events[-1]["code"] == "ended_by_operator"
    assert [event["sequence_number"] for event in events] == list(range(len(events))) and len(events) > 5


async def test_it_is_the_first_where_comments_are_all_that_came() -> None:
    """The node's first events wait for one that says something of the answer, and do not come any more."""
    timeouts = {"keep_alive": 0.1, "first_byte": 1.0, "prefill": 1.0, "idle": 1.0}
    async with serve_fake(FakeSettings()) as fake, running_gateway(fake.url, timeouts=timeouts, **ALONE) as gateway:
        fake.set_faults(Fault("stall", after=2))
        events = await told(gateway.url)
    assert [event["type"] for event in events] == ["error"] and events[0]["sequence_number"] == 0
