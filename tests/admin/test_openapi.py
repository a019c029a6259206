"""/openapi.json of the admin listener: every route has words, a tag, and asks for the token."""

import httpx

from tests.support.gateways import running_gateway

OPEN = ("/health", "/ready")


async def test_every_route_is_described_tagged_and_asks_for_the_token() -> None:
    async with running_gateway(ready=False, admin={"token": "t" * 20}) as gateway, httpx.AsyncClient() as client:
        url = f"{gateway.admin_url}/openapi.json"
        assert (await client.get(url)).status_code == 401
        page = (await client.get(url, headers={"authorization": "Bearer " + "t" * 20})).json()
    (scheme,) = page["components"]["securitySchemes"].items()
    assert (scheme[1]["type"], scheme[1]["scheme"]) == ("http", "bearer")
    routes = {(path, method): each for path, methods in page["paths"].items() for method, each in methods.items()}
    assert len(routes) > 20
    for (path, method), each in routes.items():
        if path not in OPEN:
            assert each["security"] == [{scheme[0]: []}], (path, method)
            assert each["tags"] and each["summary"], (path, method)
