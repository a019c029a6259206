"""The node that is measured: what it serves, its version, how many tokens a word is to it."""

import asyncio
import ipaddress
import socket
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import httpx

from workers.bench.answers import printable
from workers.bench.prose import USUAL_TOKENS_PER_WORD, sample
from workers.errors import ConfigError, NodeFailed

QUESTION_SECONDS = 10.0
PER_WORD = (0.5, 20.0)
USUAL_CONTEXT = 4096


@dataclass(frozen=True, slots=True)
class MeasuredNode:
    """`model` as it is asked for, `context` in tokens, `version` of vLLM (None: it does not tell), `per_word`: tokens
    of a word of our texts, `root`: what it loaded, a folder or a repository. `is_here`: the address is one of this
    machine's, so that its GPUs are the node's."""

    url: str
    model: str
    context: int
    version: str | None
    per_word: float
    counts_words: bool
    root: str
    is_here: bool


def node_url(text: str) -> str:
    """The URL without path. Raises ConfigError where it is no http(s)://HOST[:PORT]."""
    try:
        parts = urlsplit(text.rstrip("/"))
        good = parts.scheme in ("http", "https") and parts.hostname and (parts.port is None or parts.port > 0)
    except ValueError:
        good = False
    if not good or parts.path not in ("", "/v1") or parts.query or parts.fragment or "@" in parts.netloc:
        raise ConfigError(f"{text!r} is no node's URL: expected http://HOST:PORT")
    return f"{parts.scheme}://{parts.netloc}"


async def look_at(client: httpx.AsyncClient, url: str, model: str | None) -> MeasuredNode:
    """Ask the node what it is. Raises NodeFailed where it does not answer, ConfigError for a model it lacks."""
    models = await _get(client, "/v1/models")
    if models is None:
        raise NodeFailed(
            f"{url} does not answer /v1/models with a list of models: is the node up, is VLLM_API_KEY right?"
        )
    cards = {str(card["id"]): card for card in models.get("data") or () if isinstance(card, dict) and "id" in card}
    if not cards or (model is not None and model not in cards):
        served = printable(", ".join(cards)) or "nothing"
        raise ConfigError(f"{url} does not serve {model or 'any model'}; it serves: {served}")
    name = model or next(iter(cards))
    version = await _get(client, "/version")
    told = cards[name].get("max_model_len")
    per_word = await _tokens_per_word(client, name)
    return MeasuredNode(
        url=url,
        model=name,
        context=told if isinstance(told, int) and told > 0 else USUAL_CONTEXT,
        version=printable(str(version["version"])) if version and version.get("version") else None,
        per_word=per_word or USUAL_TOKENS_PER_WORD,
        counts_words=per_word is not None,
        root=str(cards[name].get("root") or ""),
        is_here=await asyncio.to_thread(_is_this_machine, url),
    )


async def _tokens_per_word(client: httpx.AsyncClient, model: str) -> float | None:
    text, words = sample()
    try:
        response = await client.post("/tokenize", json={"model": model, "prompt": text}, timeout=QUESTION_SECONDS)
        per_word = float(response.json()["count"]) / words
    except (httpx.HTTPError, ValueError, RecursionError, KeyError, TypeError):
        return None
    return per_word if PER_WORD[0] <= per_word <= PER_WORD[1] else None


async def _get(client: httpx.AsyncClient, path: str) -> dict[str, Any] | None:
    try:
        response = await client.get(path, timeout=QUESTION_SECONDS)
        document = response.json() if response.is_success else None
    except (httpx.HTTPError, ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) else None


def _is_this_machine(url: str) -> bool:
    """Whether every address of the host is one that this machine can listen on."""
    parts = urlsplit(url)
    try:
        found = socket.getaddrinfo(parts.hostname, None, type=socket.SOCK_DGRAM)
    except OSError:
        return False
    return bool(found) and all(_is_own(str(address[0])) for *_, address in found)


def _is_own(address: str) -> bool:
    if ipaddress.ip_address(address.partition("%")[0]).is_loopback:
        return True
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((address, 0))
        except OSError:
            return False
    return True
