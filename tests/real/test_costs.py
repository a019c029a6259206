"""On a real vLLM: fields that move cost are read by the gateway as the node reads them, and reserved for."""

from typing import Any

import httpx
import pytest

from tests.real.conftest import Server
from tests.real.transparency_cases import CHAT, COMPLETIONS, MESSAGES, MODEL, RESPONSES
from tests.support.gateways import running_gateway

pytestmark = pytest.mark.real

LIMIT = 10**7


def chat(**more: Any) -> dict[str, Any]:
    return {"model": MODEL, "messages": [{"role": "user", "content": "Count."}], "ignore_eos": True, **more}


def complete(**more: Any) -> dict[str, Any]:
    return {"model": MODEL, "prompt": "One, two,", "ignore_eos": True, **more}


COSTLY: list[tuple[str, dict[str, Any]]] = [
    (CHAT, chat(max_tokens="7")),
    (CHAT, chat(max_tokens=" 0_7 ")),
    (CHAT, chat(max_tokens=7.0)),
    (CHAT, chat(max_tokens=True)),
    (CHAT, chat(max_tokens=1, max_completion_tokens="7")),
    (CHAT, chat(max_tokens=7, max_completion_tokens=3)),
    (CHAT, chat(max_tokens="7.0", max_completion_tokens=None)),
    (CHAT, chat(max_tokens=4, n="3")),
    (CHAT, chat(max_tokens=4, n=3.0)),
    (CHAT, chat(max_tokens=4, best_of=3)),
    (CHAT, chat(max_tokens=4, n=3, use_beam_search="yes")),
    (CHAT, chat(max_tokens=9, min_tokens="9", ignore_eos=False)),
    (CHAT, chat(max_tokens=9, ignore_eos="on")),
    (CHAT, chat(max_tokens=4, stop=["."], logprobs=True, top_logprobs=2)),
    (CHAT, chat(max_tokens=4, truncate_prompt_tokens="8")),
    (COMPLETIONS, complete()),
    (COMPLETIONS, complete(max_tokens=0, echo="true")),
    (COMPLETIONS, complete(max_tokens=3, max_completion_tokens=9)),
    (COMPLETIONS, complete(max_tokens=3, prompt=["a", "b"], n="2")),
    (COMPLETIONS, complete(max_tokens=3, prompt=[[1, 2], [3]])),
    (COMPLETIONS, complete(max_tokens=3, n=2, use_beam_search=True, length_penalty=2.0)),
    (RESPONSES, {"model": MODEL, "input": "Count.", "ignore_eos": True, "max_output_tokens": "5", "n": 3}),
    (MESSAGES, chat(max_tokens="5", n="3", max_completion_tokens=9)),
]


def made(answer: httpx.Response) -> tuple[int, int]:
    """Output tokens and answers."""
    assert answer.status_code == 200, answer.text
    told = answer.json()
    usage = told["usage"]
    return usage.get("completion_tokens", usage.get("output_tokens")), len(told.get("choices", "1"))


async def test_the_gateway_reads_what_costs_as_the_node_does(vllm: Server) -> None:
    limits = {"default": {"tokens_per_minute": LIMIT}}
    async with (
        running_gateway(vllm.url, limits=limits) as gateway,
        httpx.AsyncClient(base_url=gateway.url, timeout=120, trust_env=False) as through,
        httpx.AsyncClient(base_url=vllm.url, timeout=120, trust_env=False) as bare,
    ):
        for path, body in COSTLY:
            answer = await through.post(path, json=body)
            tokens, choices = made(answer)
            assert (tokens, choices) == made(await bare.post(path, json=body)), (path, body)
            reserved = LIMIT - int(answer.headers["x-ratelimit-remaining-tokens"])
            assert reserved >= tokens, (path, body)
