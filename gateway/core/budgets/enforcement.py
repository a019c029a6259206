"""A thinking budget that the gateway holds, for a node that is not proven to hold it.

Theory. The node streams token ids, and the tokens between the markers of thinking are counted. At the budget the node's
request is closed, and a follow-up continues the answer: its prompt is the first one, the thinking so far, and the
marker that ends thinking, as token ids (see `continuation`). The client sees one stream with one id.

    state      event                                     next       to the client
    OPENING    the prompt opens thinking, or a token     THINKING   the event
    OPENING    text outside of thinking                  ANSWERING  the event
    THINKING   thinking within the budget                THINKING   the event
    THINKING   the end marker, text or a tool call       ANSWERING  the event
    THINKING   thinking beyond the budget                CONTINUED  nothing; `follow_up` asks for the continuation
    THINKING   the same, but it cannot be continued      ENDED      finish_reason `length`, usage, [DONE]
    ANSWERING  anything                                  ANSWERING  the event
    CONTINUED  a chunk of the continuation               CONTINUED  its text under the first id

An event of several tokens that passes the budget is dropped whole, so that text and token ids agree: the reasoning is
then shorter than the budget by less than one event. Tokens made beyond the budget are `wasted`.

A node without a reasoning parser sends thinking as content: the gateway splits it by the markers.
"""

from dataclasses import replace
from enum import Enum
from typing import Any

from gateway.core.budgets.chunks import (
    chat_choice,
    head_of,
    ids_of,
    last_of,
    read_chunk,
    slice_delta,
    take_prompt_ids,
    text_choice,
    write_chunk,
)
from gateway.core.budgets.continuation import END_TEXT, BudgetTerms
from gateway.core.budgets.passed_ids import PassedIds
from gateway.core.budgets.reading import ThinkingReader
from gateway.core.budgets.transcript import TokenTranscript
from gateway.core.dialects.stream_filter import ABORTED, STOP, FollowUpRequest, StreamFilter, gave_up
from gateway.core.http.sse import DONE, EventSplitter, event_data, is_comment, split_events
from gateway.core.usage.token_usage import from_openai

_END = b"data: %b\n\n" % DONE


class EnforcementState(Enum):
    OPENING = "opening"
    THINKING = "thinking"
    ANSWERING = "answering"
    CONTINUED = "continued"
    ENDED = "ended"


