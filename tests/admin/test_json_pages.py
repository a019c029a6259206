"""Long lists are written as pydantic writes them, and others run meanwhile."""

import asyncio
from datetime import UTC, datetime
from itertools import pairwise

import pytest
from pydantic import TypeAdapter

from gateway.admin.json_pages import PAGE, write_array
from gateway.admin.schemas import AuditLine


@pytest.mark.parametrize("count", [0, 1, PAGE - 1, PAGE, PAGE + 1, 3 * PAGE])
async def test_an_array_is_what_pydantic_writes_and_one_page_is_made_at_a_time(count: int) -> None:
    lines = [
        AuditLine(at=datetime(2026, 1, 2, tzinfo=UTC), who="é", what='"', subject=str(number), detail={"n": [number]})
        for number in range(count)
    ]
    made = 0
    seen: list[int] = []

    def make() -> AuditLine:
        nonlocal made
        made += 1
        return lines[made - 1]

    async def others() -> None:
        while made < count:
            seen.append(made)
            await asyncio.sleep(0)

    watching = asyncio.create_task(others())
    written = await write_array(make() for _ in lines)
    await watching
    assert written.encode() == TypeAdapter(list[AuditLine]).dump_json(lines)
    assert max((after - before for before, after in pairwise(seen)), default=0) <= PAGE
    assert len(seen) >= (count - 1) // PAGE
