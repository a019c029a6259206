"""The trial: a completion of one token, since a node may answer probes while its engine is dead."""

import asyncio
import contextlib
from typing import NamedTuple

from gateway.fleet.node_client import NodeClient, NodeRequestError, NodeUnreachable

TRIAL_SECONDS = 30.0
"""Seconds for one trial: a node without requests answers soon, unless it is loading kernels."""


class ProbeFailure(NamedTuple):
    """Why a trial failed. `certain`: neither the load of clients nor a shortage of the gateway explains it. `error`:
    the exception, if there was one."""

    message: str
    certain: bool
    error: NodeRequestError | None = None


async def ask_one_token(client: NodeClient, model: str) -> ProbeFailure | None:
    """None where the node answered below 500: one of an embedding model, which has no completions, says 4xx.

    A broken connection is tried once more: it may have stood idle for as long as the node keeps one.
    """
    try:
        async with asyncio.timeout(TRIAL_SECONDS):
            status: int | None = None
            with contextlib.suppress(NodeRequestError):
                status = await _ask(client, model)
            if status is None:
                status = await _ask(client, model)
    except TimeoutError:
        return ProbeFailure(f"trial request timed out after {TRIAL_SECONDS:g} s", certain=False)
    except NodeRequestError as error:
        message = f"trial request failed: {error or type(error).__name__}"
        return ProbeFailure(message, certain=not isinstance(error, NodeUnreachable), error=error)
    if status >= 500:
        return ProbeFailure(
            f"trial request was answered with {status}", certain=status != 503 or await _is_dead(client)
        )
    return None


async def _is_dead(client: NodeClient) -> bool:
    """Whether /health answers 503 too: vLLM answers completions with 503 while its queue is full as well as after its
    engine has died."""
    try:
        async with asyncio.timeout(TRIAL_SECONDS):
            return (await client.get("/health")).status == 503
    except (TimeoutError, NodeRequestError):
        return False


async def _ask(client: NodeClient, model: str) -> int:
    answer = await client.post("/v1/completions", {"model": model, "prompt": "1", "max_tokens": 1})
    return answer.status
