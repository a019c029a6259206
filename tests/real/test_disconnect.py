"""A client that leaves costs the node nothing more: its request is gone from the engine within a second."""

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
"""Tokens: more than this engine decodes in a second here (36), and far from the 400 that were asked for."""


def _asks(prompt: str, stream: bool) -> dict[str, Json]:
    messages = [{"role": "user", "content": prompt}]
    # 400 tokens are eleven seconds of decoding: none of these ends by itself while a test looks.
    common: Json = {"model": MODEL, "stream": stream, "temperature": 0, "ignore_eos": True}
    return {
        CHAT: {**common, "messages": messages, "max_tokens": 400},
        COMPLETIONS: {**common, "prompt": prompt, "max_tokens": 400},
        RESPONSES: {**common, "input": prompt, "max_output_tokens": 400},
        # This dialect has no ignore_eos, but the model tells stories that are long enough.
        MESSAGES: {**common, "messages": messages, "max_tokens": 400},
    }


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
@pytest.mark.parametrize("path", [CHAT, COMPLETIONS, RESPONSES, MESSAGES])
def test_leaving_while_it_decodes(path: str, stream: bool, vllm: Server, gateway: Server) -> None:
    """Tokens are being made when the client closes its connection."""
    more = leave(vllm, gateway, path, _asks(SHORT_PROMPT, stream)[path], lambda now: now.tokens > 5)
    assert more < A_SECOND


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
def test_leaving_during_prefill(stream: bool, vllm: Server, gateway: Server) -> None:
    """The prompt is still being read: nothing has been generated, and nothing will be."""
    unique = f"{time.time_ns()} {LONG_PROMPT}"  # otherwise the prefix cache makes the second prefill short
    assert leave(vllm, gateway, CHAT, _asks(unique, stream)[CHAT], lambda now: now.running == 1) == 0


class Engine(NamedTuple):
    """What its metrics say."""

    running: int
    """Requests that it works on or will."""
    tokens: int
    """Generated in all; in `leave` since the request came."""
    ended: int
    """Requests that came to their end; those that it gave up are not among them."""


def leave(vllm: Server, gateway: Server, path: str, body: Json, time_to_go: Callable[[Engine], bool]) -> int:
    """Send a request and close the connection once it is time to go. The tokens that the engine made after that.

    They stand for the time it took: unlike a clock's seconds they do not pass while the whole machine stands still.
    """
    for _ in range(3):
        before = until(vllm, lambda now: now.running == 0, "the engine still runs a request")
        with closing(send(gateway, path, body)):

            def seen(now: Engine, before: Engine = before) -> bool:
                return now.ended > before.ended or time_to_go(now._replace(tokens=now.tokens - before.tokens))

            left = until(vllm, seen, "the engine never ran the request")
        after = until(vllm, lambda now: now.running == 0, "the engine still runs a request")
        if after.ended == before.ended:
            return after.tokens - left.tokens
    pytest.fail("the engine ends each request before or although the client left")


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
    deadline = time.monotonic() + 60
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
