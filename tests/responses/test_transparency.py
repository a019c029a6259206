"""A fleet without thinking budgets, whose gateway keeps responses: what nodes do by themselves, they still do."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from tests.responses.setting import RESPONSES, Setting, setting

pytestmark = pytest.mark.asyncio(loop_scope="module")
BOTH = pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
CHAT = "/v1/chat/completions"
MCP: dict[str, Any] = {"type": "mcp", "server_label": "stock", "server_url": "https://stock.example/mcp"}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def there() -> AsyncIterator[Setting]:
    async with setting(1, thinking={}) as made:
        yield made


def asked(there: Setting) -> tuple[str, bytes]:
    """What the node was asked last: where, and the body."""
    last = [seen for seen in there.node.stats.recent if seen.path in (RESPONSES, CHAT)][-1]
    return last.path, bytes(last.body)


@BOTH
@pytest.mark.parametrize("kind", ["code_interpreter", "container", "mcp", "web_search_preview"])
async def test_a_tool_that_its_node_runs_is_left_to_it(there: Setting, kind: str, stream: bool) -> None:
    first = await there.create("one", stream=stream)
    assert asked(there)[0] == CHAT
    tool = MCP if kind == "mcp" else {"type": kind, "container": {"type": "auto"}}
    made = await there.create("two", stream=stream, tools=[tool], previous_response_id=first["id"])
    path, body = asked(there)
    assert path == RESPONSES and len(made["id"]) == 53
    assert b"one" in body and kind.encode() in body, "the conversation is put before it all the same"


@BOTH
async def test_a_tool_that_no_node_runs_hinders_nothing(there: Setting, stream: bool) -> None:
    made = await there.create("one", stream=stream, tools=[{"type": "web_search"}])
    assert made["store"] is True and asked(there)[0] == CHAT


@BOTH
async def test_an_answer_that_is_not_stored_says_what_it_goes_on_from(there: Setting, stream: bool) -> None:
    first = await there.create("one", stream=stream)
    made = await there.create("two", stream=stream, store=False, previous_response_id=first["id"])
    assert (made["previous_response_id"], made["store"]) == (first["id"], False)
