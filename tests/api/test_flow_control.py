"""When a client's connection is read: three who stop it, in any order, and each only for itself."""

import asyncio
from typing import Any, cast

from hypothesis import example, given
from hypothesis import strategies as st

from gateway.api.flow_control import TURN_BYTES, FlowControl
from tests.api.test_memory import KEYS, ask, serving, tenants
from tests.support.raw import head, raw_client

CHAT = "/v1/chat/completions"


class Transport:
    """Knows whether it is read, and that nobody stops it twice."""

    def __init__(self) -> None:
        self.read = True
        self.closing = False
        self.changes = 0

    def pause_reading(self) -> None:
        assert self.read
        self.read = False
        self.changes += 1

    def resume_reading(self) -> None:
        assert not self.read and not self.closing
        self.read = True
        self.changes += 1

    def is_closing(self) -> bool:
        return self.closing


class Loop:
    """Calls what is due when a test says so."""

    def __init__(self) -> None:
        self.due: list[Any] = []

    def call_soon(self, call: Any) -> None:
        self.due.append(call)

    def turn(self) -> None:
        due, self.due = self.due, []
        for call in due:
            call()


STEPS = ["pause", "resume", "hold", "release", "yield", "turn", "defer", "apply"]


@given(st.lists(st.sampled_from(STEPS), max_size=20))
@example(["defer", "pause", "resume", "apply"])
@example(["defer", "pause", "apply"])
@example(["pause", "defer", "resume", "apply"])
def test_it_is_read_while_nobody_stops_it(steps: list[str]) -> None:
    transport, loop = Transport(), Loop()
    flow = FlowControl(cast(asyncio.Transport, transport), lambda: None)
    paused = held = yielded = deferred = False
    for step in steps:
        before = transport.changes
        if step in ("pause", "resume"):
            paused = step == "pause"
            (flow.pause_reading if paused else flow.resume_reading)()
        elif step in ("hold", "release"):
            held = step == "hold"
            flow.hold(held)
        elif step == "yield":
            yielded = True
            flow.yield_turn(cast(asyncio.AbstractEventLoop, loop))
        elif step in ("defer", "apply"):
            deferred = step == "defer"
            (flow.defer if deferred else flow.apply)()
        else:
            yielded = False
            loop.turn()
        if deferred:
            assert transport.changes == before
        else:
            assert transport.read is not (paused or held or yielded)
        assert flow.read_paused is paused
        assert len(loop.due) <= 1
    transport.closing = True  # a connection that is lost meanwhile is left alone
    flow.defer()
    flow.hold(not held)
    before = transport.changes
    flow.apply()
    loop.turn()
    assert transport.changes == before


async def test_a_body_of_many_turns_comes_whole_also_behind_another_request() -> None:
    large = ask(user="x" * (8 * TURN_BYTES))
    async with serving(tenants=tenants()) as gateway, raw_client(gateway.port) as client:
        key = f"authorization: Bearer {KEYS['a']}"
        for body in (ask(), large, ask(), large):
            await client.send(head("POST", CHAT, f"content-length: {len(body)}", key) + body)
        assert [(await client.answer()).status for _ in range(4)] == [200] * 4
