"""Two tenants behind one proxy that keeps its connections to the gateway: nobody gets an answer of the other's.

HAProxy runs on the configuration that is shipped, its addresses apart; nginx on one that passes `Upgrade` on. Between
proxy and gateway a wire cuts what goes over it where requests are easily misread: around the end of each head.
"""

import asyncio
import contextlib
import hashlib
import json
import random
import re
import shutil
import socket
from asyncio import StreamReader as Reader
from asyncio import StreamWriter as Writer
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.gateways import running_gateway
from tests.support.nodes import MODEL, Asked, ScriptedNode, answer, scripted_node
from tests.support.raw import RawClient, head, raw_client

CHAT = "/v1/chat/completions"
SHIPPED = Path(__file__).parents[2] / "docker" / "haproxy.cfg"
KEYS = {"attacker": "key-of-the-attacker-0001", "victim": "key-of-the-victim-000002"}
OFFER = ("connection: Upgrade, HTTP2-Settings", "upgrade: h2c", "http2-settings: AAMAAABkAAQCAAAAAAIAAAAA")

NGINX = """
daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/error.log;
events {{ worker_connections 256; }}
http {{
  access_log off; client_body_temp_path {folder}/a; proxy_temp_path {folder}/b; fastcgi_temp_path {folder}/c;
  uwsgi_temp_path {folder}/d; scgi_temp_path {folder}/e;
  upstream gateway {{ server 127.0.0.1:{gateway}; keepalive 4; }}
  server {{
    listen 127.0.0.1:{port};
    location / {{
      proxy_pass http://gateway; proxy_http_version 1.1; proxy_request_buffering off; proxy_buffering off;
      proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
      proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection $http_connection;
    }}
  }}
}}
"""


async def echo(node: ScriptedNode, asked: Asked, reader: Reader, writer: Writer) -> None:
    writer.write(answer(json.dumps({"id": json.loads(asked.body).get("id")}).encode()))


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def haproxy(folder: Path, port: int, gateway: int) -> list[str]:
    text = SHIPPED.read_text().replace("bind :8080", f"bind 127.0.0.1:{port}")
    text = re.sub(r"resolvers containers\n(    .*\n)+", "", text)
    text = re.sub(r" resolvers containers init-addr \S+", "", text)
    text = text.replace("gateway:8080", f"127.0.0.1:{gateway}").replace("    server gateway-2 gateway-2:8080\n", "")
    assert "gateway-2" not in text and "resolvers" not in text, "the shipped configuration has changed: adapt this"
    (folder / "haproxy.cfg").write_text(text)
    return ["haproxy", "-db", "-f", str(folder / "haproxy.cfg")]


def nginx(folder: Path, port: int, gateway: int) -> list[str]:
    (folder / "nginx.conf").write_text(NGINX.format(folder=folder, port=port, gateway=gateway))
    return ["nginx", "-p", str(folder), "-c", str(folder / "nginx.conf"), "-e", str(folder / "error.log")]


@contextlib.asynccontextmanager
async def wire(gateway: int) -> AsyncIterator[int]:
    """The port of a relay to `gateway` that cuts requests in two a few bytes before or behind the end of a head."""
    chance = random.Random(16)

    async def pump(reader: Reader, writer: Writer, cuts: bool) -> None:
        try:
            while data := await reader.read(65_536):
                end = data.find(b"\r\n\r\n") if cuts else -1
                if end > 0:
                    at = min(len(data), max(1, end + chance.choice((-9, 1, 2, 3, 4, 2, 2, -40, 9))))
                    writer.write(data[:at])
                    await asyncio.sleep(0.002)
                    data = data[at:]
                writer.write(data)
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()

    tasks: set[asyncio.Task[None]] = set()

    async def connected(reader: Reader, writer: Writer) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", gateway)
        back.transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for one in (pump(reader, back, True), pump(there, writer, False)):
            task = asyncio.create_task(one)
            tasks.add(task)
            task.add_done_callback(tasks.discard)

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    try:
        yield int(server.sockets[0].getsockname()[1])
    finally:
        server.close()
        for task in [*tasks]:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@contextlib.asynccontextmanager
async def proxy(kind: str, folder: Path, gateway: int) -> AsyncIterator[int]:
    if shutil.which(kind) is None:
        pytest.skip(f"there is no {kind} on this machine")
    port = free_port()
    command = haproxy(folder, port, gateway) if kind == "haproxy" else nginx(folder, port, gateway)
    out = asyncio.subprocess.DEVNULL
    process = await asyncio.create_subprocess_exec(*command, stdout=out, stderr=out)
    try:
        async with asyncio.timeout(30):
            while True:
                assert process.returncode is None, f"{kind} does not take its configuration"
                with contextlib.suppress(OSError, TimeoutError, asyncio.IncompleteReadError):
                    async with raw_client(port, 2) as client:
                        await client.send(head("GET", "/ready"))
                        if (await client.answer("GET")).status == 200:
                            break
                await asyncio.sleep(0.1)
        yield port
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        await process.wait()


