"""/openapi.json of the admin listener: every route has words, a tag, examples, the shape of errors, and its token."""

from collections.abc import Iterator
from typing import Any

import httpx

from tests.support.gateways import running_gateway

OPEN = ("/health", "/ready")
TOKEN = "t" * 20


def routes(page: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, methods in page["paths"].items():
        yield from ((f"{method} {path}", each) for method, each in methods.items())


def resolved(page: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    """The schema that is meant: of one that may be null, the other."""
    for each in schema.get("anyOf", ()):
        if each.get("type") != "null":
            schema = each
    name = schema.get("$ref", "").rpartition("/")[2]
    return dict(page["components"]["schemas"][name]) if name else schema


async def test_every_route_is_described_tagged_and_asks_for_the_token() -> None:
    async with running_gateway(ready=False, admin={"token": TOKEN}) as gateway, httpx.AsyncClient() as client:
        page = (await client.get(f"{gateway.admin_url}/openapi.json")).json()
        again = (await client.get(f"{gateway.admin_url}/openapi.json")).json()
        assert (await client.get(f"{gateway.admin_url}/admin/tenants")).status_code == 401
    assert page == again
    (scheme,) = page["components"]["securitySchemes"].items()
    assert (scheme[1]["type"], scheme[1]["scheme"]) == ("http", "bearer")
    described = {tag["name"] for tag in page["tags"] if tag["description"]}
    assert len(list(routes(page))) > 20
    for name, route in routes(page):
        if name.partition(" ")[2] not in OPEN:
            assert route["security"] == [{scheme[0]: []}], name
        assert route["tags"] and set(route["tags"]) <= described, name
        assert route["summary"] and route["description"], name
        (schema,) = [content["schema"] for content in route["responses"]["default"]["content"].values()]
        assert resolved(page, schema)["title"] == "Problem", name
        assert "422" not in route["responses"], f"{name} says FastAPI's shape of errors"
        for content in route.get("requestBody", {}).get("content", {}).values():
            schema = content["schema"]
            assert "examples" in content or schema.get("examples") or resolved(page, schema).get("examples"), name
