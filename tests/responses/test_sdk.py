"""OpenAI's SDK, as its documentation uses stored responses; budgets are on, and each call goes to another gateway."""

from collections.abc import AsyncIterator
from itertools import count
from typing import Any

import httpx2
import openai
import pytest
import pytest_asyncio
from openai import AsyncOpenAI

from tests.responses.setting import MINE, MODEL, Setting, setting

pytestmark = pytest.mark.asyncio(loop_scope="module")
TOOL: Any = {
    "type": "function",
    "name": "get_weather",
    "description": "Weather",
    "strict": False,
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def there() -> AsyncIterator[Setting]:
    async with setting() as made:
        yield made


@pytest_asyncio.fixture(loop_scope="module")
async def client(there: Setting) -> AsyncIterator[AsyncOpenAI]:
    """One client, whose requests go to the two gateways by turns, as behind a load balancer."""
    numbers = count()

    async def spread(request: httpx2.Request) -> None:
        gateway = there.gateways[next(numbers) % 2]
        request.url = request.url.copy_with(port=gateway.port)

    http = httpx2.AsyncClient(event_hooks={"request": [spread]}, trust_env=False, timeout=30)
    async with AsyncOpenAI(base_url=f"{there.gateways[0].url}/v1", api_key=MINE, http_client=http) as made:
        yield made


async def test_a_conversation(client: AsyncOpenAI) -> None:
    first = await client.responses.create(model=MODEL, input="My name is Ada.")
    second = await client.responses.create(model=MODEL, input="What is it?", previous_response_id=first.id)
    assert second.previous_response_id == first.id and second.output_text
    assert (await client.responses.retrieve(second.id)).model_dump() == second.model_dump()
    async with client.responses.stream(model=MODEL, input="Sure?", previous_response_id=second.id) as stream:
        events = [event async for event in stream]
        third = await stream.get_final_response()
    assert events[0].type == "response.created" and events[-1].type == "response.completed"
    listed = [item async for item in client.responses.input_items.list(third.id, limit=2, order="asc")]
    kinds = [item.type for item in listed]
    assert kinds == ["message", "reasoning", "message"] * 2 + ["message"]
    await client.responses.delete(first.id)
    with pytest.raises(openai.NotFoundError) as error:
        await client.responses.retrieve(first.id)
    assert error.value.code == "response_not_found"
    with pytest.raises(openai.BadRequestError):
        await client.responses.cancel(third.id)
    assert (await client.responses.create(model=MODEL, input="On.", previous_response_id=third.id)).output_text


@pytest.mark.parametrize("by_reference", [False, True], ids=["whole items", "references"])
async def test_a_tool_loop(client: AsyncOpenAI, there: Setting, by_reference: bool) -> None:
    asked: Any = {"model": MODEL, "tools": [TOOL]}
    history: list[Any] = [{"role": "user", "content": "weather? [[call]]"}]
    called = await client.responses.create(input=history, **asked)
    for item in called.output:
        reference = {"type": "item_reference", "id": item.id}
        history.append(reference if by_reference else item.model_dump(exclude_none=True))
    call = next(item for item in called.output if item.type == "function_call")
    history.append({"type": "function_call_output", "call_id": call.call_id, "output": "Sunny"})
    answered = await client.responses.create(input=history, **asked)
    assert there.prompt()[1]["tool_calls"][0]["function"]["name"] == "get_weather"
    assert [message["role"] for message in there.prompt()] == ["user", "assistant", "tool"]
    conversation = called.id[5:29]
    assert answered.id[5:29] == conversation, "the second step is kept as what follows the first"
    assert (await client.responses.retrieve(answered.id)).store is True  # type: ignore[attr-defined]


async def test_an_unkept_response_says_so(client: AsyncOpenAI) -> None:
    made = await client.responses.create(model=MODEL, input="hello", store=False)
    assert made.model_dump()["store"] is False
    with pytest.raises(openai.NotFoundError):
        await client.responses.create(model=MODEL, input="more", previous_response_id=made.id)
