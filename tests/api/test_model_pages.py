"""Models as clients list them, so that people can choose one: OpenAI's format, and Anthropic's with its pages."""

import json
from asyncio import StreamReader as Reader
from asyncio import StreamWriter as Writer
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import pytest_asyncio
from anthropic import AsyncAnthropic, BadRequestError, NotFoundError
from anthropic.types import ModelInfo
from openai import AsyncOpenAI

from gateway.api.model_pages import LAST_SECOND, OfferedModel, anthropic_view
from gateway.core.access.api_keys import key_digest
from tests.support.catalogs import catalog_node
from tests.support.gateways import RunningGateway, eventually, running_gateway
from tests.support.nodes import Asked, ScriptedNode, answer

pytestmark = pytest.mark.asyncio(loop_scope="module")

ULTRA, NANO = "nemotron-3-ultra", "nvidia/nano"
CLAUDE, PLAIN_ALIAS = "claude-nemotron-3-ultra", "gpt-4o"
MANY = [f"claude-{number:02}" for number in range(23)]
ALL, SOME = "fg-all-models", "fg-only-nano"
VERSION = {"anthropic-version": "2023-06-01"}

SETTINGS: dict[str, Any] = {
    "models": [
        {
            "name": ULTRA,
            "display_name": "Nemotron 3 Ultra",
            "aliases": [PLAIN_ALIAS, {"name": CLAUDE, "display_name": "Ultra (ours)"}, *MANY],
            "output": {"max_tokens": 1000},
        },
        {
            "name": NANO,
            "capabilities": {"thinking": False, "tools": False, "structured_outputs": False, "images": True},
        },
    ],
    "tenants": [
        {
            "name": "all",
            "keys": [{"sha256": key_digest(ALL).hex()}],
            "per_model": [{"model": NANO, "output": {"max_tokens": 9000}}],
        },
        {
            "name": "some",
            "keys": [{"sha256": key_digest(SOME).hex()}],
            "models": [NANO],
        },
    ],
}


async def reply(node: ScriptedNode, asked: Asked, reader: Reader, writer: Writer) -> None:
    writer.write(answer(json.dumps({"model": json.loads(asked.body)["model"]}).encode()))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway() -> AsyncIterator[RunningGateway]:
    async with catalog_node(reply, ULTRA, NANO) as node, running_gateway(node.url, **SETTINGS) as gateway:
        yield gateway


async def get(gateway: RunningGateway, path: str, key: str = ALL, **headers: str) -> httpx.Response:
    async with httpx.AsyncClient(timeout=10) as client:
        sent = {"x-api-key": key, **{name.replace("_", "-"): value for name, value in headers.items()}}
        return await client.get(gateway.url + path, headers=sent)


async def page(gateway: RunningGateway, query: str, key: str = ALL) -> dict[str, Any]:
    got = await get(gateway, f"/v1/models{query}", key, **VERSION)
    assert got.status_code == 200, got.text
    found: dict[str, Any] = got.json()
    return found


def ids(found: dict[str, Any]) -> list[str]:
    return [model["id"] for model in found["data"]]


EVERYTHING = sorted([ULTRA, NANO, CLAUDE, PLAIN_ALIAS, *MANY])


# By the vendors' own SDKs


async def test_anthropics_sdk_lists_all_pages_and_retrieves(gateway: RunningGateway) -> None:
    async with AsyncAnthropic(base_url=gateway.url, api_key=ALL) as client:
        listed = [model async for model in client.models.list(limit=4)]
        assert [model.id for model in listed] == EVERYTHING
        assert [model.id async for model in client.models.list()] == EVERYTHING
        backwards = [model.id async for model in client.models.list(limit=5, before_id=EVERYTHING[-1])]
        assert sorted(backwards) == EVERYTHING[:-1]
        one = await client.models.retrieve(CLAUDE)
        assert one == next(model for model in listed if model.id == CLAUDE)
        assert (one.type, one.display_name, one.lifecycle) == ("model", "Ultra (ours)", "active")
        assert (one.max_input_tokens, one.max_tokens) == (4096, 1000)
        assert one.capabilities is not None and one.capabilities.thinking.types.adaptive.supported
        assert one.capabilities.effort.high.supported and one.capabilities.structured_outputs.supported
        nano = await client.models.retrieve(NANO)
        assert nano.capabilities is not None and not nano.capabilities.thinking.supported
        assert nano.capabilities.image_input.supported and not nano.capabilities.structured_outputs.supported
        assert nano.max_tokens == 4096  # the rule's 9,000 are more than the window
        with pytest.raises(NotFoundError) as missing:
            await client.models.retrieve("none")
        assert missing.value.body == {
            "type": "error",
            "error": {"type": "not_found_error", "message": missing.value.body["error"]["message"]},  # type: ignore[index]
            "request_id": missing.value.request_id,
        }
        with pytest.raises(BadRequestError):
            await client.models.list(limit=5000)


