"""What the launcher asks of its own node: health, load, one answer, and whether it keeps a thinking budget."""

import re
from typing import Any, Literal

import httpx

from workers.registration import Obedience

PROBE_SECONDS = 5.0
ANSWER_SECONDS = 300.0
CANARY_BUDGET = 16
# vLLM ends thinking at the budget or a token before it; its end marker and a newline may be counted with it.
CANARY_SLACK = 8
CANARY_MAX_TOKENS = 256
CANARY_PROMPT = "Which of 17, 21 and 27 are prime? Think it through, then say."
RUNNING = re.compile(r"^vllm:num_requests_(?:running|waiting)(?:\{[^}]*\})? ([0-9.eE+]+)$", re.MULTILINE)

Health = Literal["ok", "dead", "silent"]


class NodeApi:
    """The HTTP side of one node, seen from its own machine."""

    def __init__(self, base_url: str, model: str, api_key: str | None) -> None:
        """`base_url` without a path; `api_key` is what the node asks for on /v1, None if nothing."""
        headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        # No proxies: the node is this machine, whatever the environment says about the world outside.
        self._client = httpx.AsyncClient(base_url=base_url, headers=headers, timeout=PROBE_SECONDS, trust_env=False)
        self._model = model

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def health(self) -> Health:
        """`dead` only where vLLM says 503: its engine is gone. A busy node may not answer at all."""
        try:
            response = await self._client.get("/health")
        except httpx.HTTPError:
            return "silent"
        return "dead" if response.status_code == 503 else "ok" if response.is_success else "silent"

    async def version(self) -> str | None:
        """vLLM's version, None if it does not tell."""
        document = await self._get("/version")
        return str(document["version"]) if document and "version" in document else None

    async def max_model_len(self) -> int | None:
        """The context that the node really serves, in tokens."""
        document = await self._get("/v1/models") or {}
        cards = document.get("data")
        for card in cards if isinstance(cards, list) else ():
            if isinstance(card, dict) and card.get("id") == self._model:
                length = card.get("max_model_len")
                return length if isinstance(length, int) and length > 0 else None
        return None

    async def requests(self) -> int | None:
        """Requests running and waiting, None if /metrics does not tell."""
        try:
            response = await self._client.get("/metrics")
        except httpx.HTTPError:
            return None
        counts = RUNNING.findall(response.text)
        return _sum(counts) if counts else None

    async def answers(self, seconds: float = ANSWER_SECONDS) -> bool:
        """Whether one short request is answered. Green probes prove nothing: a zombie passes them."""
        body = {"model": self._model, "messages": [{"role": "user", "content": "Say yes."}], "max_tokens": 8}
        try:
            response = await self._client.post("/v1/chat/completions", json=body, timeout=seconds)
        except httpx.HTTPError:
            return False
        return response.is_success

    async def keeps_budget(self) -> Obedience:
        """Send one request with a small thinking budget and count what was thought."""
        body = {
            "model": self._model,
            "messages": [{"role": "user", "content": CANARY_PROMPT}],
            "max_tokens": CANARY_MAX_TOKENS,
            "thinking_token_budget": CANARY_BUDGET,
        }
        try:
            response = await self._client.post("/v1/chat/completions", json=body, timeout=ANSWER_SECONDS)
        except httpx.HTTPError:
            return "broken"
        if response.status_code == 400:
            return "refused"
        if not response.is_success:
            return "broken"
        try:
            thought = await self._count_thinking(response.json())
        except (ValueError, RecursionError, LookupError, TypeError, AttributeError):
            return "broken"  # no answer of this dialect
        if thought is None:
            return "broken"
        return "obeyed" if thought <= CANARY_BUDGET + CANARY_SLACK else "ignored"

    async def _count_thinking(self, answer: dict[str, Any]) -> int | None:
        """Tokens of thinking: as counted in usage, else by tokenizing the text (vLLM 0.22 does not count)."""
        details = (answer.get("usage") or {}).get("completion_tokens_details") or {}
        if isinstance(details.get("reasoning_tokens"), int):
            return int(details["reasoning_tokens"])
        message = answer["choices"][0]["message"]
        text = message.get("reasoning") or message.get("reasoning_content") or ""
        try:
            response = await self._client.post("/tokenize", json={"model": self._model, "prompt": text})
        except httpx.HTTPError:
            return None
        return int(response.json()["count"]) if response.is_success else None

    async def _get(self, path: str) -> dict[str, Any] | None:
        try:
            response = await self._client.get(path)
        except httpx.HTTPError:
            return None
        try:
            document = response.json() if response.is_success else None
        except (ValueError, RecursionError):
            return None
        return document if isinstance(document, dict) else None


def _sum(counts: list[str]) -> int | None:
    try:
        return int(sum(float(count) for count in counts))
    except (ValueError, OverflowError):
        return None
