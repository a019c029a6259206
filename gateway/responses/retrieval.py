"""Requests about a kept response: `GET`, `DELETE`, `GET .../input_items`, `POST .../cancel`."""

from collections.abc import Mapping
from urllib.parse import parse_qs

from gateway.core.bodies import Body
from gateway.core.errors import InvalidRequest, NotFound
from gateway.core.json_text import dump
from gateway.core.responses.kept_ids import Place
from gateway.core.responses.turn_record import shown_items
from gateway.responses.kept_responses import KeptResponses
from gateway.upstream.downstream import DownstreamRequest

_JSON = [(b"content-type", b"application/json")]

MOST_ITEMS = 100
USUAL_ITEMS = 20
"""OpenAI's bounds for a page of items."""


class Retrieval:
    """What a client asks of the response `response_id` of `tenant`, which is kept at `place`. `suffix` is what follows
    the id in the path, the query included."""

    __slots__ = ("_kept", "_place", "_query", "_response_id", "_suffix", "_tenant")

    def __init__(self, kept: KeptResponses, place: Place, tenant: str, response_id: str, suffix: str) -> None:
        self._kept = kept
        self._place = place
        self._tenant = tenant
        self._response_id = response_id
        self._suffix, _, query = suffix.partition("?")
        self._query = parse_qs(query, keep_blank_values=True)

    async def answer(self, request: DownstreamRequest, method: str) -> None:
        """Raises `InvalidRequest`, `NotFound` and `ResponsesUnavailable`."""
        answer = dump(await self._answer(request, method))
        request.answer(200, _JSON, answer)

    async def _answer(self, request: DownstreamRequest, method: str) -> Body:
        kept, at = self._kept, (self._place, self._tenant, self._response_id)
        if method == "DELETE":
            return await kept.delete(*at)
        if self._suffix == "/input_items":
            found = page(await kept.input_items(*at, request), self._query)
            return {**found, "data": shown_items(found["data"])}
        found = await kept.response(*at, request)
        if self._suffix == "/cancel":  # as nodes refuse it
            raise InvalidRequest("Cannot cancel a synchronous response.", param="response_id")
        if self._query.get("stream", [""])[-1].lower() == "true":
            raise InvalidRequest(
                "A response that was not made in the background is retrieved whole: leave stream out.", param="stream"
            )
        return found


def page(items: list[Body], query: Mapping[str, list[str]]) -> Body:
    """A page of `items`, which are in the order of the conversation. Raises `InvalidRequest` and `NotFound`."""
    order = query.get("order", ["desc"])[-1]
    if order not in ("asc", "desc"):
        raise InvalidRequest("The parameter 'order' must be asc or desc.", param="order", code="invalid_query")
    given = query.get("limit", [str(USUAL_ITEMS)])[-1]
    limit = int(given) if given.isascii() and given.isdigit() and len(given) < 5 else 0
    if not 1 <= limit <= MOST_ITEMS:
        raise InvalidRequest(
            f"The parameter 'limit' must be a number from 1 to {MOST_ITEMS}.", param="limit", code="invalid_query"
        )
    ordered = items if order == "asc" else items[::-1]
    after = query.get("after", [""])[-1]
    if after:
        ids = [item["id"] for item in ordered]
        if after not in ids:
            raise NotFound(f"Unknown item {after!r} in 'after'.", param="after", code="item_not_found")
        ordered = ordered[ids.index(after) + 1 :]
    shown = ordered[:limit]
    ends = (shown[0]["id"], shown[-1]["id"]) if shown else (None, None)
    return {
        "object": "list",
        "data": shown,
        "first_id": ends[0],
        "last_id": ends[1],
        "has_more": len(ordered) > limit,
    }