async def test_what_anthropics_sdk_reads_is_all_there(gateway: RunningGateway) -> None:
    """Every field of its types, each of the right type: the SDK itself checks nothing."""
    for entry in (await page(gateway, "?limit=1000"))["data"]:
        checked = ModelInfo.model_validate(entry, strict=False)
        assert set(ModelInfo.model_fields) == set(entry)
        assert checked.capabilities is not None
        fields = set(type(checked.capabilities).model_fields)
        assert fields | {"tools"} == set(entry["capabilities"])


async def test_openais_sdk_lists_and_retrieves(gateway: RunningGateway) -> None:
    async with AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key=ALL) as client:
        assert [model.id async for model in client.models.list()] == EVERYTHING
        one = (await client.models.retrieve(CLAUDE)).model_dump()
        assert (one["id"], one["object"], one["name"]) == (CLAUDE, "model", "Ultra (ours)")
        assert (one["max_model_len"], one["context_length"], one["max_output_tokens"]) == (4096, 4096, 1000)
        assert one["capabilities"] == {"thinking": True, "tools": True, "structured_outputs": True, "images": False}
        nano = (await client.models.retrieve(NANO)).model_dump()
        assert "name" not in nano and nano["capabilities"]["images"] is True


async def test_claude_code_finds_its_models_in_one_page(gateway: RunningGateway) -> None:
    """Its request, and what it keeps of the answer: ids that begin with its name, each shown by its display name."""
    found = await page(gateway, "?limit=1000")
    kept = {model["id"]: model["display_name"] for model in found["data"] if model["id"].startswith("claude")}
    assert kept == {CLAUDE: "Ultra (ours)", **dict.fromkeys(MANY, "Nemotron 3 Ultra")}
    assert found["has_more"] is False
    shown = {model["id"]: model["display_name"] for model in found["data"]}
    assert (shown[NANO], shown[ULTRA]) == (NANO, "Nemotron 3 Ultra")


# Pages


async def test_pages_are_cut_by_name(gateway: RunningGateway) -> None:
    first = await page(gateway, "")
    assert ids(first) == EVERYTHING[:20]
    assert (first["has_more"], first["first_id"], first["last_id"]) == (True, EVERYTHING[0], EVERYTHING[19])
    rest = await page(gateway, f"?after_id={first['last_id']}")
    assert ids(rest) == EVERYTHING[20:]
    assert rest["has_more"] is False
    before = await page(gateway, f"?before_id={EVERYTHING[6]}&limit=5")
    assert (ids(before), before["has_more"]) == (EVERYTHING[1:6], True)
    assert (await page(gateway, f"?before_id={EVERYTHING[5]}&limit=5"))["has_more"] is False


async def test_a_page_goes_on_behind_a_model_that_has_left(gateway: RunningGateway) -> None:
    assert ids(await page(gateway, "?after_id=claude-10a&limit=2")) == ["claude-11", "claude-12"]


async def test_an_empty_page(gateway: RunningGateway) -> None:
    empty = {"data": [], "has_more": False, "first_id": None, "last_id": None}
    assert await page(gateway, "?after_id=zzz") == empty
    assert await page(gateway, "?lifecycle[]=retired&lifecycle[]=deprecated") == empty
    assert ids(await page(gateway, "?lifecycle=retired&lifecycle=active&limit=1")) == EVERYTHING[:1]


