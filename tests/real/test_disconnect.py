"""A client that leaves costs the node nothing more: its request is gone from the engine within a second."""

import re
import socket
import time
from collections.abc import Callable
from urllib.parse import urlsplit

import httpx
import pytest

from tests.real.conftest import Server
from tests.real.transparency_cases import CHAT, COMPLETIONS, MESSAGES, MODEL, RESPONSES, Json

pytestmark = pytest.mark.real

LONG_PROMPT = "Once upon a time " * 900  # 3,600 tokens: seven seconds of prefill on one core, in several steps
SHORT_PROMPT = "Tell me a story"


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
    leave(vllm, gateway, path, _asks(SHORT_PROMPT, stream)[path], decoding=True)


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
def test_leaving_during_prefill(stream: bool, vllm: Server, gateway: Server) -> None:
    """The prompt is still being read: nothing has been generated, and nothing will be."""
    unique = f"{time.time_ns()} {LONG_PROMPT}"  # otherwise the prefix cache makes the second prefill short
    before = generated(vllm)
    leave(vllm, gateway, CHAT, _asks(unique, stream)[CHAT], decoding=False)
    assert generated(vllm) == before


def leave(vllm: Server, gateway: Server, path: str, body: Json, decoding: bool) -> None:
    """Send a request, close the connection while the engine is at it, and see it stop."""
    quiet(vllm, 5.0)
    before = generated(vllm)
    connection = send(gateway, path, body)
    wait_until(lambda: running(vllm) == 1, 5.0, "the engine never ran the request")
    if decoding:
        wait_until(lambda: generated(vllm) > before + 5, 5.0, "no token came")
    connection.close()
    quiet(vllm, 1.0)


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


def quiet(vllm: Server, seconds: float) -> None:
    """Wait until the engine runs nothing; fails after `seconds`."""
    wait_until(lambda: running(vllm) == 0, seconds, f"the engine still runs a request after {seconds} s")


def wait_until(condition: Callable[[], bool], seconds: float, failure: str) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, failure
        time.sleep(0.02)


def running(vllm: Server) -> int:
    """Requests that the engine works on or will."""
    metrics = scrape(vllm)
    return int(metrics["vllm:num_requests_running"] + metrics["vllm:num_requests_waiting"])


def generated(vllm: Server) -> int:
    """Tokens that the engine has generated since its start."""
    return int(scrape(vllm)["vllm:generation_tokens_total"])


def scrape(vllm: Server) -> dict[str, float]:
    """vLLM's metrics by name; labels are left out, there is one engine."""
    with vllm.client() as client:
        text = client.get("/metrics").text
    return {name: float(value) for name, value in re.findall(r"^(vllm:[a-z_]+)\{[^}]*\} (\S+)$", text, re.MULTILINE)}
