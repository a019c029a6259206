"""docs/redis-keys.md lists every key: a gateway that uses all that it can writes these, of these types, no others."""

import asyncio
import re
from asyncio import StreamReader as Reader
from asyncio import StreamWriter as Writer
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from gateway.console.exchange import ConsoleExchange, new_order
from gateway.core.fleet.capabilities import Capabilities
from gateway.core.responses.kept_ids import Place
from gateway.responses.turns import Turns
from tests.support.gateways import RunningGateway, eventually, running_gateway
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
from tests.support.redis import RedisServer, redis_server
from tests.support.registrations import record
from workers.registration import Capacity
from workers.registry import RedisRegistry

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "redis-keys.md"
TYPES = {"hash": "hash", "string": "string", "stream": "stream", "set": "set", "sorted set": "zset"}
LIMITS = {"requests_per_minute": 100, "tokens_per_day": 10**6, "usd_per_month": 100, "concurrent_requests": 9}
ADMIN = {"authorization": "Bearer admin"}


@dataclass(frozen=True, slots=True)
class Row:
    """One key of the page. `expires`: it has a time to live."""

    name: str
    type: str
    owner: str
    expires: bool

    def fits(self, key: str) -> bool:
        """Words in capitals stand for any text. Routing groups have keys of the same names."""
        key = key.replace("{route:group}", "{route}")
        parts = re.split("([A-Z]+)", self.name)
        pattern = "".join("[^{}]+" if part.isupper() else re.escape(part) for part in parts)
        return re.fullmatch(pattern, key) is not None


def rows() -> list[Row]:
    found, expires = [], False
    for line in PAGE.read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("| `") and len(cells) == 5:
            if cells[3] != "as above":
                expires = not cells[3].startswith("never")
            found.append(Row(cells[0].strip("`"), TYPES[cells[1]], cells[2].strip("`"), expires))
    return found


@dataclass(slots=True)
class Keys:
    """All keys that were seen so far: their types, and whether they had a time to live."""

    redis: RedisServer
    seen: dict[str, tuple[str, bool]]

    def look(self) -> set[str]:
        with self.redis.client(decode_responses=True) as client:
            for key in client.scan_iter(count=1000):
                kind, ttl = client.type(key), client.ttl(key)
                if kind != "none":  # else it went in between
                    self.seen[key] = kind, ttl != -1
        return set(self.seen)


class Curtain:
    """A node whose answers begin when the curtain rises: until then a prompt is pending."""

    def __init__(self) -> None:
        self.up = asyncio.Event()

    async def reply(self, node: ScriptedNode, asked: Asked, reader: Reader, writer: Writer) -> None:
        if asked.path == "/v1/completions":  # the gateway's own, of a node that has come late
            writer.write(answer(b"{}"))
            return
        await self.up.wait()
        writer.write(STREAM_HEAD + chunk(event("first")) + chunk(DONE) + LAST_CHUNK)


def gateway_settings(redis: RedisServer) -> dict[str, Any]:
    return {
        "redis": redis.settings,
        "access": {"stored": True},
        "admin": {"token": "admin"},
        "pressure": {"enabled": True},
        "models": [{"name": MODEL, "price": {"input": 1, "output": 2}, "routing_group": "group"}],
        "discovery": {"registrations": {"networks": ["127.0.0.0/8"], "interval": 0.05}},
    }


