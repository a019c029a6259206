"""Reads a node's own stream: keeps the token ids of its events, and gives the events without them.

Text of one answer is in one kind of event at a time, which differs from the next in its text and ids alone. Such events
are known by their bytes at a few places; all others are parsed.
"""

import zlib
from typing import Any, Final

from gateway.core.body_edits import insert_fields
from gateway.core.budgets.chunks import ids_json, last_of, take_prompt_ids
from gateway.core.dialects.stream_filter import ABORTED, CARRIAGE_RETURN, FollowUpRequest, StreamFilter, gave_up
from gateway.core.errors import NodeFailed
from gateway.core.fleet.capabilities import Capabilities
from gateway.core.http.sse import DONE, EventSplitter, event_data
from gateway.core.json_text import load_json, load_object, parse_object
from gateway.core.resume.answer_tokens import AnswerTokens
from gateway.core.resume.continuation_reader import failure
from gateway.core.resume.followed_request import GENERATING, FollowedRequest
from gateway.core.resume.shown_text import BETWEEN_FIELDS, ShownText, last_text
from gateway.core.thinking.loop_detector import NEVER

_IDS = b',"token_ids":['
_ANY_IDS = b'"token_ids":['
_NO_IDS: Final = b',"token_ids":null}]}\n\n'
_CLOSE: Final = b"]}]}\n\n"
_CHAT_TAIL = b'"},"logprobs":null,"finish_reason":null' + _IDS
_COMPLETIONS_TAIL = b'","logprobs":null,"finish_reason":null,"stop_reason":null,"prompt_token_ids":null' + _IDS
"""What stands between an event's text and its ids, their bracket included: one object for all streams, as what lies in
memory by itself costs each event more than its comparison."""
_ASKED = b'"return_token_ids":true'


