"""Who may come in: tenants by their keys, and the administrator by the token."""

import asyncio
from asyncio import StreamReader as Reader
from asyncio import StreamWriter as Writer
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import pytest_asyncio

from gateway.core.access.api_keys import key_digest
from tests.support.catalogs import catalog_node
from tests.support.gateways import RunningGateway, running_gateway
from tests.support.nodes import Asked, ScriptedNode, answer, scripted_node
from tests.support.raw import head, raw_client

pytestmark = pytest.mark.asyncio(loop_scope="module")

ULTRA, SMALL = "nemotron-3-ultra", "nano"
PATHS = (
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/responses",
    "/v1/messages",
    "/v1/messages/count_tokens",
    "/v1/embeddings",
    "/tokenize",
    "/detokenize",
)
ALL, SOME, OLD = "fg-all-models", "fg-only-ultra", "fg-all-models-before"
TOKEN = "admin-token"
TENANTS: list[dict[str, Any]] = [
    {"name": "all", "keys": [{"sha256": key_digest(key).hex()} for key in (ALL, OLD)]},
    {"name": "some", "keys": [{"sha256": key_digest(SOME).hex()}], "models": [ULTRA]},
]
Pair = tuple[ScriptedNode, RunningGateway]


async def plain(node: ScriptedNode, asked: Asked, reader: Reader, writer: Writer) -> None:
    writer.write(answer(b"{}"))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared() -> AsyncIterator[Pair]:
    settings: dict[str, Any] = {
        "tenants": TENANTS,
        "models": [{"name": ULTRA, "aliases": ["big"]}, {"name": SMALL, "aliases": ["little"]}],
        "admin": {"token": TOKEN},
        "access": {"wrong_keys_per_minute": 100_000},
    }
    async with catalog_node(plain, ULTRA, SMALL) as node, running_gateway(node.url, **settings) as gateway:
        yield node, gateway


@pytest.fixture
def served(shared: Pair) -> Pair:
    shared[0].asked.clear()
    return shared


async def ask(gateway: RunningGateway, path: str = PATHS[0], model: str = ULTRA, **headers: str) -> httpx.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    async with httpx.AsyncClient(verify=False, timeout=10) as client:
        return await client.post(gateway.url + path, json={"model": model}, headers=named)


@pytest.mark.parametrize(
    "headers",
    [
        {"authorization": f"Bearer {ALL}"},
        {"authorization": f"bearer {ALL}"},
        {"authorization": f"BEARER   {ALL}"},
        {"x_api_key": ALL},
        {"x_api_key": OLD},
        {"authorization": f"Bearer {ALL}", "x_api_key": "wrong"},
        {"authorization": "Bearer", "x_api_key": ALL},
        {"authorization": "Basic dXNlcjpwYXNz", "x_api_key": ALL},
    ],
)
async def test_a_key_opens_every_endpoint(headers: dict[str, str], served: Pair) -> None:
    node, gateway = served
    for path in PATHS:
        assert (await ask(gateway, path, **headers)).status_code == 200
    async with httpx.AsyncClient(
        verify=False, headers={name.replace("_", "-"): value for name, value in headers.items()}
    ) as client:
        assert (await client.get(f"{gateway.url}/v1/models")).status_code == 200
    for asked in node.asked:
        assert not {"authorization", "x-api-key"} & asked.headers.keys(), (
            "a tenant's key is none of the node's business"
        )


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({}, "missing_api_key"),
        ({"authorization": ""}, "missing_api_key"),
        ({"authorization": "Bearer"}, "missing_api_key"),
        ({"authorization": f"Basic {ALL}"}, "missing_api_key"),
        ({"authorization": ALL}, "missing_api_key"),
        ({"x_api_key": ""}, "missing_api_key"),
        ({"authorization": "Bearer wrong"}, "invalid_api_key"),
        ({"authorization": f"Bearer {ALL} {ALL}"}, "invalid_api_key"),
        ({"authorization": f"Bearer {ALL}x"}, "invalid_api_key"),
        ({"authorization": f"Bearer {ALL[:-1]}"}, "invalid_api_key"),
        ({"authorization": f"Bearer {ALL.upper()}"}, "invalid_api_key"),
        ({"authorization": f"Bearer {key_digest(ALL).hex()}"}, "invalid_api_key"),
        ({"authorization": "Bearer wrong", "x_api_key": ALL}, "invalid_api_key"),
        ({"x_api_key": TOKEN}, "invalid_api_key"),
        ({"x_api_key": "x" * 10_000}, "invalid_api_key"),
    ],
)
async def test_without_a_good_key_nothing_is_served(headers: dict[str, str], code: str, served: Pair) -> None:
    node, gateway = served
    for path in PATHS:
        got = await ask(gateway, path, **headers)
        assert got.status_code == 401
        assert got.headers["www-authenticate"] == "Bearer"
        assert got.headers["x-should-retry"] == "false"
        assert got.headers["x-request-id"] == got.headers["request-id"]
        error = got.json()["error"]
        assert error["type"] == "authentication_error"
        if path.startswith("/v1/messages"):
            assert got.json()["type"] == "error" and got.json()["request_id"] == got.headers["request-id"]
        else:
            assert error["code"] == code
        assert ALL not in got.text and "wrong" not in got.text
    assert node.asked == []


