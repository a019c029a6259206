"""The spans of a recorded request, made at its end of the times that were noted.

span                 kind      what                                             parent
POST /v1/...         server    the request                                      the client's span
choice, queue        internal  limits and the choice of a node; the wait        the request
chat MODEL           client    one try on a node (OpenTelemetry's GenAI names)  the request
prefill              internal  asked, until the first event                     its try
thinking, answer     internal  from the first event of each to the next         its try
resume               internal  from a break to the next token                   the request
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

from gateway.core.json_text import dump
from gateway.core.resume.note import ResumeNote
from gateway.core.telemetry.request_stats import RequestStats
from gateway.core.telemetry.request_trace import RequestTrace, TracedAttempt

Value = str | int | float | bool | tuple[str, ...]

PROVIDER: Final = "vllm"

OPERATIONS: Final = {
    "chat": "chat",
    "responses": "chat",
    "messages": "chat",
    "compact": "chat",
    "completions": "text_completion",
    "embeddings": "embeddings",
}
"""GenAI's word for a dialect; the dialect's own name for all others."""


NOTHING_MORE: Final[Mapping[str, Value]] = {}


class SpanFacts(NamedTuple):
    """One span. `span`: its id, None where any will do. `began`, `ended`: nanoseconds since 1970. `error`: what went
    wrong, None where nothing did."""

    name: str
    span: int | None
    parent: int | None
    began: int
    ended: int
    kind: str
    attributes: Mapping[str, Value]
    error: str | None = None


def spans_of(stats: RequestStats, trace: RequestTrace) -> list[SpanFacts]:
    """All spans of a request that has ended, the request's own first."""
    return list(_spans(stats, trace, _Times(stats, trace.began)))


class _Times:
    """Turns the process's times into nanoseconds since 1970, none of them after the request's end."""

    def __init__(self, stats: RequestStats, began: float) -> None:
        self._end = int(stats.at * 1e9)
        self._base = stats.at - stats.duration - began

    def at(self, time: float | None) -> int:
        return self._end if time is None else min(self._end, int((self._base + time) * 1e9))


def _spans(stats: RequestStats, trace: RequestTrace, times: _Times) -> Iterator[SpanFacts]:
    began = times.at(None) - int(stats.duration * 1e9)
    failed = None if stats.level == "info" else stats.ending
    name = f"{trace.method} {trace.route}"
    yield SpanFacts(name, trace.span, trace.parent, began, times.at(None), "server", _of_request(stats, trace), failed)
    for phase in trace.phases:
        error = None if phase.ended is not None else failed
        extra: dict[str, Value] = {}
        if phase.name == "choice" and stats.route is not None:
            extra["fleetgate.route"] = stats.route
        if phase.name == "queue" and stats.service_class is not None:
            extra["fleetgate.service_class"] = stats.service_class
        yield SpanFacts(
            phase.name, None, trace.span, times.at(phase.began), times.at(phase.ended), "internal", extra, error
        )
    notes = iter(stats.resumes)
    before: TracedAttempt | None = None
    for attempt in trace.attempts:
        last = attempt is trace.attempts[-1]
        if attempt.resumes and before is not None:
            yield _resume(before, attempt, next(notes, None), trace, times)
        yield from _attempt(stats, trace, attempt, last, times)
        before = attempt


def _of_request(stats: RequestStats, trace: RequestTrace) -> dict[str, Value]:
    found: dict[str, Value | None] = {
        "http.request.method": trace.method,
        "http.route": trace.route,
        "http.response.status_code": stats.status or None,
        "http.request.body.size": stats.request_bytes,
        "user_agent.original": None if stats.user_agent is None else stats.user_agent.decode("latin-1"),
        "client.address": stats.address or None,
        "error.type": None if stats.level == "info" else stats.ending,
        "fleetgate.request_id": stats.request_id,
        "fleetgate.dialect": stats.dialect,
        "fleetgate.tenant": stats.tenant,
        "fleetgate.key": stats.key,
        "fleetgate.ending": stats.ending,
        "fleetgate.attempts": stats.attempts,
        "fleetgate.attempts_not_shown": trace.dropped or None,
        "fleetgate.service_class": stats.service_class,
        "fleetgate.queued_ms": None if stats.queued is None else round(stats.queued * 1000, 1),
        "fleetgate.ttft_ms": None if stats.ttft is None else round(stats.ttft * 1000, 1),
        "fleetgate.thinking_budget": stats.thinking_budget,
        "fleetgate.thinking_ended_early": stats.thinking_ended_early or None,
        "fleetgate.limit": stats.limit,
        "fleetgate.cost_usd": None if stats.cost is None else stats.cost / 1e9,
    }
    return {name: value for name, value in found.items() if value is not None}