async def use_everything(gateway: RunningGateway, other: RunningGateway, keys: Keys, curtain: Curtain) -> None:
    """Tenants, keys, limits in every scope, placement, usage, drains and the audit, by way of HTTP alone."""
    async with httpx.AsyncClient(base_url=gateway.admin_url, headers=ADMIN, timeout=30) as admin:

        async def admin_does(method: str, path: str, **body: Any) -> Any:
            told = await admin.request(method, f"/admin{path}", json=body)
            assert told.status_code < 300, told.text
            return told.json()

        per_model = [{"model": MODEL, "limits": LIMITS}]
        await admin_does("POST", "/tenants", name="acme", limits=LIMITS, per_model=per_model)
        key = (await admin_does("POST", "/keys", tenant="acme", limits=LIMITS))["key"]
        async with httpx.AsyncClient(headers={"authorization": f"Bearer {key}"}, timeout=60) as client:
            body = {"model": MODEL, "messages": [{"role": "user", "content": "hello"}], "stream": True}
            # One of them has to wait. A gateway tells that where it does not know by itself that all nodes are full.
            urls = [f"{each.url}/v1/chat/completions" for each in (gateway, other, gateway)]
            asking = [asyncio.create_task(client.post(url, json=body)) for url in urls]
            group = "fg1:{route:group}"
            await eventually(lambda: {f"{group}:pending", f"{group}:waiting:{MODEL}"} <= keys.look())
            curtain.up.set()
            assert [(await each).status_code for each in asking] == [200] * 3
            await eventually(lambda: any("corrected" in key for key in keys.look()))
        node = gateway.app.fleet.nodes[0].name
        await admin_does("POST", "/drain", node=node)
        await admin_does("POST", "/undrain", node=node)
        await admin_does("POST", "/block", key=f"key_{'0' * 16}")
        async with httpx.AsyncClient(base_url=gateway.admin_url, headers={"origin": gateway.admin_url}) as operator:
            signed_in = await operator.post("/console/session", json={"name": "Ada", "token": "admin"})
            assert signed_in.status_code == 200
            await eventually(lambda: "fg1:{console}:sessions" in keys.look())
            (session,) = (await operator.get("/admin/console/sessions")).json()
            await admin_does("DELETE", f"/console/sessions/{session['id']}")
        ledger = gateway.app.ledger
        assert ledger is not None
        await eventually(lambda: ledger.waiting == 0 and "fg1:{usage}:records" in keys.look())


async def test_every_key_is_on_the_page_and_every_row_is_a_key() -> None:
    curtain = Curtain()
    async with redis_server() as redis, scripted_node(curtain.reply) as one, scripted_node(curtain.reply) as other:
        keys, settings = Keys(redis, {}), gateway_settings(redis)
        settings["nodes"] = [{"url": one.url, "max_concurrency": 1}]
        async with running_gateway(**settings) as first, running_gateway(**settings) as second:
            async with RedisRegistry(redis.url, None) as registry:
                await registry.announce(
                    record(other.url, models=(MODEL,), capacity=Capacity(max_concurrency=1, max_model_len=4096))
                )
            for each in (first, second):  # a choice is only made among several
                await eventually(lambda: sum(node.ready for node in each.app.fleet.nodes) == 2)  # noqa: B023
            await use_everything(first, second, keys, curtain)
            await first.app.prober.sharing.prove(other.url, 1.0, Capabilities())  # no canary is run here
            assert first.app.redis is not None
            await Turns(first.app.redis).keep("acme", Place("c" * 24, "7" * 16), None, "", b"sealed", 60.0, 10**6)
            wanted = {"fg1:{sights}:views", f"fg1:{{pressure}}:{MODEL}", "fg1:{probes}:found"}
            await eventually(lambda: wanted <= keys.look())
            console = ConsoleExchange(first.app.fleet, first.app.redis, None, "one")
            await console.exchange({}, watching=True, order=(new_order(), {}))  # a console is open, and ends a request
            keys.look()
        keys.look()  # what is noted at the end: when keys were used last
    page = rows()
    assert len({row.name for row in page}) == len(page) > 20
    fitting = {key: [row for row in page if row.fits(key)] for key in keys.seen}
    assert all(len(found) == 1 for found in fitting.values()), {k: v for k, v in fitting.items() if len(v) != 1}
    wrong = {
        key: (seen, found[0])
        for key, found in fitting.items()
        if (seen := keys.seen[key]) != (found[0].type, found[0].expires)
    }
    assert not wrong
    assert {row.name for row in page} == {found[0].name for found in fitting.values()}


def test_the_owners_are_there() -> None:
    for row in rows():
        assert (ROOT / "gateway" / row.owner).is_file() or (ROOT / row.owner).is_file(), row
