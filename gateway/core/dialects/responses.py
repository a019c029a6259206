"""`/v1/responses`: typed events; the last one carries the whole response with its usage."""

from typing import Any, ClassVar

from gateway.core.bodies import Body
from gateway.core.dialects.base import NEVER, Ask, Dialect
from gateway.core.dialects.carrying import carry_effort, carry_switch
from gateway.core.dialects.error_shape import ErrorShape
from gateway.core.dialects.fields import optional
from gateway.core.dialects.openai import error_object, openai_error
from gateway.core.dialects.over_chat import OverChat, compaction_over_chat, responses_over_chat
from gateway.core.dialects.responses_input import asks_for_compaction, known_to_nodes
from gateway.core.dialects.stream_filter import MarkerFilter, StreamFilter
from gateway.core.http.sse import event_data, split_events
from gateway.core.json_text import dump, parse_object
from gateway.core.thinking.grant import Grant
from gateway.core.usage.token_usage import Usage, from_openai

_COMPLETED, _INCOMPLETE = b'"response.completed"', b'"response.incomplete"'
_COMPLETED_LINE, _INCOMPLETE_LINE = b"event: response.completed\n", b"event: response.incomplete\n"

_TIERS = ("auto", "default", "flex", "scale", "priority")
"""The service tiers that nodes read; they serve all alike."""

_SEARCHES = ("web_search_call.action.sources", "web_search_call.results")
"""What a client may want included of a provider's web searches. Nodes refuse the names, and have no searches."""

NUMBER = b'"sequence_number"'
"""Stands in events that have a number."""

_ENDS = ("response.completed", "response.incomplete", "response.failed", "response.cancelled")


class ResponsesFilter(MarkerFilter):
    """Inspects only closing events and errors.

    Before 0.33 vLLM ends a truncated response with `response.completed`; it is made OpenAI's `response.incomplete`.
    """

    __slots__ = ("_fed",)

    def __init__(self) -> None:
        super().__init__((*(b'"%b"' % kind.encode() for kind in _ENDS), b'"error"'))
        self._fed = b""
        """The events of the last piece that was fed and has numbers."""

    def _inspect_marked(self, events: bytes) -> bytes:
        events = super()._inspect_marked(events)
        if events.find(NUMBER) >= 0:
            self._fed = events
        return events

    @property
    def next_number(self) -> int:
        return max(number_behind(self._fed), number_behind(self._last))

    def inspect(self, event: bytes, data: bytes, parsed: dict[str, Any]) -> bytes:
        kind = parsed.get("type")
        if kind == "error" or (kind is None and parsed.get("error")):
            self.failed = True
        if kind in _ENDS:
            self.ended = True
            self.failed = self.failed or kind == "response.failed"
            response = parsed.get("response")
            usage = response.get("usage") if isinstance(response, dict) else None
            if isinstance(usage, dict):
                self.usage = from_openai(usage) or self.usage
            if kind == "response.completed" and isinstance(response, dict) and response.get("status") == "incomplete":
                return _ended_incomplete(event, parsed)
        return event


def number_behind(events: bytes) -> int:
    """The number of the next event behind `events`, 0 where none of them has a number."""
    for event in reversed(split_events(events)):
        number = parse_object(event_data(event)).get("sequence_number")
        if type(number) is int:
            return number + 1
    return 0


def _ended_incomplete(event: bytes, parsed: dict[str, Any]) -> bytes:
    """The event with another type, and every other byte as it came where the type's place is certain."""
    if event.count(_COMPLETED) == 1 and event.startswith(_COMPLETED_LINE):
        return _INCOMPLETE_LINE + event[len(_COMPLETED_LINE) :].replace(_COMPLETED, _INCOMPLETE)
    return _INCOMPLETE_LINE + b"data: %b\n\n" % dump({**parsed, "type": "response.incomplete"})


class StoredResponseFilter(ResponsesFilter):
    """Reports no usage: it was counted when the response was made."""

    __slots__ = ()

    def inspect(self, event: bytes, data: bytes, parsed: dict[str, Any]) -> bytes:
        passed = super().inspect(event, data, parsed)
        self.usage = None
        return passed


class Responses(Dialect):
    """OpenAI's responses. The gateway chooses the id, which retrieve, cancel and `previous_response_id` name."""

    name = "responses"
    path = "/v1/responses"
    templated = True
    adapts = True
    refers = True
    mints_ids = True
    output_fields: ClassVar[tuple[str, ...]] = ("max_output_tokens",)
    heeds = frozenset(
        {
            "chat_template_kwargs.enable_thinking",
            "chat_template_kwargs.low_effort",
            "reasoning.effort",
            "include_reasoning",
        }
    )

    def read(self, raw: bytes, parsed: Body | None = None) -> Ask:
        ask = super().read(raw, parsed)
        optional(ask.body, "store", bool)
        ask.background = bool(optional(ask.body, "background", bool))
        ask.continues = optional(ask.body, "previous_response_id", str)
        if asks_for_compaction(ask.body):
            ask.taken_since = NEVER
        return ask

    def adapt(self, body: Body) -> Body:
        return known_to_nodes(body)

    def changes(self, ask: Ask) -> dict[str, Any]:
        """Sets what has no effect on a node, but is refused by it, to what the node reads."""
        changes: dict[str, Any] = {}
        tier, include = ask.body.get("service_tier", "auto"), ask.body.get("include")
        if tier not in _TIERS and (tier is None or type(tier) is str):
            changes["service_tier"] = "auto"
        if type(include) is list and any(name in _SEARCHES for name in include):
            changes["include"] = [name for name in include if name not in _SEARCHES]
        return changes

    def carry(self, body: Body, grant: Grant) -> dict[str, Any]:
        return {
            **carry_switch(body, grant),
            **carry_effort(body, "reasoning.effort", grant),
        }

    def carries(self, grant: Grant) -> bool:
        """No version of vLLM has a budget in this dialect; thinking off is the template's."""
        return grant.thinking is False or grant.thinking_budget is None

    def over_chat(self, body: Body) -> OverChat | None:
        return compaction_over_chat(body, alone=False) if asks_for_compaction(body) else responses_over_chat(body)

    def stream_filter(self, ask: Ask) -> StreamFilter:
        return ResponsesFilter()

    def error(self, shape: ErrorShape) -> bytes:
        return openai_error(shape)

    def error_event(self, shape: ErrorShape, number: int) -> bytes:
        """Flat, as OpenAI documents it, and with `error`, as OpenAI sends it: its SDK raises an error for that one."""
        event = {
            "type": "error",
            "code": shape.code,
            "message": shape.message,
            "param": shape.param,
            **shape.facts,
            "error": error_object(shape),
            "sequence_number": number,
        }
        return b"event: error\ndata: " + dump(event) + b"\n\n"


class ChatOnlyResponses(Responses):
    """Requests with the body of a response, whose path nodes do not have: they are asked in chat, and the answer
    comes in one piece."""

    mints_ids = False

    def read(self, raw: bytes, parsed: Body | None = None) -> Ask:
        ask = super().read(raw, parsed)
        ask.stream = ask.background = False
        ask.continues, ask.taken_since = None, NEVER
        return ask


class StoredResponses(Responses):
    """A stored response that is fetched or cancelled.

    Its usage was counted when it was made. A background response was charged as planned, since it may be fetched many
    times or never.
    """

    computes = False

    def stream_filter(self, ask: Ask) -> StreamFilter:
        return StoredResponseFilter()

    def usage(self, answer: bytes) -> Usage | None:
        return None