class Enforcement(StreamFilter):
    """The node's chat or completions stream in, the client's stream of the same dialect out."""

    __slots__ = (
        "_frame",
        "_head",
        "_passed_on",
        "_reading",
        "_state",
        "_terms",
        "_transcript",
    )

    def __init__(self, terms: BudgetTerms) -> None:
        super().__init__()
        self._terms = terms
        self._state = EnforcementState.OPENING
        self._frame: dict[str, Any] = {}
        self._head = b""
        self._passed_on = PassedIds()
        self._transcript = TokenTranscript()
        self._reading = ThinkingReader(terms)

    def feed(self, data: bytes) -> bytes:
        passed = []
        for event in split_events(self._splitter.feed(data)):
            passed.append(self._take(event))
            if self.follow_up is not None:  # the rest of the node's answer is dropped
                break
        return b"".join(passed)

    def _take(self, event: bytes) -> bytes:
        if (
            self._reading.parsed
            and self._state in (EnforcementState.THINKING, EnforcementState.ANSWERING)
            and not self._terms.hide
        ):
            passed = self._take_sliced(event)
            if passed is not None:
                return passed
        data = event_data(event)
        if not data:
            return event if is_comment(event) else b""
        if data == DONE:
            self.ended = True
            return event
        return self._take_chunk(event)

    def _take_sliced(self, event: bytes) -> bytes | None:
        """The client's event for an ordinary one, by its bytes; None where it has to be parsed."""
        delta = slice_delta(event, self._head)
        thinking = self._state is EnforcementState.THINKING
        if (
            delta is None
            or self._passed_on
            or delta.reasoning is not thinking
            or last_of(delta.ids, self._terms.end) >= 0
        ):
            return None
        if thinking:
            count = delta.ids.count(b",") + 1
            if self._transcript.reasoning + count > self._terms.budget:
                return self._cut(count)
            self._transcript.add(delta.ids, count)
        return event if self._terms.keep_ids else delta.event

    def _take_chunk(self, event: bytes) -> bytes:
        whole, prompt = take_prompt_ids(event)
        chunk = read_chunk(event_data(whole))
        if chunk.get("error"):
            self.failed = True
            return event
        if ABORTED in event:
            raise gave_up()
        if self._state is EnforcementState.OPENING and not self._frame:
            self._begin(chunk, whole)
        if prompt is not None and self._transcript.prompt is None:
            self._transcript.prompt = prompt
            if self._terms.early_usage:
                chunk["usage"] = self._transcript.usage(0)
            if self._reading.opened_by(prompt):
                self._state = EnforcementState.THINKING
        choices = chunk.get("choices")
        if not choices:
            return self._take_usage(chunk)
        if self._state is EnforcementState.CONTINUED:
            return self._go_on(choices[0])
        return self._choose(chunk, choices[0], prompt)

    def _begin(self, chunk: dict[str, Any], event: bytes) -> None:
        self._frame = {key: chunk[key] for key in ("id", "object", "created", "model") if key in chunk}
        self._head = head_of(event)

    def resume(self, frame: dict[str, Any], prompt: bytes, thinking: bytes, events: int, beyond: int) -> bytes:
        """Take over an answer whose budget is spent from another filter, and continue or end it.

        `frame` is what all its chunks have in common. `prompt` and `thinking` are token ids, empty where they are not
        known, `events` the number of its events of thinking, `beyond` the tokens that the client does not get.
        """
        self._frame = frame
        self._transcript.resume(prompt, thinking, events)
        return self._cut(beyond)

    def forget_tokens(self, ids: list[int]) -> bool:
        if self._state is EnforcementState.THINKING:
            dropped = self._transcript.drop(len(ids))
            self._transcript.reasoning -= self._reading.count(dropped)
        if self._terms.keep_ids:
            self._passed_on.add(ids)
        return True

    @property
    def thought(self) -> int | None:
        return self._transcript.reasoning if self._state is EnforcementState.THINKING else None

    def end_thinking(self) -> bool:
        thought = self.thought
        if thought is None or not self._terms.goes_on(self._transcript):
            return False
        self._terms = replace(self._terms, budget=thought)
        return True

    # The first request

    def _choose(self, chunk: dict[str, Any], choice: dict[str, Any], prompt: bytes | None) -> bytes:
        ids = ids_of(choice)
        keep = self._terms.keep_ids
        if "token_ids" in choice and not keep:
            choice["token_ids"] = None
        again = bool(ids) and bool(self._passed_on)
        if ids and again:
            choice["token_ids"] = self._passed_on.new(ids)
        for place in (chunk, choice):
            if place.get("prompt_token_ids") is not None:
                place["prompt_token_ids"] = [int(item) for item in prompt.split(b",")] if keep and prompt else None
        if self._state in (EnforcementState.OPENING, EnforcementState.THINKING):
            passed = self._follow(chunk, choice, ids)
        else:
            passed = write_chunk(chunk)
        said = any(choice.get(name) for name in ("delta", "text", "token_ids", "finish_reason"))
        return passed if said or not again or self.follow_up is not None else b""

    def _follow(self, chunk: dict[str, Any], choice: dict[str, Any], ids: list[int] | None) -> bytes:
        """The client's event for one that may be thinking."""
        open_before = self._state is EnforcementState.THINKING
        thinking, count = self._reading.weigh(choice, ids, open_before)
        if self._transcript.reasoning + count > self._terms.budget:
            return self._cut(count)
        passed, ended = self._reading.pass_on(chunk, choice, ids, open_before)
        if thinking:
            self._state = EnforcementState.THINKING
            self._transcript.add(",".join(map(str, ids or ())).encode(), count)
        if ended:
            self._state = EnforcementState.ANSWERING
        return passed

    def _cut(self, beyond: int) -> bytes:
        """The budget is spent: continue without thinking, or end the answer where that is not possible."""
        self.wasted += beyond
        self._passed_on.clear()
        held = self._reading.flush()
        passed = write_chunk({**self._frame, "choices": [chat_choice({"reasoning": held})]}) if held else b""
        terms, transcript = self._terms, self._transcript
        room, prompt = terms.goes_on(transcript), transcript.prompt
        if not room or prompt is None:
            return passed + self._end_here()
        transcript.made = made = transcript.made + len(terms.end)
        self.usage = from_openai(transcript.usage(made))  # should nothing more come
        self._state = EnforcementState.CONTINUED
        self._splitter = EventSplitter()
        self.follow_up = FollowUpRequest("/v1/completions", terms.continuation(prompt, transcript.thinking, made, room))
        if terms.chat or not terms.shows_marker:
            return passed
        return write_chunk({**self._frame, "choices": [text_choice(END_TEXT)]})

    def _end_here(self) -> bytes:
        """End the client's stream in the node's place, and close its request."""
        self._state = EnforcementState.ENDED
        self.ended = True
        self.follow_up = STOP
        choice = chat_choice({}, "length") if self._terms.chat else text_choice("", "length")
        finish = write_chunk({**self._frame, "choices": [choice]})
        return finish + self._write_usage(self._transcript.made, {}) + _END

    # The continuation

    def _go_on(self, choice: dict[str, Any]) -> bytes:
        text, finish, ids = choice.get("text") or "", choice.get("finish_reason"), choice.get("token_ids")
        if self._passed_on:
            ids = self._passed_on.new(ids_of(choice) or [])
        if not (text or finish or (ids and self._terms.keep_ids)):
            return b""
        if self._terms.chat:
            made = chat_choice({"content": text} if text else {}, finish, choice.get("stop_reason"))
        else:
            made = text_choice(text, finish, choice.get("stop_reason"))
        if self._terms.keep_ids:
            made["token_ids"] = ids
        return write_chunk({**self._frame, "choices": [made]})

    # Usage

    def _take_usage(self, chunk: dict[str, Any]) -> bytes:
        usage = chunk.get("usage")
        if not isinstance(usage, dict):
            return write_chunk(chunk)
        known = {*self._frame, "choices", "usage"}
        extra = {key: value for key, value in chunk.items() if key not in known}
        if self._state is EnforcementState.CONTINUED:
            used = from_openai(usage)
            return self._write_usage(self._transcript.made + (used.output if used is not None else 0), extra)
        given = usage.get("completion_tokens_details")
        details = given if isinstance(given, dict) else {}
        if type(details.get("reasoning_tokens")) is not int:
            usage["completion_tokens_details"] = {**details, "reasoning_tokens": self._transcript.reasoning}
        self.usage = from_openai(usage)
        return write_chunk(chunk) if self._terms.pass_usage else b""

    def _write_usage(self, output: int, extra: dict[str, Any]) -> bytes:
        usage = self._transcript.usage(output)
        self.usage = from_openai(usage)
        chunk = {**self._frame, "choices": [], "usage": usage, **extra}
        return write_chunk(chunk) if self._terms.pass_usage else b""
