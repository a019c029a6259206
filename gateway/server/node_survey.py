"""What `fleetgate init` finds out about nodes: whether vLLM answers, its version and models, and whether a thinking
budget holds there. The last one costs about 30 tokens, and is asked of nodes that are to be used.
"""

import asyncio
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from gateway.core.fleet.model_cards import read_cards
from gateway.fleet.canary import Canary
from gateway.fleet.canary_questions import ask_with_budget, read_version
from gateway.fleet.node_client import NodeClient, NodeRequestError
from gateway.fleet.node_spec import NodeSpec

ANSWER_SECONDS = 5.0
BUDGET_SECONDS = 30.0
"""A node that is busier than that is left to the gateway's own canary."""


class SurveyedNode(NamedTuple):
    """A node's URL and what was found there. `problem`: why it cannot be used now, None where it can. `answers`:
    whether anything does. `is_vllm`: whether that is vLLM, as far as it says. `models`: windows (tokens) by name.
    `holds_budgets`: None where it was not found out.
    """

    url: str
    problem: str | None = None
    answers: bool = True
    is_vllm: bool = True
    needs_key: bool = False
    version: str = ""
    models: Mapping[str, int | None] = {}
    holds_budgets: bool | None = None


async def survey(urls: Iterable[str], api_key: str | None, budgets: bool) -> Sequence[SurveyedNode]:
    """Ask all at once; in the order of `urls`. `budgets`: ask for a few tokens, too."""
    return await asyncio.gather(*(_survey_node(NodeSpec(url, api_key), budgets) for url in urls))


async def _survey_node(spec: NodeSpec, budgets: bool) -> SurveyedNode:
    client = NodeClient(spec)
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            found = await _look(spec.url, client)
        if budgets and found.problem is None:
            return found._replace(holds_budgets=await _holds_budgets(client, found))
        return found
    except TimeoutError:
        return SurveyedNode(spec.url, f"does not answer within {ANSWER_SECONDS:g} s", answers=False)
    except (NodeRequestError, ValueError) as error:
        return SurveyedNode(spec.url, f"does not answer: {_reason(error)}", answers=False)
    finally:
        client.close()


async def _look(url: str, client: NodeClient) -> SurveyedNode:
    version = await read_version(client)
    if version is None:
        words = "answers, but is no vLLM: GET /version told no version"
        return SurveyedNode(url, words, is_vllm=False)
    spelled = ".".join(map(str, version))
    page = await client.get("/v1/models")
    if page.status in (401, 403):
        return SurveyedNode(url, f"requires a key: /v1/models answered {page.status}", needs_key=True, version=spelled)
    health = await client.get("/health")
    if health.status != 200 or page.status != 200:
        words = f"is not ready: /health answered {health.status}, /v1/models {page.status}"
        return SurveyedNode(url, words, version=spelled)
    cards = read_cards(page.body)
    windows = {name: card.get("max_model_len") for name, card in cards.items()}
    return SurveyedNode(url, None if windows else "serves no model", version=spelled, models=windows)


async def _holds_budgets(client: NodeClient, found: SurveyedNode) -> bool | None:
    canary = Canary()
    try:
        async with asyncio.timeout(BUDGET_SECONDS):
            known = await canary.read_capabilities(client, {name: {} for name in found.models})
            return bool((await ask_with_budget(client, next(iter(found.models)), known))["native_budget"])
    except (TimeoutError, NodeRequestError, ValueError):
        return None


def _reason(error: Exception) -> str:
    """The system's words where it is the system that refused."""
    cause = error.__cause__
    number = cause.errno if isinstance(cause, OSError) else None
    return os.strerror(number) if number else str(error) or type(error).__name__