@pytest.mark.parametrize("path", ["/v1/models", f"/v1/models/{ULTRA}", "/v1/responses/resp_00"])
async def test_without_a_good_key_nothing_is_listed(path: str, served: Pair) -> None:
    async with httpx.AsyncClient(verify=False) as client:
        got = await client.get(served[1].url + path)
        assert (got.status_code, got.json()["error"]["code"]) == (401, "missing_api_key")
        assert got.headers["www-authenticate"] == "Bearer"
        assert got.headers["x-should-retry"] == "false"


async def test_health_needs_no_key(served: Pair) -> None:
    async with httpx.AsyncClient(verify=False) as client:
        for url in (served[1].url, served[1].admin_url):
            for path in ("/health", "/ready", f"/ready?model={ULTRA}"):
                assert (await client.get(url + path)).status_code == 200


@pytest.mark.parametrize("line", ["content-length: 100000", "transfer-encoding: chunked"])
async def test_a_stranger_is_refused_before_the_body_is_read(line: str, served: Pair) -> None:
    """The answer comes although not a byte of the body was sent, and the connection ends."""

    async def refused(path: str) -> None:
        async with raw_client(served[1].port) as client:
            await client.send(head("POST", path, line, "x-api-key: wrong"))
            got = await client.answer()
            assert (got.status, got.headers["connection"]) == (401, "close")
            assert await client.closed()

    await asyncio.gather(*map(refused, PATHS))


async def test_a_stranger_learns_nothing_about_models(served: Pair) -> None:
    answers = [await ask(served[1], model=model, x_api_key="wrong") for model in (ULTRA, "none")]
    assert answers[0].json() == answers[1].json()


async def test_a_tenant_uses_its_own_models_only(served: Pair) -> None:
    """By whatever name: what is not allowed looks like what does not exist."""
    _, gateway = served
    for path in PATHS:
        for model in (ULTRA, "big"):
            assert (await ask(gateway, path, model, x_api_key=SOME)).status_code == 200
        refusals = []
        for model in (SMALL, "little", "none"):
            got = await ask(gateway, path, model, x_api_key=SOME)
            assert got.status_code == 404
            refusals.append(got.json()["error"]["message"].replace(repr(model), "NAME"))
            assert (await ask(gateway, path, model, x_api_key=ALL)).status_code == (404 if model == "none" else 200)
        assert len(set(refusals)) == 1


async def test_a_tenant_sees_its_own_models_only(served: Pair) -> None:
    url = f"{served[1].url}/v1/models"
    async with httpx.AsyncClient(verify=False) as client:
        for key, names in ((ALL, {ULTRA, "big", SMALL, "little"}), (SOME, {ULTRA, "big"})):
            listed = await client.get(url, headers={"x-api-key": key})
            assert {card["id"] for card in listed.json()["data"]} == names
            for name in (ULTRA, "big", SMALL, "little"):
                one = await client.get(f"{url}/{name}", headers={"x-api-key": key})
                assert one.status_code == (200 if name in names else 404)


async def test_a_tenant_with_one_model_need_not_name_it(served: Pair) -> None:
    node, gateway = served
    async with httpx.AsyncClient(verify=False, headers={"x-api-key": SOME}) as client:
        assert (await client.post(gateway.url + PATHS[0], json={})).status_code == 200
        assert node.asked[-1].body == b"{}"
        got = await client.post(gateway.url + PATHS[0], json={}, headers={"x-api-key": ALL})
        assert (got.status_code, got.json()["error"]["param"]) == (400, "model")


async def test_without_tenants_everybody_is_served_whatever_they_send() -> None:
    async with scripted_node(plain) as node, running_gateway(node.url) as gateway:
        for headers in ({}, {"x_api_key": "anything"}, {"authorization": "Bearer sk-dummy"}):
            assert (await ask(gateway, **headers)).status_code == 200


@pytest.mark.parametrize("path", [PATHS[0], "/v1/messages", "/v1/models"])
async def test_wrong_keys_are_slowed_down_by_the_address_that_a_trusted_proxy_tells(path: str) -> None:
    settings: dict[str, Any] = {"tenants": TENANTS, "access": {"wrong_keys_per_minute": 2}}
    async with scripted_node(plain) as node:
        for trusted in (True, False):
            listen = {"trusted_proxies": ["127.0.0.1"] if trusted else []}
            async with running_gateway(node.url, listen=listen, **settings) as gateway, httpx.AsyncClient() as client:

                async def status(address: str, key: str = "wrong") -> int:
                    headers = {"x-forwarded-for": address, "x-api-key": key}
                    method = "GET" if path == "/v1/models" else "POST"
                    got = await client.request(method, gateway.url + path, json={"model": ULTRA}, headers=headers)
                    if got.status_code == 429:
                        assert 25 <= int(got.headers["retry-after"]) <= 30
                        assert got.json()["error"]["type"] == "rate_limit_error"
                    return got.status_code

                assert [await status("2001:db8::1") for _ in range(3)] == [401, 401, 429]
                assert await status("2001:db8::2") == 429, "the same /64"
                assert await status("192.0.2.1") == (401 if trusted else 429)
                assert await status("2001:db8::1", ALL) == 200, "a right key from there still works"


