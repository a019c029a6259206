"""The requests that the load clients send, as bytes."""

import json
from dataclasses import dataclass

from loadtest.answers import MODEL

FILLER = "You are a careful assistant. Think before you answer, and say what you are sure of. "


@dataclass(frozen=True, slots=True)
class Target:
    """Where to ask, and with which key."""

    host: str
    port: int
    key: str = ""


def request(target: Target, events: int, rate: float, prompt_bytes: int = 800, talk: int = 0) -> bytes:
    """A chat completion: a stream of `events` at `rate` a second, or plain where `events` is 0. `talk`: the number of
    its conversation."""
    system = (FILLER * (prompt_bytes // len(FILLER) + 1))[:prompt_bytes]
    body: dict[str, object] = {
        "model": MODEL,
        "messages": [
            {"role": "system", "content": system},
            {"role": "user", "content": f"What is the capital of France? rate={rate:g}{f' talk={talk}' * bool(talk)}"},
        ],
        "max_tokens": events or 24,
        "temperature": 0.6,
    }
    return _post(target, json.dumps(body | ({"stream": True} if events else {})).encode())


def _post(target: Target, body: bytes) -> bytes:
    lines = [
        "POST /v1/chat/completions HTTP/1.1",
        f"host: {target.host}:{target.port}",
        "accept: application/json",
        "content-type: application/json",
        "user-agent: fleetgate-loadtest",
        f"content-length: {len(body)}",
    ]
    if target.key:
        lines.append(f"authorization: Bearer {target.key}")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body