class FollowedStream(StreamFilter):
    """What has come of an answer, and the filter `inner` that it goes to. `tokens`: its ids. `prompt_tokens`: 0 where
    the node did not tell them."""

    __slots__ = (
        "_behind",
        "_called",
        "_capabilities",
        "_clear",
        "_counted",
        "_earlier",
        "_finished",
        "_first",
        "_followed",
        "_inner",
        "_keeps_ids",
        "_last",
        "_next_look",
        "_opened",
        "_over",
        "_passes_texts",
        "_passing",
        "_prompt_check",
        "_shown",
        "_tail",
        "_usage_told",
        "prompt_tokens",
        "tokens",
    )

    def __init__(
        self, inner: StreamFilter, followed: FollowedRequest, capabilities: Capabilities, keeps_ids: bool
    ) -> None:
        """`capabilities`: of the node that is asked first. `keeps_ids`: `inner` is to see them."""
        super().__init__()
        self._capabilities = capabilities
        self._inner = inner
        self._keeps_ids = keeps_ids
        self._passes_texts = False
        """Whether `inner` passes every event of text as long as it is fed nothing."""
        self._earlier = 0
        """Tokens of the requests before the one that is followed, those included that no client gets."""
        self._follow(followed)

    def _follow(self, followed: FollowedRequest) -> None:
        """Begin to follow the answer to this request."""
        tokens = AnswerTokens()
        # What is read with each event comes first (see docs/architecture.md, "What is compiled").
        self._clear = True
        """Whether an event may overtake what was fed before: nothing is held back."""
        self._counted = ShownText()
        self._shown = tokens.shown
        self._tail = _CHAT_TAIL if followed.chat else _COMPLETIONS_TAIL
        self._behind = len(self._tail) - 1
        self._next_look = NEVER
        """The length of the ids from which `_look` is called with each event."""
        self._passing = not followed.generates
        """Whether the answer has no ids, or not all of them."""
        self.tokens = tokens
        self._followed = followed
        self._first = b""
        self._last = b""
        """The first event, and the last with text that was parsed: the form of all others."""
        self._called = self._finished = self._usage_told = self._over = False
        self._prompt_check = 0
        self._opened = False
        """Whether the prompt ends inside of thinking, by its markers."""
        self.prompt_tokens = 0
        self._splitter = EventSplitter()

    @property
    def next_number(self) -> int:
        return self._inner.next_number

    def pass_event(self, event: bytes) -> bytes | None:
        # Nearly every event: one line, with text and the ids that it was made of, and nothing else.
        at = event.rfind(b"[")
        end = at - self._behind
        counted = self._counted
        begins = counted.begins
        if (
            end <= begins
            or not self._clear
            or event[counted.spot] != counted.letter
            or event[end : at + 1] != self._tail
            or event.find(b"\n") != len(event) - 2
            or event[-6:] != _CLOSE
            or CARRIAGE_RETURN in event
        ):
            passes = self._clear and self._passing and event.find(_ANY_IDS) < 0
            return event if passes and self._inner.passes(event) else None
        text = event[begins:end]
        if text.find(BETWEEN_FIELDS) >= 0:
            return None
        shown = self._shown
        if len(shown) >= self._next_look and self._look():
            return None
        if not self._passes_texts and not self._inner.passes_text(event, end):
            return None
        shown += event[at:-6]  # with its bracket, in place
        counted.size += end - begins
        counted.last = text
        return event if self._keeps_ids else event[: at - 13] + _NO_IDS

    def _look(self) -> bool:
        """Look at the ids that have come; whether the next event is to be fed, and not passed."""
        return False

    def _read(self, event: bytes) -> bytes:
        """The event for `inner`."""
        at = event.rfind(b"[")
        end = at - self._behind
        counted = self._counted
        begins = counted.begins
        if (
            end > begins
            and event[counted.spot] == counted.letter
            and event[end : at + 1] == self._tail
            and event[-6:] == _CLOSE
            and event.find(BETWEEN_FIELDS, begins, end) < 0
        ):
            self.tokens.show(event[at + 1 : -6])
            counted.size += end - begins
            counted.last = event[begins:end]
            return event if self._keeps_ids else event[: at - 13] + _NO_IDS
        return self._take_other(event)

    def _take_other(self, event: bytes) -> bytes:
        data = event_data(event)
        self._over = self._over or data == DONE
        if not data or self._over:
            return event
        whole, prompt = take_prompt_ids(event)
        chunk = load_object(event_data(whole) if prompt is not None else data)
        if chunk is None:
            return event
        following = not self._passing
        if following and chunk.get("error") and self._first and isinstance(error := failure(data), NodeFailed):
            raise error
        if ABORTED in data:
            raise gave_up()
        # A comment, or the rest of a line's end, may stand before it.
        self._first = self._first or (whole if whole.startswith(b"data: {") else b"data: " + event_data(whole))
        if prompt is not None and not self.prompt_tokens:
            self.prompt_tokens = prompt.count(b",") + 1 if prompt else 0
            self._prompt_check = zlib.crc32(prompt)
            known = self._capabilities
            self._opened = last_of(prompt, known.think_start) > last_of(prompt, known.think_end)
        choices = chunk.get("choices")
        if not following or not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
            self._usage_told = self._usage_told or (choices == [] and isinstance(chunk.get("usage"), dict))
            return self._without_ids(event, whole, chunk, prompt)
        return self._take_choice(event, whole, chunk, choices[0], prompt)

    def _take_choice(
        self, event: bytes, whole: bytes, chunk: dict[str, Any], choice: dict[str, Any], prompt: bytes | None
    ) -> bytes:
        delta = choice.get("delta") if self._followed.chat else choice
        said = delta if isinstance(delta, dict) else {}
        text = any(said.get(name) for name in ("reasoning", "reasoning_content", "content", "text"))
        called, finished = bool(said.get("tool_calls")), choice.get("finish_reason") is not None
        ids = ids_json(choice.get("token_ids"))
        if (text or called) and not ids:
            self._passing = True
            return event
        self._called = self._called or called
        self._finished = self._finished or finished
        ends = last_of(ids, self._capabilities.think_end) >= 0
        ends = ends and (self._followed.chat or not self.tokens.held)  # raw text may hide half a character before it
        if text:
            self._last = event
            self._counted.add(event, said, self._followed.chat)
        if text or called or finished or ends:
            self.tokens.show(ids)
        elif ids:
            self.tokens.hold(ids)
        if ids and self._followed.chat and not (said or finished or self._keeps_ids):
            return b""  # without ids asked for there would be no such event
        return self._without_ids(event, whole, chunk, prompt)

    def _without_ids(self, event: bytes, whole: bytes, chunk: dict[str, Any], prompt: bytes | None) -> bytes:
        """The event as it would be if no ids had been asked for."""
        if self._keeps_ids:
            return event
        if prompt is not None:
            whole = whole.replace(b'"prompt_token_ids":[]', b'"prompt_token_ids":null', 1)
        at = whole.rfind(_ANY_IDS)
        if at < 0:
            return whole
        return whole[: at + 12] + b"null" + whole[whole.find(b"]", at) + 1 :]

    @property
    def count(self) -> int:
        """The tokens of the whole answer, those of the requests before the one that is followed included."""
        return self._earlier - self.wasted + self.tokens.count

    @property
    def thought(self) -> int | None:
        return self._inner.thought

    @property
    def thinks(self) -> bool | None:
        if self._passing or not self._counted.size:
            return self._inner.thinks
        return self._counted.thinks or (not self._splits and self._thinks_raw)

    @property
    def _thinks_raw(self) -> bool:
        """Whether text that its node does not split is thinking, by the markers' ids."""
        known = self._capabilities
        if not known.think_end or self.tokens.place_of(known.think_end) is not None:
            return False
        return self._opened or (bool(known.think_start) and self.tokens.place_of(known.think_start) == 0)

    @property
    def thought_tokens(self) -> int | None:
        """The tokens of thinking so far, by the answer's ids; None where these do not tell."""
        if self._passing or not self._counted.size:
            return self._inner.thought
        if self.thinks:
            return self.tokens.count
        return self.tokens.place_of(self._capabilities.think_end)

    def end_thinking(self) -> bool:
        return self._inner.end_thinking()

    def _pass(self, events: bytes) -> bytes:
        passed = self._inner.feed(events) if events else b""
        self._take_over()
        return passed

    def _take_over(self) -> None:
        """Take over the state of `inner`; a follow-up that it asks for is followed from now on."""
        inner = self._inner
        self.ended, self.failed, self.usage, self.wasted = inner.ended, inner.failed, inner.usage, inner.wasted
        self.follow_up, inner.follow_up = inner.follow_up, None
        self._passes_texts = inner.passes_texts
        if self.follow_up is not None and self.follow_up.path:
            self.follow_up = self._follow_next(self.follow_up)

    def _follow_next(self, follow_up: FollowUpRequest) -> FollowUpRequest:
        """Follow the answer to what `inner` asks for; returns the request with its ids asked for, too."""
        path, body = follow_up
        if path in GENERATING:
            self._keeps_ids = _ASKED in body
            body = body if self._keeps_ids else insert_fields(body, {"return_token_ids": True})
        self._earlier += self.tokens.count
        self._follow(FollowedRequest(path, body))
        return FollowUpRequest(path, body)

    @property
    def _reasoning(self) -> str:
        """The field of reasoning in the last event; empty where it had none."""
        names = ("reasoning", "reasoning_content")
        return next((name for name in names if b'"%b":"' % name.encode() in self._last), "")

    @property
    def _last_text(self) -> str:
        """The last text that the node has sent."""
        if self._counted.last:
            text = load_json(b'"%b"' % self._counted.last)
            return text if isinstance(text, str) else ""
        choice = (parse_object(event_data(self._last)).get("choices") or [{}])[0]
        return last_text(choice.get("delta") or {} if self._followed.chat else choice)

    @property
    def _splits(self) -> bool:
        """Whether the node splits reasoning from content."""
        return self._followed.chat and (self._capabilities.splits_reasoning is not False or bool(self._reasoning))

    @property
    def _marked(self) -> bool:
        """Whether the node's text has the markers of thinking in it, be it for its own parser."""
        if self._splits or self._capabilities.marker_shown is True:
            return True
        return self._followed.parsed.get("skip_special_tokens") is False
