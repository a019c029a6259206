"""The faults that meet a request before it is served: no answer, a wrong one, an early one, a slow one."""

import asyncio

from workers.fake.errors import Refusal, anthropic_error, openai_error
from workers.fake.faults import Fault, find
from workers.fake.http1 import Exchange, Headers
from workers.fake.node import Node
from workers.fake.wire import JSON, compact

_ZOMBIE = "cannot schedule new futures after shutdown"
_PAUSED = "Generation is paused. Please retry after it resumes."
_GARBAGE = b"\x00\xff\x15\x03\x01 this is not HTTP\r\n\r\n"


async def meet_faults(node: Node, exchange: Exchange) -> bool:
    """Does what the exchange's faults ask for at the door. True when the request is over with it."""
    early = find(exchange.faults, "early")
    if early is not None:
        exchange.keep_alive = False
        _fail(node, exchange, Refusal(early.status if early.status != 500 else 413, "early answer"))
        return True
    slow = find(exchange.faults, "slow_read")
    if slow is not None:
        exchange.connection.read_slowly(slow.seconds)
    if await _silent_or_cut(node, exchange):
        return True
    await exchange.read()
    return await _wrong_answer(node, exchange)


async def _silent_or_cut(node: Node, exchange: Exchange) -> bool:
    reset = find(exchange.faults, "reset")
    if reset is not None and reset.after < 0:
        exchange.reset()
        return True
    if find(exchange.faults, "garbage"):
        exchange.write_raw(_GARBAGE)
        exchange.cut()
        return True
    if find(exchange.faults, "hang"):
        await asyncio.Event().wait()
    if find(exchange.faults, "wedge"):
        await node.clock.sleep(0)  # which stands still until the fault is taken away
    return False


async def _wrong_answer(node: Node, exchange: Exchange) -> bool:
    slow = find(exchange.faults, "slow_head")
    if slow is not None:
        await asyncio.sleep(slow.seconds)
    fault = find(exchange.faults, "status", "zombie", "paused")
    if fault is None:
        return False
    status, message = {"zombie": (500, _ZOMBIE), "paused": (503, _PAUSED)}.get(
        fault.kind, (fault.status, f"fake fault: status {fault.status}")
    )
    _fail(node, exchange, Refusal(status, message), _retry_after(fault))
    return True


def _retry_after(fault: Fault) -> Headers:
    return ((b"retry-after", b"%g" % fault.seconds),) if fault.seconds > 0 else ()


def _fail(node: Node, exchange: Exchange, refusal: Refusal, headers: Headers = ()) -> None:
    anthropic = exchange.path.startswith("/v1/messages")
    translated = node.settings.is_033
    body = anthropic_error(refusal, translated=translated) if anthropic else openai_error(refusal)
    exchange.answer(refusal.status, compact(body).encode(), (*JSON, *headers))
