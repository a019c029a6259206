"""The client's own deadline, `x-request-timeout`."""

import asyncio
from collections.abc import Coroutine, Mapping
from math import inf
from typing import Any, TypeVar

from gateway.core.errors import InvalidRequest
from gateway.upstream.failed_answers import deadline_exceeded

Done = TypeVar("Done")


def read_deadline(headers: Mapping[bytes, bytes]) -> float:
    """Loop time until which the client waits: `x-request-timeout` seconds from now, infinite where it says nothing."""
    value = headers.get(b"x-request-timeout")
    if value is None:
        return inf
    try:
        seconds = float(value)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= 86_400:
        raise InvalidRequest(
            "The header x-request-timeout must be a number of seconds above 0 and at most 86400.",
            param="x-request-timeout",
            code="invalid_timeout",
        )
    return asyncio.get_running_loop().time() + seconds


async def until(deadline: float, work: Coroutine[Any, Any, Done]) -> Done:
    """What `work` returns. Raises `DeadlineExceeded` at `deadline` (loop time); `work` is cancelled then."""
    if deadline == inf:
        return await work
    try:
        async with asyncio.timeout_at(deadline) as bound:
            return await work
    except TimeoutError:
        if not bound.expired():
            raise  # the work's own
        raise deadline_exceeded() from None