def _attempt(
    stats: RequestStats, trace: RequestTrace, attempt: TracedAttempt, last: bool, times: _Times
) -> Iterator[SpanFacts]:
    watch = attempt.watch
    operation = OPERATIONS.get(stats.dialect, stats.dialect)
    host, _, port = attempt.node.rpartition(":")
    outcome = attempt.outcome or stats.ending
    error = None if outcome in ("passed", "ok") else outcome
    found: dict[str, Value | None] = {
        "gen_ai.operation.name": operation,
        "gen_ai.provider.name": PROVIDER,
        "gen_ai.request.model": stats.model,
        "gen_ai.request.stream": stats.stream,
        "gen_ai.request.max_tokens": stats.max_tokens,
        "gen_ai.response.id": watch.id,
        "gen_ai.response.finish_reasons": tuple(watch.reasons) or None,
        "server.address": host or attempt.node,
        "server.port": int(port) if port.isdigit() else None,
        "error.type": error,
        "fleetgate.request_id": stats.request_id,
        "fleetgate.node": attempt.node,
        "fleetgate.outcome": outcome,
    }
    if watch.first is not None:
        found["gen_ai.response.time_to_first_chunk"] = watch.first - (attempt.sent or attempt.began)
    usage = stats.usage
    if last and usage is not None:
        found["gen_ai.response.model"] = stats.model
        found["gen_ai.usage.input_tokens"] = usage.input
        found["gen_ai.usage.output_tokens"] = usage.output
        found["gen_ai.usage.cache_read.input_tokens"] = usage.cached
        found["gen_ai.usage.reasoning.output_tokens"] = usage.reasoning
        found["fleetgate.usage_estimated"] = stats.estimated or None
    if trace.content:
        if trace.input is not None:
            found["gen_ai.input.messages"] = dump(trace.input).decode()
        found["gen_ai.output.messages"] = _output(attempt)
    attributes = {name: value for name, value in found.items() if value is not None}
    name = f"{operation} {stats.model}" if stats.model else operation
    began, ended = times.at(attempt.began), times.at(attempt.ended)
    yield SpanFacts(name, attempt.span, trace.span, began, ended, "client", attributes, error)
    if attempt.sent is None:
        return
    yield _part("prefill", attempt, attempt.sent, watch.first, times)
    if watch.thinking is not None:
        tokens = {} if not last or usage is None or usage.reasoning is None else {"fleetgate.tokens": usage.reasoning}
        yield _part("thinking", attempt, watch.thinking, watch.answer or attempt.ended, times, tokens)
    if watch.answer is not None:
        yield _part("answer", attempt, watch.answer, attempt.ended, times)


def _part(
    name: str,
    attempt: TracedAttempt,
    began: float,
    ended: float | None,
    times: _Times,
    attributes: Mapping[str, Value] = NOTHING_MORE,
) -> SpanFacts:
    end = attempt.ended if ended is None else ended
    return SpanFacts(name, None, attempt.span, times.at(began), times.at(end), "internal", attributes)


def _resume(
    before: TracedAttempt, attempt: TracedAttempt, note: ResumeNote | None, trace: RequestTrace, times: _Times
) -> SpanFacts:
    went_on = attempt.watch.first
    found: dict[str, Value | None] = {"fleetgate.from": before.node, "fleetgate.to": attempt.node}
    if note is not None:
        found |= {
            "fleetgate.cause": note.cause,
            "fleetgate.outcome": note.outcome,
            "fleetgate.token": note.token,
            "fleetgate.recomputed_tokens": note.recomputed,
        }
    attributes = {name: value for name, value in found.items() if value is not None}
    end = attempt.ended if went_on is None else went_on
    error = None if went_on is not None else "not_resumed"
    return SpanFacts("resume", None, trace.span, times.at(before.ended), times.at(end), "internal", attributes, error)


def _output(attempt: TracedAttempt) -> str | None:
    thought, said = attempt.watch.texts()
    parts = [{"type": kind, "content": text} for kind, text in (("reasoning", thought), ("text", said)) if text]
    if not parts:
        return None
    reason = attempt.watch.reasons[-1] if attempt.watch.reasons else "error"
    return dump([{"role": "assistant", "parts": parts, "finish_reason": reason}]).decode()


def input_messages(body: Mapping[str, Any], bound: int) -> list[dict[str, Any]]:
    """The texts of a request as GenAI's messages: the last ones that are whole within `bound` bytes, and the end of the
    one before."""
    turns = body.get("messages") or body.get("input") or body.get("prompt") or []
    kept: list[dict[str, Any]] = []
    for turn in reversed(turns if isinstance(turns, list) else [turns]):
        role, content = (turn.get("role"), turn.get("content")) if isinstance(turn, dict) else ("user", turn)
        text = _text(content)
        if not text or not isinstance(role, str):
            continue
        encoded = text.encode("utf-8", "replace")[-bound:]
        bound -= len(encoded)
        part = {"type": "text", "content": encoded.decode("utf-8", "ignore")}
        kept.append({"role": role[:32], "parts": [part]})
        if bound <= 0:
            break
    return kept[::-1]


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return "\n".join(
            part["text"] for part in content if isinstance(part, dict) and isinstance(part.get("text"), str)
        )
    return ""
