"""`/v1/chat/completions` and `/v1/completions`: one stream format, two kinds of choices."""

from typing import Any, ClassVar

from gateway.core.bodies import Body
from gateway.core.dialects.base import Ask, Dialect
from gateway.core.dialects.carrying import carry_budget, carry_effort, carry_switch
from gateway.core.dialects.counts import check_prompts
from gateway.core.dialects.error_shape import ErrorShape
from gateway.core.dialects.fields import optional
from gateway.core.dialects.openai import openai_error, openai_error_event
from gateway.core.dialects.stream_filter import ABORTED, MarkerFilter, StreamFilter, gave_up
from gateway.core.http.sse import DONE
from gateway.core.json_text import dump
from gateway.core.thinking.grant import Grant
from gateway.core.usage.token_usage import from_openai

_MARKS = (DONE, b'"usage"', b'"error"', ABORTED)
_FINISH = b'"finish_reason":"'


class ChatFilter(MarkerFilter):
    """Filters chunks, then one with usage and no choices where it was asked for, then `[DONE]`.

    The usage chunk is taken out where only the gateway asked for it. vLLM then puts `system_fingerprint` there instead
    of on the chunk with the finish reason. So that chunk is held back, for less than a millisecond, and given the
    fingerprint. With several choices it is not held back, since the other choices go on.
    """

    __slots__ = ("_finish", "_hold_finish", "_pass_usage")

    def __init__(self, pass_usage: bool, choices: int = 1) -> None:
        self._pass_usage = pass_usage
        self._hold_finish = not pass_usage and choices == 1
        self._finish = b""
        super().__init__((*_MARKS, _FINISH) if self._hold_finish else _MARKS)

    def inspect(self, event: bytes, data: bytes, parsed: dict[str, Any]) -> bytes:
        if ABORTED in data:
            raise gave_up()
        if data == DONE:
            self.ended = True
        elif parsed.get("error"):
            self.failed = True
        else:
            if isinstance(parsed.get("usage"), dict):
                self.usage = from_openai(parsed["usage"]) or self.usage
                if not self._pass_usage and parsed.get("choices") == []:
                    return self._finish_with(parsed.get("system_fingerprint"))
            if self._hold_finish and _FINISH in data and not self._finish:
                self._finish = event
                self._holding = True
                return b""
        return self.flush() + event

    def flush(self) -> bytes:
        finish, self._finish, self._holding = self._finish, b"", False
        return finish

    def _finish_with(self, fingerprint: object) -> bytes:
        finish = self.flush()
        end = finish.rfind(b"}")
        if fingerprint is None or end < 0 or b'"system_fingerprint"' in finish:
            return finish
        return finish[:end] + b',"system_fingerprint":' + dump(fingerprint) + finish[end:]


class Chat(Dialect):
    """OpenAI's chat completions, as vLLM extends them."""

    name = "chat"
    path = "/v1/chat/completions"
    templated = True
    output_fields: ClassVar[tuple[str, ...]] = ("max_completion_tokens", "max_tokens")
    heeds = frozenset(
        {
            "thinking_token_budget",
            "chat_template_kwargs.enable_thinking",
            "chat_template_kwargs.low_effort",
            "reasoning_effort",
            "include_reasoning",
        }
    )

    def read(self, raw: bytes, parsed: Body | None = None) -> Ask:
        ask = super().read(raw, parsed)
        options = optional(ask.body, "stream_options", dict)
        if options:
            optional(options, "include_usage", bool)
        return ask

    def changes(self, ask: Ask) -> dict[str, Any]:
        """Asks for usage, without which a stream could not be metered."""
        if not ask.stream or wants_usage(ask):
            return {}
        options = ask.body.get("stream_options") or {}
        # vLLM reads continuous_usage_stats only beside include_usage: a client's alone has to stay without effect.
        kept = {key: value for key, value in options.items() if key != "continuous_usage_stats"}
        return {"stream_options": {**kept, "include_usage": True}}

    def carry(self, body: Body, grant: Grant) -> dict[str, Any]:
        """Thinking off is the template's; a budget of 0 is then set only in the place of a client's."""
        off = grant.thinking is False and body.get("thinking_token_budget") is None
        return {
            **carry_switch(body, grant),
            **carry_effort(body, "reasoning_effort", grant),
            **({} if off else carry_budget(body, grant.thinking_budget)),
        }

    def stream_filter(self, ask: Ask) -> StreamFilter:
        return ChatFilter(pass_usage=wants_usage(ask), choices=ask.choices)

    def gave_up(self, answer: bytes) -> bool:
        return ABORTED in answer

    def error(self, shape: ErrorShape) -> bytes:
        return openai_error(shape)

    def error_event(self, shape: ErrorShape, number: int) -> bytes:
        return openai_error_event(shape)


class Completions(Chat):
    """OpenAI's older completions: the same envelope around plain text."""

    name = "completions"
    path = "/v1/completions"
    templated = False
    output_fields = ("max_tokens",)
    heeds = frozenset({"thinking_token_budget"})

    def read(self, raw: bytes, parsed: Body | None = None) -> Ask:
        ask = super().read(raw, parsed)
        check_prompts(ask.body.get("prompt"), "prompt")
        return ask

    def changes(self, ask: Ask) -> dict[str, Any]:
        """Sets an `n` of null, which OpenAI takes and nodes refuse, to what it means."""
        changes = super().changes(ask)
        return {**changes, "n": 1} if "n" in ask.body and ask.body["n"] is None else changes

    def carry(self, body: Body, grant: Grant) -> dict[str, Any]:
        """No template switches thinking off: a budget of 0 ends it where the prompt opened it."""
        return carry_budget(body, grant.thinking_budget)


def wants_usage(ask: Ask) -> bool:
    """Whether the client asked for the usage chunk."""
    options = ask.body.get("stream_options")
    return bool(options and options.get("include_usage"))