def ask(name: str, ident: str, *lines: str) -> bytes:
    """An honest request."""
    raw = json.dumps({"model": MODEL, "id": ident, "messages": [{"role": "user", "content": "hello"}]}).encode()
    return head("POST", CHAT, f"authorization: Bearer {KEYS[name]}", f"content-length: {len(raw)}", *lines) + raw


def attacks() -> list[bytes]:
    """Requests whose bodies look like requests, or grow into some where a head is edited."""
    smuggled = b"GET /smuggled HTTP/1.1\r\nhost: evil\r\nx-swallow: "
    smuggled += b"a" * (-len(smuggled) % 4)
    edited = b'{"x": 1' + b"\r\nupgrade:" * (len(smuggled) // 4) + b"\r\n" + smuggled
    whole = ask("attacker", "smuggled")
    key = f"authorization: Bearer {KEYS['attacker']}"
    made = []
    for body in (edited, whole, b"0\r\n\r\n" + whole, b"\r\n\r\n" + whole):
        for lines in ((), OFFER):
            made.append(head("POST", CHAT, key, f"content-length: {len(body)}", *lines) + body)
            chunks = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
            made.append(head("POST", CHAT, key, "transfer-encoding: chunked", *lines) + chunks)
    return made


async def attack(port: int, stop: asyncio.Event) -> int:
    """Answers other than those that these requests have; each is sent on a connection of its own for some time."""
    wrong = 0
    while not stop.is_set():
        async with raw_client(port, 10) as client:
            for number, sent in enumerate(attacks()):
                honest = f"attacker-{number}"
                try:
                    await client.send(sent)
                    first = await client.answer()
                    await client.send(ask("attacker", honest, *(OFFER if number % 2 else ())))
                    second = await client.answer()
                except (OSError, asyncio.IncompleteReadError):  # closed behind what was no request
                    break
                wrong += first.status not in (400, 502, 503) or second.status != 200 or second.json() != {"id": honest}
    return wrong


async def suffer(port: int, count: int, name: str) -> int:
    """Answers that are not the victim's own."""
    moved = 0
    async with raw_client(port, 10) as client:
        for number in range(count):
            ident = f"{name}-{number}"
            await client.send(ask("victim", ident))
            got = await client.answer()
            moved += got.status != 200 or got.json() != {"id": ident}
    return moved


@pytest.mark.parametrize("kind", ["haproxy", "nginx"])
async def test_no_answer_moves_to_another_tenant(kind: str, tmp_path: Path) -> None:
    digests = {name: hashlib.sha256(key.encode()).hexdigest() for name, key in KEYS.items()}
    tenants = [{"name": name, "keys": [{"sha256": digest}]} for name, digest in digests.items()]
    async with scripted_node(echo) as node, running_gateway(node.url, tenants=tenants) as gateway:
        async with wire(gateway.port) as relay, proxy(kind, tmp_path, relay) as port:
            stop = asyncio.Event()
            attackers = [asyncio.create_task(attack(port, stop)) for _ in range(3)]
            moved = await asyncio.gather(*(suffer(port, 100, name) for name in ("a", "b")))
            stop.set()
            wrong = await asyncio.gather(*attackers)
            assert (sum(moved), sum(wrong)) == (0, 0)
            assert all(json.loads(each.body).get("id") != "smuggled" for each in node.asked)


async def wrong_key(port: int, source: str) -> int:
    """The status for a client at `source` that has no key."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(source, 0))
    try:
        client = RawClient(reader, writer, 10)
        await client.send(head("GET", "/v1/models", "authorization: Bearer wrong"))
        return (await client.answer("GET")).status
    finally:
        writer.transport.abort()


@pytest.mark.parametrize("kind", ["haproxy", "nginx"])
@pytest.mark.parametrize("host", ["127.0.0.1", "::"])
async def test_clients_are_told_apart_behind_a_trusted_proxy(kind: str, host: str, tmp_path: Path) -> None:
    """On a listener of both families, too, where the proxy's address is told as one of IPv6."""
    settings: dict[str, Any] = {
        "tenants": [{"name": "one", "keys": [{"sha256": hashlib.sha256(b"key-of-one-00000001").hexdigest()}]}],
        "access": {"wrong_keys_per_minute": 1},
        "listen": {"trusted_proxies": ["127.0.0.0/30"]},
    }
    async with scripted_node(echo) as node, running_gateway(node.url, host=host, **settings) as gateway:
        async with proxy(kind, tmp_path, gateway.port) as port:
            statuses = [await wrong_key(port, source) for source in ("127.0.0.8", "127.0.0.8", "127.0.0.9")]
    assert statuses == [401, 429, 401]
