"""The backstop behind a node that has proven to hold budgets: one that thinks far beyond one all the same is cut.

Theory. This is the path of nearly every request, so an event is not parsed and carries no token ids. Events with
reasoning are counted by a byte scan; each is at least one token (and about `pace` of them where the node decodes
several at once), so more events than the budget and its slack allow are certain proof. The text of the thinking is
kept, as it stands in the events. Only then is the price paid: the node is asked for the token ids of the prompt and of
that text, and the answer is continued from there (see `budget`).

    stage      event                                   next       asks for
    PASSING    reasoning, within what is allowed       PASSING    -
    PASSING    text or a tool call                     PASSED     -
    PASSING    reasoning beyond it                     PROMPT     /tokenize of the messages
    PASSING    the same, cannot be continued           ENDED      nothing: finish_reason `length`
    PROMPT     the prompt's token ids                  THINKING   /tokenize of the thinking
    THINKING   its token ids                           CONTINUED  /v1/completions
    PROMPT, THINKING  anything else                    ENDED      nothing: finish_reason `length`
    CONTINUED  chunks                                  CONTINUED  -

The final usage is the exact check. Whoever is past the slack by it is told in `overran`.
"""

import json
from collections.abc import Callable
from dataclasses import replace
from enum import Enum
from functools import lru_cache
from typing import Any, NamedTuple

from gateway.core.bodies import Body
from gateway.core.budgets.chunks import head_of, ids_json
from gateway.core.budgets.continuation import BudgetTerms
from gateway.core.budgets.enforcement import Enforcement
from gateway.core.dialects.chat import ChatFilter
from gateway.core.dialects.stream_filter import LINE_FEED, FollowUpRequest
from gateway.core.errors import AnswerTooLarge
from gateway.core.http.sse import MAX_HELD, event_data, split_events
from gateway.core.json_text import dump, parse_object

_OPENING = (b'"reasoning":"', b'"reasoning_content":"')
"""How the text of thinking begins. Not the name alone: `"reasoning":null` is none, `"reasoning_tokens":` is a count."""

_CLOSING = b'"},"logprobs":null,"finish_reason":null'
_ANSWER = (b'"content":"', b'"tool_calls":[')


class _Shape(NamedTuple):
    """How events of thinking look around their text: how they end, and where in them the text is opened, begins, and
    ends (counted from the end, so negative)."""

    ending: bytes
    opening: bytes
    opens_at: int
    begins_at: int
    ends_at: int


_SHAPELESS = _Shape(b"", b"", 0, 0, 0)
"""That of no event."""

_AT_SIGHT = 256
"""Events that pass at sight before the count is looked at again: so far Python has its integers ready."""


@lru_cache(maxsize=256)
def _shape_of(ending: bytes, opening: bytes, opens_at: int) -> _Shape:
    """One object for all streams whose events look alike: what is looked at with each event should be in the cache."""
    return _Shape(ending, opening, opens_at, opens_at + len(opening), -len(ending))


class BackstopState(Enum):
    PASSING = "passing"
    PROMPT = "prompt"
    THINKING = "thinking"
    CONTINUED = "continued"


