"""Finds the records of one request in the usage ledger, by its id. The newest are read first."""

import asyncio
from typing import Any

import orjson

from gateway.redis.client import RedisClient
from gateway.redis.replies import pairs_of
from gateway.usage.ledger import UsageKeys

PAGE = 200
"""Records that are read by one command: Redis serves nobody else meanwhile."""

MOST = 200_000
"""Records that one search reads."""


class RequestLookup:
    """Raises `RedisUnavailable` where Redis does not answer, or refuses."""

    def __init__(self, redis: RedisClient) -> None:
        self._redis = redis.reports
        self._records = UsageKeys(f"{redis.schema.records}:{{usage}}:").records

    async def find(self, request_id: str) -> list[dict[str, Any]]:
        """The records with this id, the newest first: clients may use one id for several requests. Empty where none is
        kept any more, or not yet: they are written once a second."""
        wanted, found, last = request_id.encode(), [], "+"
        for _ in range(MOST // PAGE):
            page = await self._redis.command("XREVRANGE", self._records, last, "-", "COUNT", PAGE)
            for _, fields in page:
                record = pairs_of(fields).get(b"record", b"")
                if wanted in record and (read := _read(record)).get("request_id") == request_id:
                    found.append(read)
            if len(page) < PAGE:
                break
            last = f"({page[-1][0].decode()}"
            await asyncio.sleep(0)  # let requests run
        return found


def _read(record: bytes) -> dict[str, Any]:
    """Empty for a record that another version wrote in another form."""
    try:
        read = orjson.loads(record)
    except ValueError:
        return {}
    return read if isinstance(read, dict) else {}
