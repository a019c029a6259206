"""The node's paths: who serves them, how they refuse, and how their streams break."""

from collections.abc import Awaitable, Callable, Mapping
from types import MappingProxyType

from workers.fake.chat import serve_chat
from workers.fake.completions import serve_completion
from workers.fake.control import serve_control, serve_stats
from workers.fake.errors import Refusal, anthropic_error, openai_error, stream_error
from workers.fake.faults import Scope
from workers.fake.http1 import Exchange
from workers.fake.messages import serve_count, serve_messages
from workers.fake.node import Node
from workers.fake.pooling import serve_embeddings, serve_pooling, serve_rerank, serve_score
from workers.fake.responses import serve_response, serve_responses
from workers.fake.settings import FakeSettings
from workers.fake.small import (
    serve_detokenize,
    serve_health,
    serve_metrics,
    serve_models,
    serve_named_metrics,
    serve_tokenize,
    serve_version,
)
from workers.fake.wire import DONE, answer_json, compact

Serve = Callable[[Node, Exchange], Awaitable[None]]
_ENGINE_GONE = (
    "EngineCore encountered an issue. See stack trace (above) for the root cause. (original error message: "
    "EngineCore died)"
)
_ENGINE_GONE_033 = "The server had an error while processing your request."
_GENERATING: Mapping[str, tuple[str, Serve, Scope]] = {
    "/v1/chat/completions": ("POST", serve_chat, "generate"),
    "/v1/completions": ("POST", serve_completion, "generate"),
    "/v1/messages": ("POST", serve_messages, "generate"),
    "/v1/messages/count_tokens": ("POST", serve_count, "probes"),
    "/v1/responses": ("POST", serve_responses, "generate"),
}
_POOLING: Mapping[str, tuple[str, Serve, Scope]] = {
    "/v1/embeddings": ("POST", serve_embeddings, "generate"),
    "/pooling": ("POST", serve_pooling, "generate"),
    "/rerank": ("POST", serve_rerank, "generate"),
    "/v1/rerank": ("POST", serve_rerank, "generate"),
    "/v2/rerank": ("POST", serve_rerank, "generate"),
    "/score": ("POST", serve_score, "generate"),
    "/v1/score": ("POST", serve_score, "generate"),
}
_SHARED: Mapping[str, tuple[str, Serve, Scope]] = MappingProxyType(
    {
        "/v1/models": ("GET", serve_models, "probes"),
        "/tokenize": ("POST", serve_tokenize, "probes"),
        "/detokenize": ("POST", serve_detokenize, "probes"),
        "/health": ("GET", serve_health, "probes"),
        "/version": ("GET", serve_version, "probes"),
        "/metrics": ("GET", serve_metrics, "probes"),
        "/metrics/": ("GET", serve_named_metrics, "probes"),
    }
)
_UNKNOWN: tuple[str, Serve | None, Scope] = ("", None, "probes")
CONTROL: Mapping[str, Serve] = MappingProxyType({"/fake/control": serve_control, "/fake/stats": serve_stats})


def route(exchange: Exchange, pools: bool) -> tuple[str, Serve | None, Scope]:
    """The method that a path takes, who serves it (None: nobody), and the scope of faults it is in. `pools`: the model
    does not generate."""
    if exchange.path.startswith("/v1/responses/") and not pools:
        return exchange.method, serve_response, "probes"
    found = _SHARED.get(exchange.path) or (_POOLING if pools else _GENERATING).get(exchange.path)
    return found or _UNKNOWN


def stream_break(path: str, settings: FakeSettings) -> bytes:
    """How a stream breaks when the engine dies; a responses stream just ends."""
    message = _ENGINE_GONE_033 if settings.is_033 else _ENGINE_GONE
    if path == "/v1/messages":
        kind = "api_error" if settings.is_033 else "internal_error"
        body = {"type": "error", "error": {"type": kind, "message": message}}
        return f"event: error\ndata: {compact(body)}\n\n".encode()
    return b"" if path == "/v1/responses" else stream_error(message) + DONE


def wrong_method(exchange: Exchange, allowed: str) -> None:
    """405, as the router says it."""
    body = b'{"detail":"Method Not Allowed"}'
    exchange.answer(405, body, ((b"allow", allowed.encode()), (b"content-type", b"application/json")))


def refuse(exchange: Exchange, refusal: Refusal, settings: FakeSettings) -> None:
    """A refusal in the dialect of the path."""
    if refusal.status == 401:
        answer_json(exchange, {"error": "Unauthorized"}, 401)
        return
    anthropic = exchange.path.startswith("/v1/messages") and not refusal.malformed
    shown = anthropic_error(refusal, translated=settings.is_033) if anthropic else openai_error(refusal)
    answer_json(exchange, shown, refusal.status)
