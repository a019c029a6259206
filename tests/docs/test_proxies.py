"""The configurations of docs/proxies.md for nginx and HAProxy, run in front of a gateway."""

import asyncio
import contextlib
import json
import re
import shutil
import socket
from asyncio import StreamReader as Reader
from asyncio import StreamWriter as Writer
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
import yaml

from gateway.config.timeouts import Timeouts
from tests.docs.site_hooks import ROOT
from tests.docs.test_first_tenant import free_ports
from tests.support.certificates import self_signed
from tests.support.gateway_process import gateway_process
from tests.support.gateways import eventually
from tests.support.nodes import (
    DONE,
    LAST_CHUNK,
    MODEL,
    STREAM_HEAD,
    Asked,
    ScriptedNode,
    answer,
    chunk,
    event,
    scripted_node,
)

PAGE = (ROOT / "docs" / "proxies.md").read_text()
NGINX = """
daemon off; worker_processes 1; pid {folder}/pid; error_log {folder}/error.log; events {{}}
http {{
  access_log off; client_body_temp_path {folder}/a; proxy_temp_path {folder}/b; fastcgi_temp_path {folder}/c;
  uwsgi_temp_path {folder}/d; scgi_temp_path {folder}/e;
  {config}
}}
"""
CLIENT = "127.0.0.2"
"""Another address than the proxy's, so that the gateway can tell them apart."""


def configuration(kind: str, folder: Path, port: int, gateway: int, nobody: int) -> Path:
    """The page's file with its addresses and paths replaced: `nobody` is the port of a gateway that is gone."""
    found = re.search(rf"^```{kind}\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    assert found is not None
    made = self_signed(folder)
    (folder / "both.pem").write_text(made.cert.read_text() + made.key.read_text())
    replaced = {
        "10.0.0.10:8080": f"127.0.0.1:{nobody}",
        "10.0.0.11:8080": f"127.0.0.1:{gateway}",
        "listen 443 ": f"listen 127.0.0.1:{port} ",
        "bind :443 ": f"bind 127.0.0.1:{port} ",
        "/etc/nginx/tls.crt": str(made.cert),
        "/etc/nginx/tls.key": str(made.key),
        "/etc/haproxy/fleetgate.pem": str(folder / "both.pem"),
    }
    config = found[1]
    for shown, here in replaced.items():
        config = config.replace(shown, here)
    assert "10.0.0." not in config and "/etc/" not in config and re.search(r":443\b", config) is None
    file = folder / f"{kind}.conf"
    file.write_text(NGINX.format(folder=folder, config=config) if kind == "nginx" else config)
    return file


@contextlib.asynccontextmanager
async def proxy(kind: str, folder: Path, gateway: int) -> AsyncIterator[httpx.AsyncClient]:
    """A client behind the proxy, once the proxy has a gateway."""
    if shutil.which(kind) is None:
        pytest.skip(f"there is no {kind} on this machine")
    (port,) = free_ports(1)
    gone = socket.socket()  # its port is taken, and nobody listens there
    gone.bind(("127.0.0.1", 0))
    file = str(configuration(kind, folder, port, gateway, gone.getsockname()[1]))
    command = ["haproxy", "-db", "-f", file] if kind == "haproxy" else ["nginx", "-p", str(folder), "-c", file]
    with (folder / "output").open("wb") as out:
        process = await asyncio.create_subprocess_exec(*command, stdout=out, stderr=out)
    transport = httpx.AsyncHTTPTransport(verify=False, local_address=CLIENT)
    try:
        async with httpx.AsyncClient(transport=transport, base_url=f"https://127.0.0.1:{port}", timeout=60) as client:

            async def is_ready() -> bool:
                assert process.returncode is None, (folder / "output").read_text()
                with contextlib.suppress(httpx.TransportError):
                    return (await client.get("/ready")).status_code == 200
                return False

            async with asyncio.timeout(60):
                while not await is_ready():
                    await asyncio.sleep(0.1)
            yield client
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        await process.wait()
        gone.close()


def asked(prompt: str, **fields: object) -> dict[str, object]:
    return {"model": MODEL, "messages": [{"role": "user", "content": prompt}], **fields}


@pytest.mark.parametrize("kind", ["nginx", "haproxy"])
async def test_events_bodies_and_addresses_pass_as_the_page_says(kind: str, tmp_path: Path) -> None:
    """One of the two gateways is gone: each request goes to the other. An event is with the client before the node has
    made the next one; a body of 12 MiB arrives; the client's address is found, and not the one that it made up."""
    was_read = asyncio.Event()
    sizes: list[int] = []

    async def reply(node: ScriptedNode, request: Asked, reader: Reader, writer: Writer) -> None:
        sizes.append(len(request.body))
        if json.loads(request.body).get("stream"):
            writer.write(STREAM_HEAD + chunk(event("first")))
            await was_read.wait()
            writer.write(chunk(event("second") + DONE) + LAST_CHUNK)
        else:
            choice = {"index": 0, "message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}
            writer.write(answer(json.dumps({"id": "c", "object": "chat.completion", "choices": [choice]}).encode()))

    file = tmp_path / "fleetgate.yaml"
    async with scripted_node(reply) as node:
        file.write_text(
            yaml.safe_dump(
                {
                    "nodes": [{"url": node.url}],
                    "listen": {"trusted_proxies": ["127.0.0.1"]},
                    "budgets": {"canary": False},
                }
            )
        )
        async with gateway_process("-c", file) as gateway, proxy(kind, tmp_path, gateway.port) as client:
            headers = {"x-forwarded-for": "198.51.100.7"}
            path = "/v1/chat/completions"
            async with client.stream("POST", path, json=asked("hi", stream=True), headers=headers) as streamed:
                assert streamed.status_code == 200
                events = []
                async for line in streamed.aiter_lines():
                    events.append(line)
                    if "first" in line:
                        was_read.set()
            assert any("second" in line for line in events) and "data: [DONE]" in events
            large = await client.post(path, json=asked("x" * (12 << 20)), headers=headers)
            assert large.status_code == 200 and max(sizes) > 12 << 20
            await eventually(lambda: len(gateway.events("request")) == 2)
            assert {line["address"] for line in gateway.events("request")} == {CLIENT}


@pytest.mark.parametrize("kind", ["nginx", "haproxy"])
def test_a_plain_answer_may_be_silent_as_long_as_the_gateway_waits(kind: str) -> None:
    """`timeouts.non_streaming` is half an hour, which no test waits for."""
    found = re.search(rf"^```{kind}\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    assert found is not None
    names = {"nginx": ("proxy_read_timeout", "proxy_send_timeout"), "haproxy": ("timeout client", "timeout server")}
    for name in names[kind]:
        hours = re.search(rf"^\s*{name} (\d+)h;?$", found[1], re.MULTILINE)
        assert hours is not None and int(hours[1]) * 3600 > Timeouts().non_streaming
