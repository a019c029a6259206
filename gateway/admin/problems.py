"""Errors of the admin listener: all of one shape (`core.http.problems`), whatever refused the request.

    refused by                            status
    `AdminAccess`                         401, 403, 415, 429
    the router                            404, 405
    a body or query that does not fit     422
    a route                               404, 409, 422
    Redis                                 503, 409, 404
    a mistake of the gateway's            500

What is no HTTP, too large or too slow is refused by the connection itself, in the same shape (`api.errors`).
"""

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, Self

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

from gateway.access.directory import AlreadyExists, ChangedMeanwhile, DoesNotExist, KeysLeft, RecordTooLarge
from gateway.access.records import LARGEST
from gateway.config.expectations import pattern_words
from gateway.core.dialects import DIALECTS
from gateway.core.http.problems import MEDIA_TYPE, FieldProblem, problem_document
from gateway.redis.client import RedisRefusesAll, RedisUnavailable, ScriptFailed


class ProblemField(BaseModel):
    """What is wrong with one field: its path with dots, in a body or a query."""

    field: str
    detail: str


class Problem(BaseModel):
    """An error (RFC 9457). `detail` says in one sentence what is wrong and what to do; `code` is for programs."""

    title: str = Field(examples=["Not Found"])
    status: int = Field(examples=[404])
    code: str = Field(examples=["not_found"])
    detail: str = Field(examples=["Unknown tenant 'acme': `fleetgate tenants list` shows them."])
    field: str | None = Field(examples=[None], description="The first field at fault, or null.")
    remedy: str = Field(examples=["`fleetgate tenants list` shows them"], description="What to do about it.")
    problems: list[ProblemField] = Field(examples=[[]], description="Each field at fault; empty where none is.")


ANSWERS: dict[int | str, dict[str, Any]] = {
    "default": {
        "description": "An error; every error of this listener has this shape.",
        "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
    }
}
"""What every route documents of its errors. `Problem` is added to the schema by `with_problem`."""


