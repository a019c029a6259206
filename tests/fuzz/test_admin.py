"""The admin listener answers whatever it is sent: with words, and without having done half of it."""

import asyncio
import json
import random
from collections import Counter
from typing import Any

import httpx

from gateway.core.access.api_keys import key_digest
from tests.fuzz.admin import Drawn, draw, routes_of
from tests.support.gateways import running_gateway
from tests.support.redis import redis_server

FILE = [{"name": "in-file", "keys": [{"sha256": key_digest("fg-of-the-file").hex()}]}]
DRAWS = 2500


async def test_nothing_that_is_sent_to_the_admin_listener_breaks_it() -> None:
    """No 500, no change by what was refused, and it serves on. 2,500 requests over all its routes."""
    async with redis_server() as redis:
        settings: dict[str, Any] = {
            "redis": redis.settings,
            "access": {"stored": True},
            "tenants": FILE,
            "models": [{"name": "big", "aliases": ["b"]}],
        }
        async with running_gateway("http://127.0.0.1:1", ready=False, **settings) as gateway:
            routes = [route for route in routes_of(gateway.app.admin.openapi()) if route[1] != "/metrics"]
            assert len(routes) > 15, routes
            async with httpx.AsyncClient(base_url=gateway.admin_url, timeout=30) as admin:
                for name in ("acme", "t0"):
                    assert (await admin.post("/admin/tenants", json={"name": name})).status_code == 201
                statuses: Counter[int] = Counter()
                wrong = []
                for number in range(DRAWS):
                    drawn = draw(random.Random(number), routes)
                    answer, problem = await asked(admin, redis.client, drawn)
                    statuses[answer.status_code] += 1
                    if problem:
                        wrong.append(f"{number}: {problem}: {drawn!r:.400}: {answer.status_code} {answer.text[:300]}")
                assert not wrong, "\n".join(wrong)
                assert {200, 201, 404, 422} <= statuses.keys()
                assert (await admin.get("/admin/tenants")).status_code == 200
                assert (await admin.get("/admin/audit")).status_code == 200


async def asked(admin: httpx.AsyncClient, client: Any, drawn: Drawn) -> tuple[httpx.Response, str]:
    """The answer, and what is wrong about it."""
    url = httpx.URL(admin.base_url).copy_with(raw_path=drawn.path.encode())
    before = await asyncio.to_thread(kept, client) if drawn.body is not None else {}
    headers = {"content-type": drawn.type} if drawn.type else {}
    answer = await admin.request(drawn.method, url, content=drawn.body, headers=headers)
    if answer.status_code < 400 or drawn.path.startswith("/ready"):
        return answer, ""
    if answer.status_code >= 500:
        return answer, "failed"
    told = json.loads(answer.text)
    if not told.get("detail") and not told.get("problems"):
        return answer, "says nothing"
    if drawn.body is not None and await asyncio.to_thread(kept, client) != before:
        return answer, "changed something"
    return answer, ""


def kept(client: Any) -> dict[bytes, Any]:
    """What stands in Redis of tenants and keys."""
    with client() as redis:
        names = [name for name in redis.scan_iter() if name.endswith((b":tenants", b":keys"))]
        return {name: redis.hgetall(name) for name in sorted(names)}
