"""Long answers of the admin API, written a page at a time: pydantic writes one list in a single call, during which no
stream of a client goes on.
"""

import asyncio
from collections.abc import Iterable
from itertools import islice

from fastapi import Response
from pydantic import BaseModel

PAGE = 100
"""Entries that are made and written between two turns of the event loop: about a millisecond."""


async def write_array(entries: Iterable[BaseModel]) -> str:
    """`entries` as a JSON array. An iterator makes each entry when it is written."""
    pages: list[str] = []
    left = iter(entries)
    while page := ",".join([entry.model_dump_json() for entry in islice(left, PAGE)]):
        pages.append(page)
        await asyncio.sleep(0)
    return f"[{','.join(pages)}]"


async def answer_with(entries: Iterable[BaseModel]) -> Response:
    """The answer of a listing."""
    return Response(await write_array(entries), media_type="application/json")
