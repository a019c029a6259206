"""The backstop behind a node that is trusted to hold budgets: it cuts thinking far beyond one.

Theory. Nearly every request is followed by this filter, so an event is not parsed and has no token ids. Events of
thinking are counted by a byte scan. Each has at least one token (about `pace` where the node decodes several at once),
so more events than the budget and its overshoot allow prove an overrun. The text of the thinking is kept as it stands
in the events. After an overrun the node is asked for the token ids of the prompt and of that text, and the answer is
continued from them (see `continuation`).

    state      event                                   next       asks for
    PASSING    reasoning within the limit              PASSING    -
    PASSING    text or a tool call                     PASSED     -
    PASSING    reasoning beyond the limit              PROMPT     /tokenize of the messages
    PASSING    the same, cannot be continued           ENDED      nothing: finish_reason `length`
    PROMPT     the prompt's token ids                  THINKING   /tokenize of the thinking
    THINKING   its token ids                           CONTINUED  /v1/completions
    PROMPT, THINKING  anything else                    ENDED      nothing: finish_reason `length`
    CONTINUED  chunks                                  CONTINUED  -

The final usage is exact: `overran` is also set by a usage beyond the limit.
"""

import json
from collections.abc import Callable
from dataclasses import replace
from enum import Enum
from typing import Any

from gateway.core.budgets.chunks import head_of, ids_json
from gateway.core.budgets.continuation import BudgetTerms, tokenize_prompt, tokenize_text
from gateway.core.budgets.enforcement import Enforcement
from gateway.core.budgets.thinking_events import NO_SHAPE, count_thinking, frame_of, thinking_text
from gateway.core.dialects.chat import ChatFilter
from gateway.core.dialects.stream_filter import LINE_FEED, FollowUpRequest
from gateway.core.errors import AnswerTooLarge
from gateway.core.http.sse import MAX_HELD, split_events
from gateway.core.json_text import dump, parse_object

ROOM = 64
"""Tokens that have to be left for the answer where thinking ends early: how many it has is counted by events."""

_ANSWER = (b'"content":"', b'"tool_calls":[')


class BackstopState(Enum):
    PASSING = "passing"
    PROMPT = "prompt"
    THINKING = "thinking"
    CONTINUED = "continued"