@pytest.mark.parametrize(
    ("query", "param"),
    [
        *(
            (f"limit={limit}", "limit")
            for limit in ("0", "1001", "-1", "3000.0", "1e2", "", "x", "%D9%A3", "99999999999")
        ),
        ("after_id=a&before_id=b", "before_id"),
        ("after_id=", "after_id"),
        ("before_id=", "before_id"),
        ("lifecycle=old", "lifecycle"),
    ],
)
async def test_what_stands_for_no_page_is_refused_in_anthropics_format(
    gateway: RunningGateway, query: str, param: str
) -> None:
    got = await get(gateway, f"/v1/models?{query}", **VERSION)
    body = got.json()
    assert (got.status_code, body["type"], body["error"]["type"]) == (400, "error", "invalid_request_error")
    assert param in body["error"]["message"]


async def test_openais_format_has_no_pages(gateway: RunningGateway) -> None:
    """Parameters that OpenAI's list does not have do nothing."""
    got = await get(gateway, "/v1/models?limit=x&after_id=zzz")
    assert (got.status_code, [model["id"] for model in got.json()["data"]]) == (200, EVERYTHING)


# Whose models


@pytest.mark.parametrize("headers", [{}, VERSION])
async def test_only_a_tenants_own_models_are_listed(gateway: RunningGateway, headers: dict[str, str]) -> None:
    listed = (await get(gateway, "/v1/models", SOME, **headers)).json()["data"]
    assert [model["id"] for model in listed] == [NANO]
    assert (await get(gateway, f"/v1/models/{NANO}", SOME, **headers)).status_code == 200
    for hidden in (ULTRA, CLAUDE, PLAIN_ALIAS):
        assert (await get(gateway, f"/v1/models/{hidden}", SOME, **headers)).status_code == 404


async def test_rules_are_those_of_the_caller(gateway: RunningGateway) -> None:
    """One tenant has a cap on this model, the other one none."""
    caps = [(await page(gateway, f"?after_id={EVERYTHING[-2]}", key))["data"][0]["max_tokens"] for key in (ALL, SOME)]
    assert caps == [4096, None]


async def test_errors_are_in_the_format_that_was_asked_for(gateway: RunningGateway) -> None:
    for path in ("/v1/models", "/v1/models/none", "/v1/none"):
        key = "fg-wrong" if path == "/v1/models" else ALL
        anthropics, openais = await get(gateway, path, key, **VERSION), await get(gateway, path, key)
        assert anthropics.status_code == openais.status_code in (401, 404)
        assert anthropics.json()["type"] == "error"
        assert set(openais.json()["error"]) == {"message", "type", "param", "code"}


# Without a configuration


async def test_models_that_are_not_configured_are_as_nodes_describe_them() -> None:
    async with catalog_node(reply, ULTRA) as node, running_gateway(node.url) as gateway:
        await eventually(lambda: ULTRA in gateway.app.fleet.served)
        card = {"id": ULTRA, "object": "model", "max_model_len": 4096, "root": f"/models/{ULTRA}"}
        assert (await get(gateway, f"/v1/models/{ULTRA}")).json() == card
        shown = (await get(gateway, f"/v1/models/{ULTRA}", **VERSION)).json()
        assert (shown["display_name"], shown["max_input_tokens"], shown["max_tokens"]) == (ULTRA, 4096, None)
        assert shown["created_at"] == "1970-01-01T00:00:00Z"


@pytest.mark.parametrize("mode", ["forbidden", "allowed", "required"])
async def test_thinking_that_is_forbidden_is_no_capability(mode: str) -> None:
    models = [{"name": ULTRA, "thinking": {"mode": mode}}]
    async with catalog_node(reply, ULTRA) as node, running_gateway(node.url, models=models) as gateway:
        shown = (await get(gateway, f"/v1/models/{ULTRA}", **VERSION)).json()["capabilities"]
        may = mode != "forbidden"
        assert (shown["thinking"]["supported"], shown["effort"]["supported"]) == (may, may)
        assert (await get(gateway, f"/v1/models/{ULTRA}")).json()["capabilities"]["thinking"] is may


@pytest.mark.parametrize("created", [None, "1700000000", -1, 1e10, True, 10**30, LAST_SECOND + 1])
async def test_a_creation_that_is_no_time_is_the_epoch(created: object) -> None:
    model = OfferedModel("m", {"created": created}, None, None, None)
    assert anthropic_view(model)["created_at"] == "1970-01-01T00:00:00Z"


async def test_a_creation_is_told_in_utc() -> None:
    model = OfferedModel("m", {"created": 1_700_000_000}, None, None, None)
    assert anthropic_view(model)["created_at"] == "2023-11-14T22:13:20Z"
