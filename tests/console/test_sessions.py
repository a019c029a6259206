"""Sessions of the console: who gets one, what it opens, and what other pages cannot do with it."""

from typing import Any

import httpx
import pytest

from tests.console.chromium import TOKEN
from tests.console.operators import operator
from tests.support.gateways import RunningGateway, running_gateway

ADMIN: dict[str, Any] = {"admin": {"token": TOKEN, "hosts": []}}
OTHER = "a-token-of-ops-team-2"


async def status(client: httpx.AsyncClient, method: str = "GET", path: str = "/admin/nodes", **headers: str) -> int:
    body: dict[str, Any] = {"json": {"node": "nobody:1"}} if method == "POST" else {}
    return (await client.request(method, path, headers=headers, **body)).status_code


async def test_a_session_opens_what_its_token_opens_and_names_the_person() -> None:
    admin: dict[str, Any] = {"admin": {"tokens": [{"name": "ops", "token": OTHER}], "hosts": []}}
    async with running_gateway(ready=False, **admin) as gateway, operator(gateway.admin_url, "Zoë", OTHER) as client:
        assert await status(client) == 200
        assert (await client.get("/console/session")).json()["session"]["name"] == "Zoë"
        assert [(each.name, each.path) for each in client.cookies.jar] == [(f"fleetgate-{gateway.admin_port}", "/")]
        await client.delete("/console/session")
        assert await status(client) == 401


async def test_the_cookie_is_not_for_scripts_nor_for_other_sites() -> None:
    async with running_gateway(ready=False, **ADMIN) as gateway:
        for origin, secure in ((gateway.admin_url, False), (gateway.admin_url.replace("http:", "https:"), True)):
            async with httpx.AsyncClient(base_url=gateway.admin_url, headers={"origin": origin}) as client:
                got = await client.post("/console/session", json={"name": "Ada", "token": TOKEN})
            words = got.headers["set-cookie"].split("; ")
            assert {"HttpOnly", "SameSite=Strict", "Path=/"} < {*words}
            assert ("Secure" in words) is secure and words[0].startswith("__Host-") is secure
            assert TOKEN not in got.text + got.headers["set-cookie"]


async def test_any_process_with_the_token_knows_the_session_and_none_with_another() -> None:
    async with running_gateway(ready=False, **ADMIN) as one, running_gateway(ready=False, **ADMIN) as two:
        async with operator(one.admin_url) as client:
            (cookie,) = client.cookies.jar
        headers = {"cookie": f"fleetgate-{two.admin_port}={cookie.value}"}
        async with httpx.AsyncClient(base_url=two.admin_url) as client:
            assert await status(client, **headers) == 200
        other: dict[str, Any] = {"admin": {"token": OTHER, "hosts": []}}
        async with running_gateway(ready=False, **other) as gateway:
            headers = {"cookie": f"fleetgate-{gateway.admin_port}={cookie.value}"}
            async with httpx.AsyncClient(base_url=gateway.admin_url) as client:
                assert await status(client, **headers) == 401


async def test_wrong_tokens_are_throttled_by_address() -> None:
    async with running_gateway(ready=False, access={"wrong_keys_per_minute": 3}, **ADMIN) as gateway:
        headers = {"origin": gateway.admin_url}
        async with httpx.AsyncClient(base_url=gateway.admin_url, headers=headers) as client:
            found = [
                (await client.post("/console/session", json={"name": "Ada", "token": f"wrong-{number}"})).status_code
                for number in range(5)
            ]
            last = await client.post("/console/session", json={"name": "Ada", "token": TOKEN})
            bearer = await client.get("/admin/nodes", headers={"authorization": f"Bearer {TOKEN}"})
    assert found == [401, 401, 401, 429, 429]
    assert last.status_code == bearer.status_code == 429 and int(last.headers["retry-after"]) > 0


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ({"name": "", "token": TOKEN}, 422),
        ({"name": "a@b", "token": TOKEN}, 422),
        ({"name": "Ada\u202e", "token": TOKEN}, 422),
        ({"name": "Ada", "token": TOKEN, "more": 1}, 422),
        ({"name": ["Ada"], "token": TOKEN}, 422),
        ({"name": "Ada", "token": "x" * 5000}, 422),
        ({"name": "Ada", "token": ""}, 401),
        ({"name": "Ada"}, 401),
        ({"name": "Ada", "token": TOKEN + " "}, 200),
    ],
)
async def test_what_is_sent_to_sign_in(given: dict[str, Any], wanted: int) -> None:
    async with running_gateway(ready=False, **ADMIN) as gateway:
        async with httpx.AsyncClient(base_url=gateway.admin_url, headers={"origin": gateway.admin_url}) as client:
            got = await client.post("/console/session", json=given)
    assert got.status_code == wanted, got.text
    assert TOKEN not in got.text