# The administrator

READ_ROUTES = (
    ("GET", "/metrics"),
    ("GET", "/admin/nodes"),
    ("GET", "/admin/fleet"),
    ("GET", "/admin/tenants"),
    ("GET", "/admin/keys"),
)
ADMIN_ROUTES = (
    *READ_ROUTES,
    ("GET", "/admin/audit"),
    ("GET", "/admin/usage"),
    ("POST", "/admin/reload"),
    ("POST", "/admin/drain"),
    ("POST", "/admin/undrain"),
    ("GET", "/admin/drain/{name}"),
    ("POST", "/admin/tenants"),
    ("GET", "/admin/tenants/{name}"),
    ("PATCH", "/admin/tenants/{name}"),
    ("DELETE", "/admin/tenants/{name}"),
    ("POST", "/admin/keys"),
    ("GET", "/admin/requests/{request_id}"),
    ("DELETE", "/admin/requests/{request_id}"),
    ("GET", "/admin/export"),
    ("POST", "/admin/import"),
    ("GET", "/admin/limits/{name}"),
    ("GET", "/admin/blocks"),
    ("GET", "/admin/console/sessions"),
    ("DELETE", "/admin/console/sessions/{id}"),
    ("POST", "/admin/block"),
    ("POST", "/admin/unblock"),
    ("DELETE", "/admin/keys/{id}"),
    ("POST", "/admin/keys/{id}/rotate"),
)


def routes_of(gateway: RunningGateway) -> set[tuple[str, str]]:
    """What the admin application serves, as its own OpenAPI page tells it."""
    paths = gateway.app.admin.openapi()["paths"]
    return {(method.upper(), path) for path, methods in paths.items() for method in methods}


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 401),
        ({"authorization": "Bearer wrong"}, 401),
        ({"authorization": f"Bearer {TOKEN}x"}, 401),
        ({"authorization": f"Basic {TOKEN}"}, 401),
        ({"authorization": TOKEN}, 401),
        ({"authorization": f"Bearer {ALL}"}, 401),
        ({"x-api-key": TOKEN}, 401),
        ({"authorization": "Bearer \xe9"}, 401),
        ({"authorization": f"Bearer {TOKEN}"}, 200),
        ({"authorization": f"bearer {TOKEN}"}, 200),
    ],
)
async def test_the_token_opens_every_admin_route(headers: dict[str, str], status: int, served: Pair) -> None:
    _, gateway = served
    assert routes_of(gateway) - {("GET", "/health"), ("GET", "/ready")} == set(ADMIN_ROUTES), "add the new route here"
    async with httpx.AsyncClient(verify=False, headers=httpx.Headers(headers, encoding="latin-1")) as client:
        for method, path in ADMIN_ROUTES:
            got = await client.request(method, gateway.admin_url + path)
            # This gateway cannot reload or create anything, and says so to those who may ask.
            refused = (method, path) not in READ_ROUTES and got.status_code in (400, 404, 409, 422)
            assert got.status_code == status or (status == 200 and (refused or path == "/admin/audit"))
            assert TOKEN not in got.text


async def test_the_admin_routes_are_not_on_the_public_port(served: Pair) -> None:
    async with httpx.AsyncClient(
        verify=False, headers={"authorization": f"Bearer {TOKEN}", "x-api-key": ALL}
    ) as client:
        for method, path in ADMIN_ROUTES:
            assert (await client.request(method, served[1].url + path)).status_code == 404


async def test_the_public_routes_are_not_on_the_admin_port(served: Pair) -> None:
    async with httpx.AsyncClient(
        verify=False, headers={"authorization": f"Bearer {TOKEN}", "x-api-key": ALL}
    ) as client:
        for path in PATHS:
            assert (await client.post(served[1].admin_url + path, json={"model": ULTRA})).status_code == 404
    assert served[0].asked == []


async def test_open_metrics_opens_the_metrics_only() -> None:
    admin = {"token": TOKEN, "open_metrics": True}
    async with scripted_node(plain) as node, running_gateway(node.url, admin=admin) as gateway:
        async with httpx.AsyncClient(verify=False) as client:
            got = await client.get(f"{gateway.admin_url}/metrics")
            assert got.status_code == 200 and "fleetgate_node_ready" in got.text
            for method, path in ADMIN_ROUTES[1:]:
                assert (await client.request(method, gateway.admin_url + path)).status_code == 401


async def test_without_a_token_the_admin_listener_is_open() -> None:
    """As the default on loopback is; the configuration refuses it anywhere else."""
    async with scripted_node(plain) as node, running_gateway(node.url) as gateway:
        async with httpx.AsyncClient(verify=False) as client:
            nodes = (await client.get(f"{gateway.admin_url}/admin/nodes")).json()
            assert [(seen["url"], seen["ready"], seen["in_flight"]) for seen in nodes] == [(node.url, True, 0)]
