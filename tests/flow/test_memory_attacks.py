"""A gateway of 512 MB under attacks on its memory: alive, serving others, and small again afterwards.

The gateway is a process of its own, with what it may have of memory bounded by the system. Every attack goes on for
some seconds from many connections of one tenant, while another tenant asks for something small.
"""

import asyncio
import contextlib
import hashlib
import itertools
import json
import re
import resource
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.support.gateway_process import GatewayProcess, gateway_process
from tests.support.nodes import MODEL, Asked, ScriptedNode, answer, scripted_node
from tests.support.raw import head

CHAT = "/v1/chat/completions"
MIB = 1 << 20
PROCESS = 512 * MIB
BUDGET = 160 * MIB
KEYS = {name: f"key-of-{name}" for name in ("attacker", "limited", "victim")}
LIMITS = {"limited": {"concurrent_requests": 1, "requests_per_minute": 2}}
AT_ONCE = 12
LARGEST = 31 * MIB
FITTING = 15 * MIB
"""Four times as much is just what one tenant may have."""


async def reply(node: ScriptedNode, asked: Asked, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """What is asked for in the first word of the prompt: an answer of so many MiB, without it a small one."""
    found = re.search(rb"answer=(\d+)", asked.body[:400])
    writer.write(answer_of(int(found[1]) if found else 0))
    await writer.drain()


@cache
def answer_of(size: int) -> bytes:
    """A whole answer whose text has so many MiB."""
    text = b'{"choices":[{"index":0,"message":{"role":"assistant","content":"'
    end = b'"},"finish_reason":"stop"}],"usage":{"prompt_tokens":1,"completion_tokens":1}}'
    return answer(text + b"x" * (size * MIB) + end)


def ask(content: str, **more: Any) -> bytes:
    return json.dumps({"messages": [{"role": "user", "content": content}], "model": MODEL, **more}).encode()


@cache
def text_body() -> bytes:
    return ask("lorem ipsum " * (FITTING // 12))


@cache
def wide_body() -> bytes:
    return ask("lorem ipsum " * (FITTING // 36) + "😀").replace(b"\\ud83d\\ude00", "😀".encode())


@cache
def body_of(unit: bytes) -> bytes:
    return ask("hi")[:-1] + b',"x":[' + b",".join([unit] * (LARGEST // (len(unit) + 1))) + b"]}"


def send(sock: socket.socket, name: str, body: bytes) -> None:
    sock.sendall(of(name, len(body)))
    sock.sendall(body)
    sock.recv(65_536)


def of(name: str, length: int) -> bytes:
    return head("POST", CHAT, f"content-length: {length}", f"authorization: Bearer {KEYS[name]}")


def text(sock: socket.socket, number: int) -> None:
    send(sock, "attacker", text_body())


def wide_text(sock: socket.socket, number: int) -> None:
    send(sock, "attacker", wide_body())


def small_objects(sock: socket.socket, number: int) -> None:
    units = [b"[]", b"{}", b"1", b'{"a":1}', b'{"role":"user","content":"hi"}']
    send(sock, "attacker", body_of(units[number % len(units)]))


def limited(sock: socket.socket, number: int) -> None:
    send(sock, "limited", text_body())


def never_ending(sock: socket.socket, number: int) -> None:
    """Of no declared length."""
    sock.sendall(head("POST", CHAT, "transfer-encoding: chunked", f"authorization: Bearer {KEYS['attacker']}"))
    for _ in range(64):
        sock.sendall(b"%x\r\n%b\r\n" % (MIB, b" " * MIB))
    sock.recv(65_536)


def broken_off(sock: socket.socket, number: int) -> None:
    sock.sendall(of("attacker", FITTING + MIB) + text_body())
    time.sleep(0.5)


def unread(sock: socket.socket, number: int) -> None:
    """Plain answers that have to be held, of whose bytes nothing is read: some larger than an answer may be."""
    body = ask(f"answer={50 if number % 4 == 0 else 8}", reasoning={"exclude": True})
    sock.sendall(of("attacker", len(body)) + body)
    time.sleep(3)


Attack = Callable[[socket.socket, int], None]
ATTACKS: dict[str, Attack] = {
    attack.__name__: attack for attack in (text, wide_text, small_objects, limited, never_ending, broken_off, unread)
}


@contextlib.asynccontextmanager
async def small_gateway(folder: Path) -> AsyncIterator[GatewayProcess]:
    async with scripted_node(reply) as node:
        tenants = [
            {"name": name, "keys": [{"sha256": hashlib.sha256(key.encode()).hexdigest()}], "limits": LIMITS.get(name)}
            for name, key in KEYS.items()
        ]
        config = {
            "nodes": [{"url": node.url}],
            "tenants": [{name: value for name, value in tenant.items() if value} for tenant in tenants],
            "requests": {"memory": BUDGET, "max_body": LARGEST + MIB, "max_json_values": 100_000},
            "budgets": {"canary": False},
        }
        file = folder / "fleetgate.yaml"
        file.write_text(yaml.safe_dump(config))
        async with gateway_process("-c", file) as gateway:
            resource.prlimit(gateway.process.pid, resource.RLIMIT_DATA, (PROCESS, PROCESS))
            yield gateway


def resident(gateway: GatewayProcess, field: str = "VmRSS") -> int:
    """Bytes."""
    status = Path(f"/proc/{gateway.process.pid}/status").read_text()
    found = re.search(rf"{field}:\s+(\d+) kB", status)
    assert found is not None
    return int(found[1]) * 1024


async def attacked(gateway: GatewayProcess, attack: Attack, seconds: float) -> int:
    """How many requests of the victim were served meanwhile; fails where one was not."""
    numbers = itertools.count()
    over = threading.Event()

    def attacker() -> None:
        while not over.is_set():
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", gateway.port), 20) as sock:
                attack(sock, next(numbers))

    served = 0
    attackers = [threading.Thread(target=attacker) for _ in range(AT_ONCE)]
    for thread in attackers:
        thread.start()
    line = {"authorization": f"Bearer {KEYS['victim']}"}
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    try:
        async with httpx.AsyncClient(base_url=gateway.url, timeout=60, verify=False, headers=line) as victim:
            while loop.time() < end or served < 5:
                got = await victim.post(CHAT, content=ask("hi"))
                assert got.status_code == 200, got.text
                served += 1
                await asyncio.sleep(0.05)
    finally:
        over.set()
        for thread in attackers:
            await asyncio.to_thread(thread.join)
    return served


async def held(gateway: GatewayProcess) -> float:
    async with httpx.AsyncClient(verify=False) as client:
        page = (await client.get(f"{gateway.admin_url}/metrics")).text
    found = re.search(r"^fleetgate_memory_held_bytes (\S+)", page, re.MULTILINE)
    assert found is not None
    return float(found[1])


async def withstands(gateway: GatewayProcess, name: str, seconds: float) -> None:
    before = resident(gateway)
    served = await attacked(gateway, ATTACKS[name], seconds)
    async with asyncio.timeout(60):
        while await held(gateway) > 0:
            await asyncio.sleep(0.2)
    after, peak = resident(gateway), resident(gateway, "VmHWM")
    print(f"{name}: {before >> 20} MB before, peak {peak >> 20}, after {after >> 20}; victim served {served} times")
    assert gateway.process.returncode is None
    assert not gateway.events("request_failed")
    assert peak < PROCESS
    assert after < before + 100 * MIB, "memory was not given back"


async def test_attacks_on_memory_in_short(tmp_path: Path) -> None:
    async with small_gateway(tmp_path) as gateway:
        for name in ("limited", "small_objects", "unread"):
            await withstands(gateway, name, 1.0)


@pytest.mark.prove
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", ATTACKS)
async def test_attacks_on_memory(name: str, tmp_path: Path) -> None:
    async with small_gateway(tmp_path) as gateway:
        await withstands(gateway, name, 60.0)