class Backstop(ChatFilter):
    """Follows the stream of a node that holds budgets; `set_terms` gives the terms of a continuation."""

    __slots__ = (
        "_after",
        "_before",
        "_beyond",
        "_enforcement",
        "_frame",
        "_left",
        "_limit",
        "_most",
        "_passed",
        "_prompt",
        "_room",
        "_set_terms",
        "_shape",
        "_stage",
        "_terms",
        "_text",
        "_told",
        "overran",
    )

    def __init__(self, set_terms: Callable[[], BudgetTerms], pass_usage: bool, limit: int, pace: float) -> None:
        """`limit`: tokens of thinking that are let pass; `pace`: tokens that an event of this node has at least."""
        super().__init__(pass_usage)
        self._set_terms = set_terms
        self._terms: BudgetTerms | None = None
        self._limit = limit
        self._most = self._left = int(limit / pace)
        """Events of thinking that are let pass in all, and those of them that may still come beyond `_room`."""
        self._room = 0
        """Those that may come at sight: none while something waits here."""
        self._beyond = 0
        self._stage = BackstopState.PASSING
        self._passed = False
        self._before = self._after = b""
        self._shape = _SHAPELESS
        self._text = bytearray()
        self._told = bytearray()
        self._frame: dict[str, Any] = {}
        self._prompt = b""
        self._enforcement: Enforcement | None = None
        self.overran = False

    @property
    def pace(self) -> float | None:
        """Tokens of thinking per event, by the node's own count; None where it cannot be told."""
        reasoning = None if self.usage is None else self.usage.reasoning
        return None if not reasoning or self._events < 32 or self._enforcement else reasoning / self._events

    @property
    def _events(self) -> int:
        return self._most - self._left - self._room

    def passes(self, event: bytes) -> bool:
        room = self._room
        if not room:
            return self._passed and ChatFilter.passes(self, event)  # super() costs 0.1 µs more
        # Nearly every event while the model thinks: one with nothing but reasoning in it.
        ending, opening, opens_at, begins_at, ends_at = self._shape
        ends_at += len(event)
        if begins_at > ends_at or not event.endswith(ending) or not event.startswith(opening, opens_at):
            return False
        piece = event[begins_at:ends_at]
        if LINE_FEED in piece:
            return False  # there is more than one event
        self._room = room - 1
        text = self._text
        text += piece  # in its place: it is a bytearray
        return True

    def feed(self, data: bytes) -> bytes:
        if self._passed:
            return super().feed(data)
        if self._stage is BackstopState.PASSING:
            self._left, self._room = self._left + self._room, 0
            events = self._watch_thinking(super().feed(data))
            self._room = min(self._left, _AT_SIGHT) if self._clear and self._shape is not _SHAPELESS else 0
            self._left -= self._room
            return events
        if self._enforcement is not None:
            passed = self._enforcement.feed(data)
            self._follow(self._enforcement)
            return passed
        self._told += data
        if len(self._told) > MAX_HELD:
            raise AnswerTooLarge(f"The node's tokenizer answered with more than {MAX_HELD} bytes.")
        return b""

    def flush(self) -> bytes:
        if self._stage in (BackstopState.PROMPT, BackstopState.THINKING):
            return self._take_ids()
        held = super().flush()
        if self.usage is not None and (self.usage.reasoning or 0) > self._limit:
            self.overran = True
        return held

    def _watch_thinking(self, events: bytes) -> bytes:
        count = events.count(_OPENING[0]) or events.count(_OPENING[1])
        if count > self._left:
            beyond = count - self._left
            events = self._allowed(events)
            self._keep(events)
            return events + self._cut(beyond)
        if count:
            self._left -= count
            self._keep(events)
        elif events and any(mark in events for mark in _ANSWER) and b'"content":""' not in events:
            self._passed = True
            self._shape = _SHAPELESS
            self._text.clear()
        return events

    def _allowed(self, events: bytes) -> bytes:
        """Those of a run of events that are still let pass."""
        passed = []
        left = self._left
        for event in split_events(events):
            left -= event.count(_OPENING[0]) or event.count(_OPENING[1])
            if left < 0:
                break
            passed.append(event)
        return b"".join(passed)

    def _keep(self, events: bytes) -> None:
        """Keep the text of events, as JSON has it between the quotes."""
        before, after = self._before, self._after
        begins_at, ends_at = len(before), len(events) - len(after)
        if before and begins_at <= ends_at and events.startswith(before) and events.endswith(after):
            self._text += events[begins_at:ends_at].replace(after + before, b"")
            return
        for event in split_events(events):
            self._keep_parsed(event)
            if not self._before:
                self._learn_frame(event)

    def _keep_parsed(self, event: bytes) -> None:
        """What is not a chunk goes on all the same, as it does where nothing is counted; it has no text."""
        choices = parse_object(event_data(event)).get("choices")
        for choice in choices if isinstance(choices, list) else ():
            delta = choice.get("delta") if isinstance(choice, dict) else None
            if isinstance(delta, dict):
                text = delta.get("reasoning") or delta.get("reasoning_content")
                self._text += dump(text)[1:-1] if isinstance(text, str) else b""

    def _learn_frame(self, event: bytes) -> None:
        """What stands around the text, the same in each event."""
        for opening in _OPENING:
            at, end = event.find(opening), event.rfind(_CLOSING)
            if 0 < at < end:
                self._before, self._after = event[: at + len(opening)], event[end:]
                self._shape = _shape_of(self._after, opening, at)

    # The cut

    def _cut(self, beyond: int) -> bytes:
        self.overran = True
        self._shape = _SHAPELESS
        self._left, self._beyond = 0, beyond
        head = head_of(self._before)
        self._frame = parse_object(head[6:] + b"]}") if head else {}
        self._frame.pop("choices", None)
        terms = self._terms = replace(self._set_terms(), pass_usage=self._pass_usage)
        if not terms.exact or not self._frame:
            return self._go_on(terms, b"", b"")
        self._stage = BackstopState.PROMPT
        self.follow_up = FollowUpRequest("/tokenize", dump(_rendering(terms.body)))
        return b""

    def _take_ids(self) -> bytes:
        """An answer of the tokenizer is complete."""
        terms = self._terms
        assert terms is not None
        told, self._told = bytes(self._told), bytearray()
        ids = ids_json(parse_object(told).get("tokens"))
        if not ids or self._stage is BackstopState.THINKING:
            return self._go_on(terms, self._prompt, ids)
        self._prompt = ids
        self._stage = BackstopState.THINKING
        text = json.loads(b'"' + self._text + b'"')
        body = {"model": terms.body.get("model"), "prompt": text, "add_special_tokens": False}
        self.follow_up = FollowUpRequest("/tokenize", dump(body))
        return b""

    def _go_on(self, terms: BudgetTerms, prompt: bytes, thinking: bytes) -> bytes:
        """Hand over to the enforcement, with what the client has seen so far; without ids it can only end."""
        self._stage = BackstopState.CONTINUED
        self._enforcement = Enforcement(terms)
        passed = self._enforcement.resume(self._frame, prompt, thinking, self._events, self._beyond)
        self._follow(self._enforcement)
        return passed

    def _follow(self, enforcement: Enforcement) -> None:
        self.follow_up, enforcement.follow_up = enforcement.follow_up, None
        self.ended, self.failed = enforcement.ended, enforcement.failed
        self.usage, self.wasted = enforcement.usage, enforcement.wasted


def _rendering(body: Body) -> Body:
    """The body for /tokenize that renders the messages as the node did for the chat."""
    kwargs = dict(body.get("chat_template_kwargs") or {})
    effort = body.get("reasoning_effort")
    if effort is not None:
        kwargs = {"reasoning_effort": effort, "enable_thinking": effort != "none", **kwargs}
    fields = {key: body[key] for key in ("model", "messages", "tools", "chat_template") if body.get(key) is not None}
    return {**fields, "chat_template_kwargs": kwargs, "add_generation_prompt": True}
