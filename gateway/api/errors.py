"""Errors as HTTP: the status, the headers and the kind of each."""

import math
from collections.abc import Iterable

from gateway.core import errors as e
from gateway.core.dialects import DIALECTS, Dialect, ErrorKind, ErrorShape
from gateway.core.http.problems import MEDIA_TYPE, problem_document

_HTTP: dict[type[e.GatewayError], tuple[int, ErrorKind]] = {
    e.InvalidRequest: (400, ErrorKind.INVALID),
    e.BodyTooLarge: (413, ErrorKind.TOO_LARGE),
    e.HeadersTooLarge: (431, ErrorKind.TOO_LARGE),
    e.UnsupportedEncoding: (415, ErrorKind.INVALID),
    e.RequestTooSlow: (408, ErrorKind.TIMEOUT),
    e.NotFound: (404, ErrorKind.NOT_FOUND),
    e.UnknownPath: (404, ErrorKind.NOT_FOUND),
    e.MethodNotAllowed: (405, ErrorKind.INVALID),
    e.CrossSiteRequest: (403, ErrorKind.PERMISSION),
    e.TenantBlocked: (403, ErrorKind.PERMISSION),
    e.Unauthenticated: (401, ErrorKind.AUTHENTICATION),
    e.RateLimited: (429, ErrorKind.RATE_LIMIT),
    e.Overloaded: (503, ErrorKind.OVERLOADED),
    e.UpstreamError: (502, ErrorKind.INTERNAL),
    e.NodeBusy: (503, ErrorKind.OVERLOADED),
    e.RequestRefused: (400, ErrorKind.INVALID),
    e.NodeLeaving: (503, ErrorKind.OVERLOADED),
    e.UpstreamTimeout: (504, ErrorKind.TIMEOUT),
    e.AnswerTooLarge: (502, ErrorKind.INTERNAL),
    e.NoSummary: (502, ErrorKind.INTERNAL),
    e.DeadlineExceeded: (504, ErrorKind.TIMEOUT),
    e.EndedByOperator: (403, ErrorKind.PERMISSION),
    e.ClientGone: (499, ErrorKind.INTERNAL),
    e.InternalError: (500, ErrorKind.INTERNAL),
}

MAX_MESSAGE, MAX_PARAM = 2000, 300
"""Characters of a message and of a parameter: messages quote the client, such as the name of a model or a field."""

ID_HEADERS = ("x-request-id", "request-id")
ERROR_HEADERS = ("retry-after", "retry-after-ms", "x-should-retry", "www-authenticate", "allow", "accept-encoding")
"""Headers that an error's answer can have besides its type and length."""

_FINAL = (
    e.Unauthenticated,
    e.TenantBlocked,
    e.AnswerTooLarge,
    e.NoSummary,
    e.DeadlineExceeded,
    e.EndedByOperator,
    e.QuotaExceeded,
    e.LimitTooSmall,
)
"""Errors that clients retry by themselves, though a retry does not help: Claude Code sends a wrong key ten times in two
minutes."""


def shape_error(error: e.GatewayError, request_id: str) -> ErrorShape:
    """The error as clients see it, before a dialect gives it a shape."""
    status, fault = next(_HTTP[kind] for kind in type(error).__mro__ if kind in _HTTP)
    param = None if error.param is None else _bounded(error.param, MAX_PARAM)
    message, facts = _bounded(error.message, MAX_MESSAGE), _facts(error)
    return ErrorShape(message, fault, status, error.slug, param, request_id, facts)


def _facts(error: e.GatewayError) -> dict[str, object]:
    """What programs can read of an error besides its code."""
    return {"tokens": error.tokens, "retry_safe": error.repeatable} if isinstance(error, e.StreamLost) else {}


def _bounded(text: str, most: int) -> str:
    """`text` without its middle where it is long: it may quote a client's value of megabytes."""
    return text if len(text) <= most else f"{text[: most // 2]} [...] {text[-most // 2 :]}"


def error_headers(error: e.GatewayError, body: bytes) -> list[tuple[bytes, bytes]]:
    """Headers of an error answer: type, length, and advice on retries."""
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    headers += [(name.encode(), value.encode()) for name, value in error.headers.items()]
    if error.retry_after is not None:
        headers.append((b"retry-after", b"%d" % max(1, math.ceil(error.retry_after))))
        headers.append((b"retry-after-ms", b"%d" % math.ceil(error.retry_after * 1000)))
    if isinstance(error, _FINAL) or (isinstance(error, e.StreamLost) and not error.repeatable):
        headers.append((b"x-should-retry", b"false"))
    if isinstance(error, e.Unauthenticated):
        headers.append((b"www-authenticate", b"Bearer"))
    return headers


def id_headers(request_id: str) -> list[tuple[bytes, bytes]]:
    """The request's id under both names: OpenAI's SDK reads the first, Anthropic's the second."""
    encoded = request_id.encode()
    return [(name.encode(), encoded) for name in ID_HEADERS]


def unknown_path(path: str) -> e.UnknownPath:
    """Names the endpoint that the path resembles: most often the `/v1` is missing, or there twice."""
    endpoints = ["/v1/models", *(dialect.path for dialect in DIALECTS)]
    alike = [each for each in endpoints if path.rstrip("/").endswith(each.removeprefix("/v1"))]
    if alike:
        hint = f"did you mean {max(alike, key=len)!r}? Check the base URL of your client."
    else:
        hint = f"known: {', '.join(endpoints)}."
    return e.UnknownPath(f"Unknown path {path!r}: {hint}")


def method_not_allowed(method: str, path: str, allowed: Iterable[str]) -> e.MethodNotAllowed:
    names = ", ".join(sorted(allowed))
    return e.MethodNotAllowed(f"{method} is not allowed on {path}: use {names}.", headers={"allow": names})


def whole_answer(
    error: e.GatewayError, dialect: Dialect, request_id: str
) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
    """Status, headers and body of an error answer."""
    shape = shape_error(error, request_id)
    body = dialect.error(shape)
    return shape.status, error_headers(error, body) + id_headers(request_id), body


def problem_answer(error: e.GatewayError, request_id: str) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
    """As `whole_answer`, in the shape that the admin routes give to errors."""
    shape = shape_error(error, request_id)
    status = shape.status
    body = problem_document(status, shape.message, code=shape.code, field=shape.param)
    headers = [(b"content-type", MEDIA_TYPE.encode()), *error_headers(error, body)[1:]]
    return status, headers + id_headers(request_id), body
