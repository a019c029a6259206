"""The one shape of errors on the admin listener: a problem document (RFC 9457) with a code, a field and a remedy.

    {
      "title": "Unprocessable Content",
      "status": 422,
      "code": "invalid_request",
      "detail": "limits.usd_per_day: expected a number",
      "field": "limits.usd_per_day",
      "remedy": "correct the named fields: /docs describes them",
      "problems": [{"field": "limits.usd_per_day", "detail": "expected a number"}]
    }

All members are always there. `detail` is the whole of it in one sentence. `remedy` is what to do about it.
"""

from collections.abc import Sequence
from typing import NamedTuple

from gateway.core.json_text import dump

MEDIA_TYPE = "application/problem+json"


class StatusWords(NamedTuple):
    """Of an error that has no closer code or remedy."""

    title: str
    code: str
    remedy: str


STATUSES = {
    400: StatusWords("Bad Request", "bad_request", "correct the request"),
    401: StatusWords("Unauthorized", "invalid_admin_token", "send 'Authorization: Bearer TOKEN' with the admin token"),
    403: StatusWords("Forbidden", "cross_site_request", "use the command line, or a page that this listener serves"),
    404: StatusWords("Not Found", "not_found", "see /docs or /openapi.json for the paths"),
    405: StatusWords("Method Not Allowed", "method_not_allowed", "use one of the methods in the header 'allow'"),
    408: StatusWords("Request Timeout", "request_too_slow", "send the request at once"),
    409: StatusWords("Conflict", "conflict", "look at what is there, and retry"),
    413: StatusWords("Content Too Large", "body_too_large", "send a smaller body"),
    415: StatusWords("Unsupported Media Type", "unsupported_media_type", "send plain JSON as 'application/json'"),
    422: StatusWords("Unprocessable Content", "invalid_request", "correct the named fields: /docs describes them"),
    429: StatusWords("Too Many Requests", "too_many_wrong_tokens", "wait as the header 'retry-after' says"),
    431: StatusWords("Request Header Fields Too Large", "headers_too_large", "send shorter headers"),
    500: StatusWords("Internal Server Error", "internal_error", "see the gateway's log"),
    503: StatusWords("Service Unavailable", "unavailable", "retry in a moment"),
}


class FieldProblem(NamedTuple):
    """What is wrong with one field: its path with dots, in a body or a query."""

    field: str
    detail: str


def problem_document(
    status: int,
    detail: str,
    remedy: str | None = None,
    code: str | None = None,
    field: str | None = None,
    problems: Sequence[FieldProblem] = (),
) -> bytes:
    """The body of an error answer. `detail` says what is wrong; a `remedy` that is given is added to it, behind
    `problems` (of which `detail` is the list) as one more clause. What JSON cannot carry (half a character of a quoted
    value) is escaped."""
    named = problems[0].field if problems else None
    words = STATUSES.get(status, STATUSES[500])
    return dump(
        {
            "title": words.title,
            "status": status,
            "code": code or words.code,
            "detail": detail if remedy is None else _sentence(detail.rstrip("."), remedy, bool(problems)),
            "field": named if field is None else field,
            "remedy": remedy or words.remedy,
            "problems": [each._asdict() for each in problems],
        }
    )


def _sentence(detail: str, remedy: str, listed: bool) -> str:
    """One of both, or two behind a question such as "did you mean 'max_budget'?". `listed`: `detail` is a list."""
    if detail.endswith("?"):
        return f"{detail} {remedy[:1].upper()}{remedy[1:]}."
    return f"{detail}{'; ' if listed else ': '}{remedy}."
