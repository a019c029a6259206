"""Any order of what clients do, against a model on paper: two tenants, two gateways, streamed and plain.

The model knows of each response whether it is there, what it goes on from, and what its model was told. What a node is
asked has to be that, and what is not there has to be 404, for everybody else always. A response that is deleted stays a
part of those that go on from it.
"""

import random
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import pytest_asyncio

from tests.responses.setting import MINE, MODEL, RESPONSES, YOURS, Json, Setting, code, setting, user

pytestmark = pytest.mark.asyncio(loop_scope="module")

STEPS = 60
TENANTS = {MINE: "me", YOURS: "you"}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def there() -> AsyncIterator[Setting]:
    async with setting() as made:
        yield made


@dataclass(slots=True)
class Known:
    """A response as the model knows it. `told`: what its own input told the model."""

    owner: str
    response: Json
    told: list[str]
    before: "Known | None"
    there: bool = True

    def prompt(self) -> list[str]:
        return [*(self.before.prompt() if self.before is not None else []), *self.told, self.said]

    @property
    def said(self) -> str:
        return str(self.response["output"][-1]["content"][0]["text"])


@dataclass(slots=True)
class Talk:
    """One history. `known` are all responses that were ever made."""

    there: Setting
    dice: random.Random
    known: list[Known] = field(default_factory=list)

    @property
    def at(self) -> int:
        return self.dice.randrange(2)

    def pick(self) -> Known | None:
        return self.dice.choice(self.known) if self.known else None

    async def step(self, number: int) -> None:
        kinds = ("create", "chain", "chain", "refer", "repeat", "get", "items", "delete", "expire")
        await getattr(self, f"do_{self.dice.choice(kinds)}")(f"say {number}")

    async def _create(self, key: str, text: str, given: Any, told: list[str], before: Known | None = None) -> None:
        fields: Json = {} if before is None else {"previous_response_id": before.response["id"]}
        made = await self.there.create(given, self.at, key, stream=self.dice.random() < 0.5, **fields)
        assert made["store"] is True
        prompt = [message["content"] for message in self.there.prompt()]
        assert prompt == [*(before.prompt() if before is not None else []), *told]
        self.known.append(Known(key, made, told, before))

    async def _refused(self, key: str, body: Json, expected: tuple[str, str]) -> None:
        told = await self.there.ask("POST", RESPONSES, {"model": MODEL, **body}, self.at, key)
        assert code(told) == (404, *expected)

    async def do_create(self, text: str) -> None:
        await self._create(self.dice.choice((MINE, YOURS)), text, text, [text])

    async def do_chain(self, text: str) -> None:
        before, key = self.pick(), self.dice.choice((MINE, YOURS))
        if before is None:
            return
        if before.there and before.owner == key:
            await self._create(key, text, [user(text)], [text], before)
        else:
            body: Json = {"input": text, "previous_response_id": before.response["id"]}
            await self._refused(key, body, ("response_not_found", "previous_response_id"))

    async def do_refer(self, text: str) -> None:
        named, key = self.pick(), self.dice.choice((MINE, YOURS))
        if named is None:
            return
        item = {"type": "item_reference", "id": named.response["output"][-1]["id"]}
        if named.there and named.owner == key:
            await self._create(key, text, [item, user(text)], [named.said, text])
        else:
            await self._refused(key, {"input": [item, user(text)]}, ("item_not_found", "input.0.id"))

    async def do_repeat(self, text: str) -> None:
        """All that was said is sent again, as by a client that keeps its own history. Its own copy is what counts, also
        where what it was made of is gone."""
        named = self.pick()
        if named is None:
            return
        said = [{"role": "user", "content": each} for each in named.prompt()[:-1]]
        items = [*said, *named.response["output"], user(text)]
        await self._create(named.owner, text, items, [*named.prompt(), text])

    async def do_get(self, text: str) -> None:
        named, key = self.pick(), self.dice.choice((MINE, YOURS))
        if named is None:
            return
        told = await self.there.get(named.response["id"], self.at, key)
        if named.there and named.owner == key:
            assert told.json() == named.response
        else:
            assert code(told) == (404, "response_not_found", "response_id")

    async def do_items(self, text: str) -> None:
        named, key = self.pick(), self.dice.choice((MINE, YOURS))
        if named is None:
            return
        told = await self.there.get(named.response["id"], self.at, key, "/input_items?order=asc&limit=100")
        if named.there and named.owner == key:
            texts = [item["content"][0]["text"] for item in told.json()["data"] if item["type"] == "message"]
            assert texts == named.prompt()[:-1]
        else:
            assert code(told) == (404, "response_not_found", "response_id")

    async def do_delete(self, text: str) -> None:
        named, key = self.pick(), self.dice.choice((MINE, YOURS))
        if named is None:
            return
        told = await self.there.ask("DELETE", f"{RESPONSES}/{named.response['id']}", None, self.at, key)
        if named.there and named.owner == key:
            assert told.json()["deleted"] is True
            named.there = False
        else:
            assert code(told) == (404, "response_not_found", "response_id")

    async def do_expire(self, text: str) -> None:
        """A whole conversation goes, as by its time to live."""
        named = self.pick()
        if named is None or self.dice.random() < 0.5:
            return
        conversation = named.response["id"][5:29]
        self.there.redis.do("PEXPIRE", f"fg1:{{{TENANTS[named.owner]}}}:responses:{conversation}", 0)
        for each in self.known:
            if each.owner == named.owner and each.response["id"][5:29] == conversation:
                each.there = False


@pytest.mark.parametrize("seed", [*range(2), *(pytest.param(seed, marks=pytest.mark.prove) for seed in range(2, 102))])
async def test_any_order_of_calls_agrees_with_a_model_on_paper(there: Setting, seed: int) -> None:
    talk = Talk(there, random.Random(seed))
    for number in range(STEPS):
        await talk.step(number)
    assert talk.known