class AdminError(HTTPException):
    """A request that cannot be done: `what` is wrong, and the `remedy`, both without a full stop at the end."""

    def __init__(
        self,
        status: int,
        what: str,
        remedy: str | None = None,
        *,
        code: str | None = None,
        field: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(status, what, dict(headers or {}))
        self.remedy = remedy
        self.code = code
        self.field = field
        self.problems: Sequence[FieldProblem] = ()

    @classmethod
    def of_problems(cls, status: int, problems: Sequence[FieldProblem], code: str, remedy: str) -> Self:
        """Of several at once."""
        error = cls(status, _sentence(problems), remedy, code=code)
        error.problems = problems
        return error

    def answer(self) -> Response:
        body = problem_document(self.status_code, self.detail, self.remedy, self.code, self.field, self.problems)
        return Response(body, self.status_code, self.headers, MEDIA_TYPE)


def unknown_tenant(name: str) -> AdminError:
    return AdminError(404, f"Unknown tenant {name!r}", "`fleetgate tenants list` shows them", field="tenant")


def with_problem(schema: dict[str, Any]) -> dict[str, Any]:
    """An OpenAPI schema, with the shape of errors in it."""
    parts = schema.setdefault("components", {}).setdefault("schemas", {})
    whole = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
    parts.update(whole.pop("$defs", {}))
    parts["Problem"] = whole
    return schema


def explain_errors(app: FastAPI, headers: Mapping[str, str]) -> None:
    """Answer every error of `app` in the one shape. `headers` are those that the layer around `app` adds to answers:
    an unexpected error is answered outside of it."""

    @app.exception_handler(HTTPException)
    async def refused(request: Request, error: HTTPException) -> Response:
        if isinstance(error, AdminError):
            return error.answer()
        path = request.url.path
        if error.status_code == 404 and _is_data_plane(path):
            remedy = "ask the gateway's public listener (listen.port), not the admin one"
            return AdminError(404, f"{path} is not served here", remedy, code="unknown_path").answer()
        if error.status_code == 404:
            return AdminError(404, f"Unknown path {path!r}", "see /docs for the paths", code="unknown_path").answer()
        if error.status_code == 405:
            allowed = (error.headers or {}).get("allow", (error.headers or {}).get("Allow", "GET"))
            what, remedy = f"{request.method} is not allowed on {path}", f"use {allowed}"
            return AdminError(405, what, remedy, headers=error.headers).answer()
        return AdminError(error.status_code, str(error.detail), headers=error.headers).answer()

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> Response:
        """FastAPI's own answer repeats what was sent: a secret, or what JSON cannot carry (NaN, half a character)."""
        return refuse_fields(_fields(error.errors()))

    @app.exception_handler(Exception)
    async def unexpected(_: Request, __: Exception) -> Response:
        """Answered outside of the layer around `app`; the server logs it."""
        return AdminError(500, "Internal error", "see the gateway's log", headers=headers).answer()

    _explain_redis(app)


def refuse_fields(problems: Sequence[FieldProblem], status: int = 422) -> Response:
    """The answer where `problems` were found."""
    return Response(problem_document(status, _sentence(problems), problems=problems), status, media_type=MEDIA_TYPE)


def _sentence(problems: Sequence[FieldProblem]) -> str:
    return "; ".join(f"{each.field}: {each.detail}" if each.field else each.detail for each in problems)


def _fields(errors: Iterable[Any]) -> list[FieldProblem]:
    return [FieldProblem(".".join(map(str, each["loc"][1:])), words_of(each)) for each in errors]


def words_of(error: Mapping[str, Any]) -> str:
    """What pydantic's `error` says of its field."""
    if error["type"] == "extra_forbidden":
        return "is not a setting"
    if error["type"] == "string_pattern_mismatch":
        return pattern_words(error)
    return str(error["msg"]).removeprefix("Value error, ")


def _is_data_plane(path: str) -> bool:
    return path.startswith("/v1/") or any(path == dialect.path for dialect in DIALECTS)


def _explain_redis(app: FastAPI) -> None:
    """What went wrong in Redis, in the words of HTTP."""

    def responder(
        status: int, words: str, remedy: str, reading: str | None = None
    ) -> Callable[[Request, Exception], Awaitable[Response]]:
        """`reading`: the remedy where the request changes nothing."""

        async def respond(request: Request, error: Exception) -> Response:
            wanted = reading if reading is not None and request.method == "GET" else remedy
            return AdminError(status, words.format(error), wanted).answer()

        return respond

    app.add_exception_handler(
        RedisUnavailable,
        responder(
            503,
            "Redis is unreachable ({})",
            "the change may have been made; check it, and retry",
            reading="retry in a moment",
        ),
    )
    app.add_exception_handler(RedisRefusesAll, _refused_by_redis)
    app.add_exception_handler(
        ScriptFailed, responder(503, "Redis refused the call ({}); nothing was changed", "see the gateway's log")
    )
    app.add_exception_handler(
        KeysLeft,
        responder(
            503,
            "The tenant is deleted. Its keys are invalid but could not be removed ({})",
            "they are removed before the next tenant of that name is created",
        ),
    )
    app.add_exception_handler(
        RecordTooLarge, responder(422, f"The settings of {{}} have more than {LARGEST} bytes", "name fewer models")
    )
    app.add_exception_handler(AlreadyExists, responder(409, "{} already exists", "choose another name, or change it"))
    app.add_exception_handler(DoesNotExist, responder(404, "{} does not exist", "create it first"))
    app.add_exception_handler(ChangedMeanwhile, responder(409, "{} was changed concurrently", "look at it, and retry"))


async def _refused_by_redis(request: Request, error: Exception) -> Response:
    assert isinstance(error, RedisRefusesAll)
    change = "" if request.method == "GET" else "; it refused the change"
    what, remedy = f"Redis is {error.state} ({error.text}){change}", f"{error.remedy}, and retry"
    return AdminError(503, what, remedy).answer()
