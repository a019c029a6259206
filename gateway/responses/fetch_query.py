"""The query of `GET /v1/responses/{id}`: whether it asks for the events, and behind which one.

Where reasoning is hidden, the events that a client knows are numbered without it. Which of the node's they are, and
which of those behind them belong to an item of reasoning, only the events before tell. So the node is asked for all.
"""

from typing import NamedTuple
from urllib.parse import parse_qsl, unquote_plus

from gateway.core.errors import InvalidRequest

_AFTER = "starting_after"
_TRUE = ("true", "1", "on", "t", "y", "yes")
"""As nodes read a query's boolean, in lower case."""


class AllEvents(NamedTuple):
    """The `suffix` of a path whose query asks for all events, and the number `behind` which the client wants them: -1
    for all."""

    suffix: str
    behind: int


def wants_events(suffix: str) -> bool:
    """Whether the query at the end of `suffix` asks for a stream. Of several values the last one holds."""
    given = dict(parse_qsl(suffix.partition("?")[2], keep_blank_values=True))
    return given.get("stream", "").lower() in _TRUE


def ask_for_all(suffix: str) -> AllEvents:
    """Raises `InvalidRequest` where `starting_after` is no number."""
    path, _, query = suffix.partition("?")
    parts = query.split("&")
    others = [part for part in parts if unquote_plus(part.partition("=")[0]) != _AFTER]
    if len(others) == len(parts):
        return AllEvents(suffix, -1)
    value = dict(parse_qsl(query, keep_blank_values=True)).get(_AFTER, "")
    try:
        behind = int(value)
    except ValueError:
        raise InvalidRequest(
            f"The parameter {_AFTER!r} must be the number of an event.", param=_AFTER, code="invalid_query"
        ) from None
    return AllEvents(path + ("?" + "&".join(others) if others else ""), behind)