class Backstop(ChatFilter):
    """Follows the chat stream of a node that holds budgets."""

    __slots__ = (
        "_after",
        "_before",
        "_beyond",
        "_early",
        "_enforcement",
        "_frame",
        "_left",
        "_limit",
        "_make_terms",
        "_most",
        "_pace",
        "_passed",
        "_prompt",
        "_shape",
        "_state",
        "_terms",
        "_text",
        "_tokenized",
        "overran",
    )

    def __init__(self, make_terms: Callable[[], BudgetTerms], pass_usage: bool, limit: int, pace: float) -> None:
        """`make_terms` gives the terms of a continuation. `limit`: tokens of thinking allowed. `pace`: tokens that an
        event of this node has at least."""
        super().__init__(pass_usage)
        self._make_terms = make_terms
        self._terms: BudgetTerms | None = None
        self._limit = limit
        self._pace = pace
        self._most = self._left = int(limit / pace)
        """Events of thinking that are allowed in all, and those of them that are left."""
        self._beyond = 0
        self._early = False
        """Whether the thinking is ended before its budget: no overrun of the node's."""
        self._state = BackstopState.PASSING
        self._passed = False
        """Whether the state is PASSED: a flag, since `passes` asks with each event."""
        self._before = self._after = b""
        self._shape = NO_SHAPE
        self._text = bytearray()
        self._tokenized = bytearray()
        """The tokenizer's answer so far."""
        self._frame: dict[str, Any] = {}
        self._prompt = b""
        self._enforcement: Enforcement | None = None
        self.overran = False

    @property
    def pace(self) -> float | None:
        """Tokens of thinking per event by the node's own count; None where that is not known."""
        reasoning = None if self.usage is None else self.usage.reasoning
        return None if not reasoning or self._events < 32 or self._enforcement else reasoning / self._events

    @property
    def _events(self) -> int:
        return self._most - self._left

    @property
    def thought(self) -> int | None:
        over = self._enforcement is not None or self._passed or self._early
        return None if over or self._shape is NO_SHAPE else int(self._events * self._pace)

    def end_thinking(self) -> bool:
        thought = self.thought
        if thought is None:
            return False
        terms = self._make_terms()
        room = terms.room(0, thought + ROOM)
        if not terms.exact or room is None or room < 1:
            return False
        self._early = True
        self._most, self._left = self._events, 0
        return True

    def passes(self, event: bytes) -> bool:
        if self._passed:
            return ChatFilter.passes(self, event)  # super() costs 0.1 µs more
        left, shape = self._left, self._shape
        if left <= 0 or shape is NO_SHAPE or not self._clear:
            return False
        # Nearly every event while the model thinks: reasoning and nothing else. Saves 5 % of an event
        # (docs/benchmarks.md).
        ending, opening, opens_at, begins_at, ends_at = shape
        ends_at += len(event)
        if begins_at > ends_at or not event.endswith(ending) or not event.startswith(opening, opens_at):
            return False
        text = event[begins_at:ends_at]
        if LINE_FEED in text:
            return False  # several events
        self._left = left - 1
        kept = self._text
        kept += text  # in place: it is a bytearray
        self._last = event
        return True

    def passes_text(self, event: bytes, end: int) -> bool:
        left, shape = self._left, self._shape
        if self._passed or not self._clear:
            return self._clear
        if left <= 0 or shape is NO_SHAPE or not event.startswith(shape.opening, shape.opens_at):
            return False
        self._left = left - 1
        kept = self._text
        kept += event[shape.begins_at : end]
        return True

    @property
    def passes_texts(self) -> bool:
        return self._passed and self._clear

    def feed(self, data: bytes) -> bytes:
        if self._passed:
            return super().feed(data)
        if self._state is BackstopState.PASSING:
            return self._follow_thinking(super().feed(data))
        if self._enforcement is not None:
            passed = self._enforcement.feed(data)
            self._take_over(self._enforcement)
            self._last = passed or self._last
            return passed
        self._tokenized += data
        if len(self._tokenized) > MAX_HELD:
            raise AnswerTooLarge(f"The node's tokenizer answered with more than {MAX_HELD} bytes.")
        return b""

    def flush(self) -> bytes:
        if self._state in (BackstopState.PROMPT, BackstopState.THINKING):
            return self._take_ids()
        held = super().flush()
        if self.usage is not None and (self.usage.reasoning or 0) > self._limit:
            self.overran = True
        return held

    # While thinking passes

    def _follow_thinking(self, events: bytes) -> bytes:
        count = count_thinking(events)
        if count > self._left:
            beyond = count - self._left
            events = self._within_limit(events)
            self._keep(events)
            return events + self._cut(beyond)
        if count:
            self._left -= count
            self._keep(events)
        elif events and any(mark in events for mark in _ANSWER) and b'"content":""' not in events:
            self._passed = True
            self._shape = NO_SHAPE
            self._text.clear()
        return events

    def _within_limit(self, events: bytes) -> bytes:
        """The first of a run of events, up to the limit."""
        passed = []
        left = self._left
        for event in split_events(events):
            left -= count_thinking(event)
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
            self._text += thinking_text(event)
            if not self._before and (frame := frame_of(event)) is not None:
                self._before, self._after, self._shape = frame

    # After an overrun

    def _cut(self, beyond: int) -> bytes:
        self.overran = not self._early
        self._shape = NO_SHAPE
        self._left, self._beyond = 0, beyond
        head = head_of(self._before)
        self._frame = parse_object(head[6:] + b"]}") if head else {}
        self._frame.pop("choices", None)
        terms = self._terms = replace(self._make_terms(), pass_usage=self._pass_usage)
        if not terms.exact or not self._frame:
            return self._continue(terms, b"", b"")
        self._state = BackstopState.PROMPT
        self.follow_up = FollowUpRequest("/tokenize", dump(tokenize_prompt(terms.body)))
        return b""

    def _take_ids(self) -> bytes:
        """The tokenizer's answer is complete: ask for the next ids, or continue."""
        terms = self._terms
        assert terms is not None
        answer, self._tokenized = bytes(self._tokenized), bytearray()
        ids = ids_json(parse_object(answer).get("tokens"))
        if not ids or self._state is BackstopState.THINKING:
            return self._continue(terms, self._prompt, ids)
        self._prompt = ids
        self._state = BackstopState.THINKING
        text = json.loads(b'"' + self._text + b'"')
        self.follow_up = FollowUpRequest("/tokenize", dump(tokenize_text(terms.body, text)))
        return b""

    def _continue(self, terms: BudgetTerms, prompt: bytes, thinking: bytes) -> bytes:
        """Hand the answer over to an enforcement; without token ids that can only end it."""
        self._state = BackstopState.CONTINUED
        self._enforcement = Enforcement(terms)
        passed = self._enforcement.resume(self._frame, prompt, thinking, self._events, self._beyond)
        self._take_over(self._enforcement)
        return passed

    def _take_over(self, enforcement: Enforcement) -> None:
        """Take over the state of the enforcement."""
        self.follow_up, enforcement.follow_up = enforcement.follow_up, None
        self.ended, self.failed = enforcement.ended, enforcement.failed
        self.usage, self.wasted = enforcement.usage, enforcement.wasted