async def _attempts(gateway: RunningGateway, client: httpx.AsyncClient) -> dict[str, int]:
    """What pages of others can have a browser send, with the session's cookie."""
    own = gateway.admin_url
    cookie = {"cookie": "; ".join(f"{each.name}={each.value}" for each in client.cookies.jar)}
    async with httpx.AsyncClient(base_url=own, headers=cookie) as browser:
        return {
            "another site's form": await status(browser, "POST", "/admin/drain", origin="https://evil.example"),
            "a sandboxed frame": await status(browser, "POST", "/admin/drain", origin="null"),
            "another port": await status(browser, "POST", "/admin/drain", origin="http://127.0.0.1:1"),
            "no origin at all": await status(browser, "POST", "/admin/drain"),
            "an end from elsewhere": await status(
                browser, "DELETE", "/admin/requests/x", origin="https://evil.example"
            ),
            "a sign-out from elsewhere": await status(
                browser, "DELETE", "/console/session", origin="https://e.example"
            ),
            "a read from another site": await status(browser, **{"sec-fetch-site": "cross-site"}),
            "a read from another port": await status(browser, **{"sec-fetch-site": "same-site"}),
            "a stream from another port": await status(
                browser, path="/console/live", **{"sec-fetch-site": "same-site"}
            ),
            "a playground's from elsewhere": await status(
                browser, "POST", "/console/playground/v1/chat/completions", origin="https://evil.example"
            ),
        }


async def test_other_pages_can_do_nothing_with_a_session() -> None:
    async with running_gateway(ready=False, **ADMIN) as gateway, operator(gateway.admin_url) as client:
        found = await _attempts(gateway, client)
        assert found == dict.fromkeys(found, 403)
        assert await status(client, "POST", "/admin/drain") == 404, "its own page is served"


async def test_a_name_that_was_pointed_here_is_not_served() -> None:
    """DNS rebinding: the page's own name leads to this listener, so its requests have one origin with it."""
    async with running_gateway(ready=False, **ADMIN) as gateway, operator(gateway.admin_url) as client:
        port = gateway.admin_port
        (cookie,) = client.cookies.jar
        headers = {"host": f"evil.example:{port}", "origin": f"http://evil.example:{port}"}
        session = {"cookie": f"fleetgate-{port}={cookie.value}"}
        async with httpx.AsyncClient(base_url=gateway.admin_url, headers=headers) as browser:
            sign_in = await browser.post("/console/session", json={"name": "Ada", "token": TOKEN})
            found = {
                "the page": (await browser.get("/console")).status_code,
                "a file": (await browser.get("/console/static/app.js")).status_code,
                "sign-in": sign_in.status_code,
                "a read": (await browser.get("/admin/nodes", headers=session)).status_code,
                "the stream": (await browser.get("/console/live", headers=session)).status_code,
                "a change": (await browser.post("/admin/drain", json={"node": "a:1"}, headers=session)).status_code,
            }
        assert found == dict.fromkeys(found, 403)
        assert "admin.hosts" in sign_in.json()["detail"]


async def test_a_listed_name_is_served() -> None:
    async with running_gateway(ready=False, admin={"token": TOKEN, "hosts": ["console.example"]}) as gateway:
        headers = {"host": "console.example", "origin": "https://console.example"}
        async with httpx.AsyncClient(base_url=gateway.admin_url, headers=headers) as browser:
            assert (await browser.get("/console")).status_code == 200
            got = await browser.post("/console/session", json={"name": "Ada", "token": TOKEN})
            assert got.status_code == 200 and got.headers["set-cookie"].startswith("__Host-fleetgate-0=")


async def test_nobody_frames_it_and_it_runs_nothing_of_others() -> None:
    async with running_gateway(ready=False, **ADMIN) as gateway:
        async with httpx.AsyncClient(base_url=gateway.admin_url) as client:
            for path in ("/console", "/console/static/app.js", "/console/static/console.css"):
                headers = (await client.get(path)).headers
                policy = headers["content-security-policy"]
                assert headers.get_list("content-security-policy") == [policy]
                assert "frame-ancestors 'none'" in policy and "unsafe" not in policy and "http" not in policy
                assert "require-trusted-types-for 'script'" in policy
                assert (headers["x-frame-options"], headers["x-content-type-options"]) == ("DENY", "nosniff")
            assert (await client.get("/")).headers["location"] == "/console"
            assert (await client.get("/console/static/../sessions.py")).status_code in (401, 404)
            assert (await client.get("/console/static/no.js")).status_code == 401


async def test_without_tokens_only_a_name_is_asked_for() -> None:
    async with running_gateway(ready=False, admin={"hosts": []}) as gateway:
        async with httpx.AsyncClient(base_url=gateway.admin_url, headers={"origin": gateway.admin_url}) as client:
            assert (await client.get("/console/session")).json() == {"session": None, "needs_token": False}
            assert await status(client, path="/console/live") == 401
            got = await client.post("/console/session", json={"name": "Ada"})
            assert got.json()["session"]["token"] == "anybody"
            assert await status(client, path="/admin/nodes") == 200


async def test_the_playground_is_for_those_who_signed_in() -> None:
    """Beside that, it is the data plane: a tenant's key counts, and an admin's does not."""
    async with running_gateway(ready=False, **ADMIN) as gateway:
        path = "/console/playground/v1/chat/completions"
        body = {"model": "m", "messages": [{"role": "user", "content": "x"}]}
        headers = {"origin": gateway.admin_url}
        async with httpx.AsyncClient(base_url=gateway.admin_url, headers=headers) as client:
            assert (await client.post(path, json=body)).status_code == 401
            bearer = {"authorization": f"Bearer {TOKEN}"}
            assert (await client.post(path, json=body, headers=bearer)).status_code == 401
        async with operator(gateway.admin_url) as client:
            got = await client.post(path, json=body)
            assert got.status_code == 503 and got.json()["error"]["code"] == "no_node_ready"
            assert (await client.get("/v1/models")).status_code == 404, "the rest of the data plane is not here"
            assert (await client.post("/console/playground/v1/nothing", json=body)).status_code == 404
