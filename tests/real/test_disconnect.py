"""A client that leaves costs the node nothing more: its request is gone from the engine within a second."""

import math
import re
import socket
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import closing
from typing import NamedTuple
from urllib.parse import urlsplit

import httpx
import pytest

from tests.real.conftest import Server
from tests.real.transparency_cases import CHAT, COMPLETIONS, MESSAGES, MODEL, RESPONSES, Json

pytestmark = pytest.mark.real

LONG_PROMPT = "Once upon a time " * 900  # 3,600 tokens: seven seconds of prefill on one core, in several steps
SHORT_PROMPT = "Tell me a story"
A_SECOND = 60
"""Tokens: more than this engine decodes in a second here (36), and far from the 3,000 that were asked for."""
TRIES = 5
"""How often a test tries: where other work holds up the gateway, the test or the engine's front, the engine runs on."""


def _asks(prompt: str, stream: bool, tokens: int) -> dict[str, Json]:
    messages = [{"role": "user", "content": prompt}]
    common: Json = {"model": MODEL, "stream": stream, "temperature": 0, "ignore_eos": True}
    return {
        CHAT: {**common, "messages": messages, "max_tokens": tokens},
        COMPLETIONS: {**common, "prompt": prompt, "max_tokens": tokens},
        RESPONSES: {**common, "input": prompt, "max_output_tokens": tokens},
        # This dialect has no ignore_eos, but the model tells stories that are long enough.
        MESSAGES: {**common, "messages": messages, "max_tokens": tokens},
    }


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
@pytest.mark.parametrize("path", [CHAT, COMPLETIONS, RESPONSES, MESSAGES])
def test_leaving_while_it_decodes(path: str, stream: bool, vllm: Server, gateway: Server) -> None:
    """Tokens are being made when the client closes its connection."""
    body = _asks(SHORT_PROMPT, stream, tokens=3000)[path]  # more than a minute of decoding
    leave(vllm, gateway, path, lambda: body, lambda now: now.tokens > 5, at_most=A_SECOND - 1)


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
def test_leaving_during_prefill(stream: bool, vllm: Server, gateway: Server) -> None:
    """The prompt is still being read: nothing has been generated, and nothing will be."""

    def body() -> Json:
        unique = f"{time.time_ns()} {LONG_PROMPT}"  # otherwise the prefix cache makes the second prefill short
        return _asks(unique, stream, tokens=400)[CHAT]

    leave(vllm, gateway, CHAT, body, lambda now: now.running == 1, at_most=0)


class Engine(NamedTuple):
    """What its metrics say."""

    running: int
    """Requests that it works on or will."""
    tokens: int
    """Generated in all; in `leave` since the request came."""
    ended: int
    """Requests that came to their end; those that it gave up are not among them."""


def leave(
    vllm: Server,
    gateway: Server,
    path: str,
    body: Callable[[], Json],
    time_to_go: Callable[[Engine], bool],
    at_most: int,
) -> None:
    """Send a request and close the connection once it is time to go. Then the engine makes `at_most` tokens or fewer.

    They stand for the time it took: unlike a clock's seconds they do not pass while the whole machine stands still.
    """
    seen = [_tokens_after_leaving(vllm, gateway, path, body(), time_to_go)]
    while seen[-1] > at_most and len(seen) < TRIES:
        seen.append(_tokens_after_leaving(vllm, gateway, path, body(), time_to_go))
    assert seen[-1] <= at_most, f"tokens in {TRIES} tries: {seen}"


def _tokens_after_leaving(
    vllm: Server, gateway: Server, path: str, body: Json, time_to_go: Callable[[Engine], bool]
) -> float:
    """Infinite where the request came to its end, before the client left or after."""
    before = until(vllm, lambda now: now.running == 0, "the engine still runs a request")

    def leaving(now: Engine) -> bool:
        return now.ended > before.ended or time_to_go(now._replace(tokens=now.tokens - before.tokens))

    with closing(send(gateway, path, body)):
        left = until(vllm, leaving, "the engine never ran the request")
    after = until(vllm, lambda now: now.running == 0, "the engine still runs a request")
    return math.inf if after.ended > before.ended else after.tokens - left.tokens


def send(server: Server, path: str, body: Json) -> socket.socket:
    """A request on a connection of its own, of which nothing is read."""
    where = urlsplit(server.url)
    assert where.hostname
    assert where.port
    request = httpx.Request("POST", server.url + path, json=body)
    head = "".join(f"{name}: {value}\r\n" for name, value in request.headers.items())
    connection = socket.create_connection((where.hostname, where.port))
    connection.sendall(f"POST {path} HTTP/1.1\r\n{head}\r\n".encode() + request.content)
    return connection


def until(vllm: Server, condition: Callable[[Engine], bool], failure: str) -> Engine:
    """The engine once `condition` holds of it."""
    deadline = time.monotonic() + 180
    while not condition(now := look(vllm)):
        assert time.monotonic() < deadline, f"{failure}: {now}"
        time.sleep(0.02)
    return now


def look(vllm: Server) -> Engine:
    """Its metrics, summed over their labels: the reasons for an end are such."""
    with vllm.client() as client:
        text = client.get("/metrics").text
    told: defaultdict[str, float] = defaultdict(float)
    for name, value in re.findall(r"^vllm:([a-z_]+)\{[^}]*\} (\S+)$", text, re.MULTILINE):
        told[name] += float(value)
    running = told["num_requests_running"] + told["num_requests_waiting"]
    return Engine(int(running), int(told["generation_tokens_total"]), int(told["request_success_total"]))
