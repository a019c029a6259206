"""The filter nearest to the node: it keeps what is needed to go on with the answer on another node.

Theory. The node sends the token ids of each event. They are kept, and the event goes on without them, as the node would
have sent it. When the answer breaks off, prompt and kept ids are the whole state of the model: `/v1/completions`
continues from them. What comes is written as the chunks of the first stream, so that the filters behind this one
(`inner`: budgets, hiding, translation, assembly) see one stream that never broke.

    state        event                               next         does
    FOLLOWING    an event with text and ids          FOLLOWING    keeps the ids, passes the event on without them
    FOLLOWING    one with ids whose text is to come  FOLLOWING    holds the ids; the event is only there for them
    FOLLOWING    one with text and no ids            PASSING      from now on the answer cannot be resumed
    FOLLOWING    a 5xx error, or `abort`             FOLLOWING    raises it: the answer has broken off
    PASSING      anything                            PASSING      passes it on
    any          `inner` asks for a follow-up        FOLLOWING    that is the request whose answer is followed: no ids
    any          `resume`                            TOKENIZING   drops held ids; asks /tokenize for the prompt's ids
    any          `resume`, these ids are known       CONTINUED    asks /v1/completions
    TOKENIZING   the ids that the first node had     CONTINUED    asks /v1/completions
    TOKENIZING   the same, nothing is left to come   ENDED        writes the end
    TOKENIZING   other ids                           -            raises `StreamLost`
    CONTINUED    a chunk                             CONTINUED    keeps its ids, passes it on as a chunk of the first

An event of which only a part came is forgotten: its tokens are made again.
"""

import zlib
from enum import Enum
from typing import Any

from gateway.core.body_edits import insert_fields
from gateway.core.budgets.chunks import head_of, ids_json, last_of, take_prompt_ids
from gateway.core.dialects.answers import find_error_status
from gateway.core.dialects.stream_filter import ABORTED, CARRIAGE_RETURN, FollowUpRequest, StreamFilter, gave_up
from gateway.core.errors import AnswerTooLarge, StreamLost, UpstreamCut
from gateway.core.fleet.capabilities import Capabilities
from gateway.core.http.sse import DONE, MAX_HELD, EventSplitter, event_data, split_events
from gateway.core.json_text import load_object, parse_object
from gateway.core.resume.answer_tokens import AnswerTokens
from gateway.core.resume.continuation_reader import ContinuationReader, StreamForm, failure
from gateway.core.resume.followed_request import GENERATING, FollowedRequest
from gateway.core.resume.raw_answer import RawAnswer

_IDS = b',"token_ids":['
_NO_IDS = b',"token_ids":null}]}\n\n'
_NO_IDS_CHUNK = _NO_IDS + b"\r\n"
_SAVED = len(_NO_IDS) - len(_IDS) + 1
"""An event without ids is longer by this than the offset of their bracket."""
_LONG = 2048
_SIZES = tuple(b"%x\r\n" % size for size in range(_LONG))
"""The first lines of chunks."""
_CLOSE = b"]}]}\n\n"
_CHAT_TEXT = b'"},"logprobs":null,"finish_reason":null'
_QUOTE = b'"'[0]
_ASKED = b'"return_token_ids":true'
_COMPLETIONS_TEXT = b'","logprobs":null,"finish_reason":null,"stop_reason":null,"prompt_token_ids":null'


class CheckpointState(Enum):
    FOLLOWING = "following"
    PASSING = "passing"
    TOKENIZING = "tokenizing"
    CONTINUED = "continued"
    ENDED = "ended"


class Checkpoint(StreamFilter):
    """The node's stream in, the client's out. `tokens`: what is kept of the answer."""

    __slots__ = (
        "_answer",
        "_behind",
        "_called",
        "_capabilities",
        "_clear",
        "_finished",
        "_first",
        "_followed",
        "_grammar",
        "_inner",
        "_keeps_ids",
        "_last",
        "_prompt_check",
        "_reader",
        "_shown",
        "_state",
        "_tail",
        "_text",
        "_unfed",
        "prompt_tokens",
        "tokens",
    )

    def __init__(
        self, inner: StreamFilter, followed: FollowedRequest, capabilities: Capabilities, keeps_ids: bool, grammar: bool
    ) -> None:
        """`capabilities`: of the node that is asked first. `keeps_ids`: `inner` is to see them. `grammar`: one bounds
        the answer."""
        super().__init__()
        self._inner = inner
        self._capabilities = capabilities
        self._keeps_ids = keeps_ids
        self._grammar = grammar
        self._answer = bytearray()
        """The tokenizer's answer so far."""
        self._unfed: list[bytes] = []
        """Events that came before one that broke the answer off in the same piece."""
        self._follow(followed)

    def _follow(self, followed: FollowedRequest) -> None:
        """Begin to follow the answer to this request."""
        self._followed = followed
        self._state = CheckpointState.FOLLOWING if followed.generates else CheckpointState.PASSING
        self.tokens = AnswerTokens()
        self._shown = self.tokens.shown
        self._text = _CHAT_TEXT if followed.chat else _COMPLETIONS_TEXT
        self._tail = self._text + _IDS
        """What stands between an event's text and its ids, the ids' bracket included."""
        self._behind = len(self._tail) - 1
        self._clear = True
        """Whether an event may overtake what was fed before: nothing is held back."""
        self._first = b""
        self._last = b""
        """The first event, and the last with text: the form of all others."""
        self._called = self._finished = False
        self._prompt_check = 0
        self.prompt_tokens = 0
        self._reader: ContinuationReader | None = None
        self._splitter = EventSplitter()

    @property
    def begun(self) -> bool:
        """Whether the node has made anything of the answer that would be lost."""
        return bool(self.tokens.shown) or self._reader is not None

    @property
    def generates(self) -> bool:
        """Whether what is asked of a node now makes tokens; `/tokenize` makes none."""
        return self._followed.generates and self._state is not CheckpointState.TOKENIZING

    @property
    def recomputed(self) -> int | None:
        """Prompt tokens that the last continuation's node computed again; None where that is not known."""
        return None if self._reader is None else self._reader.recomputed

    # The node's stream

    def pass_chunk(self, chunk: bytes, event: bytes) -> bytes | None:
        # Nearly every event: one line, with text and the ids that it was made of, and nothing else.
        at = event.rfind(b"[")
        end = at - self._behind
        if (
            end < 0
            or not self._clear
            or not event.endswith(self._tail, 0, at + 1)
            or event[end - 1] == _QUOTE  # it closes an empty text, or is escaped
            or event.find(b"\n") != len(event) - 2
            or not event.endswith(_CLOSE)
            or CARRIAGE_RETURN in event
        ):
            passes = self._clear and self._state is CheckpointState.PASSING and self._inner.passes(event)
            return chunk if passes else None
        if not self._inner.passes_text(event, end):
            return None
        shown = self._shown
        shown += event[at:-6]  # with its bracket, in place
        self._last = event
        if self._keeps_ids:
            return chunk
        size = at + _SAVED
        return b"".join((_SIZES[size] if size < _LONG else b"%x\r\n" % size, event[: at - 13], _NO_IDS_CHUNK))

    def feed(self, data: bytes) -> bytes:
        if not self._followed.generates:
            return self._pass(data)
        if self._state is CheckpointState.TOKENIZING:
            self._answer += data
            if len(self._answer) > MAX_HELD:
                raise AnswerTooLarge(f"The node's tokenizer answered with more than {MAX_HELD} bytes.")
            return b""
        unfed, self._unfed = self._unfed, []
        for event in split_events(self._splitter.feed(data)):
            try:
                unfed.append(self._take(event))
            except Exception:
                self._unfed = unfed
                raise
        self._clear = self._reader is None and not (self.tokens.held or self._splitter.rest)
        return self._pass(b"".join(unfed))

    def flush(self) -> bytes:
        if self._state is CheckpointState.TOKENIZING:
            return self._take_prompt()
        if self._followed.generates and not (self.ended or self.failed):
            raise UpstreamCut("The node ended its stream before the answer was complete; retry.")
        held = self._inner.flush()
        self._take_over()
        return held

    def _pass(self, events: bytes) -> bytes:
        passed = self._inner.feed(events) if events else b""
        self._take_over()
        return passed

    def _take_over(self) -> None:
        """Take over the state of `inner`; a follow-up that it asks for is followed from now on."""
        inner = self._inner
        self.ended, self.failed, self.usage, self.wasted = inner.ended, inner.failed, inner.usage, inner.wasted
        self.follow_up, inner.follow_up = inner.follow_up, None
        if self.follow_up is not None and self.follow_up.path:
            self.follow_up = self._follow_next(self.follow_up)

    def _follow_next(self, follow_up: FollowUpRequest) -> FollowUpRequest:
        """Follow the answer to what `inner` asks for; returns the request with its ids asked for, too."""
        path, body = follow_up
        if path in GENERATING:
            self._keeps_ids = _ASKED in body
            body = body if self._keeps_ids else insert_fields(body, {"return_token_ids": True})
        self._follow(FollowedRequest(path, body))
        return FollowUpRequest(path, body)

    def _take(self, event: bytes) -> bytes:
        """The event for `inner`."""
        if self._reader is not None:
            return self._reader.take(event)
        at = event.rfind(_IDS)
        if (
            at >= 0
            and event.endswith(self._text, 0, at)
            and event[at - len(self._text) - 1] != _QUOTE
            and event.endswith(_CLOSE)
        ):
            self.tokens.show(event[at + 14 : -6])
            self._last = event
            return event if self._keeps_ids else event[:at] + _NO_IDS
        return self._take_other(event)

    def _take_other(self, event: bytes) -> bytes:
        data = event_data(event)
        if not data or data == DONE:
            return event
        whole, prompt = take_prompt_ids(event)
        chunk = load_object(event_data(whole) if prompt is not None else data)
        if chunk is None:
            return event
        following = self._state is CheckpointState.FOLLOWING
        if following and chunk.get("error") and self._first and 500 <= find_error_status(data) <= 504:
            raise failure(data)
        if ABORTED in data:
            raise gave_up()
        self._first = self._first or whole
        if prompt is not None and not self.prompt_tokens:
            self.prompt_tokens = prompt.count(b",") + 1 if prompt else 0
            self._prompt_check = zlib.crc32(prompt)
        choices = chunk.get("choices")
        if not following or not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
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
            self._state = CheckpointState.PASSING
            return event
        self._called = self._called or called
        self._finished = self._finished or finished
        ends = last_of(ids, self._capabilities.think_end) >= 0
        if text:
            self._last = event
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
        at = whole.rfind(b'"token_ids":[')
        if at < 0:
            return whole
        return whole[: at + 12] + b"null" + whole[whole.find(b"]", at) + 1 :]

    # After a break

    def resume(self, capabilities: Capabilities) -> FollowUpRequest:
        """The request that goes on with the answer on another node, with these capabilities; call it once it is certain
        which one. Raises `StreamLost` where the answer cannot go on."""
        if not self._followed.generates:  # nothing has come of it that is not asked for again
            self._splitter = EventSplitter()
            return FollowUpRequest(self._followed.path, self._followed.body)
        self.check()
        self._clear = False
        self._splitter = EventSplitter()
        self._capabilities = capabilities
        self.tokens.drop_held()
        self._answer.clear()
        known = None if self._finished else self._followed.prompt_ids()
        if known is not None:
            return self._continue(known, None)
        self._state = CheckpointState.TOKENIZING
        return self._followed.tokenize()

    def check(self) -> None:
        """Raises `StreamLost` where the answer cannot go on: it is then to be ended."""
        why = self._obstacle()
        if why is not None and not self._begin_answer_anew():
            raise self.lost(why)

    @property
    def resumable(self) -> bool:
        """Whether the answer could go on if it broke off now, from where it is."""
        return self._obstacle() is None

    def _obstacle(self) -> str | None:
        """Why the answer cannot go on, if it cannot."""
        if not self._followed.generates or self._finished:
            return None
        if self._state is CheckpointState.PASSING:
            return "its node sends no token ids"
        if self._called:
            return "a tool call has begun"
        if self._grammar and self._answering:
            return "a grammar bounds the answer, which has begun"
        return None

    def _begin_answer_anew(self) -> bool:
        """Go back to the end of thinking; False where that is not known, or the client has something of the answer."""
        end = self._capabilities.think_end
        if self._state is CheckpointState.PASSING or not end or not self._inner.forget_answer():
            return False
        self.tokens.drop_held()
        if self.tokens.cut_behind(end) < 0:
            self._shown.clear()
        self._called = self._finished = False
        self._last = b""
        self._reader = None
        return True

    def lost(self, why: str, repeatable: bool = True) -> StreamLost:
        """The error for an answer that ends here."""
        count = self.tokens.count
        advice = "Repeating the request is safe." if repeatable else "Do not repeat it unchanged."
        message = f"The node failed after {count} tokens of this answer, which cannot go on elsewhere: {why}. {advice}"
        return StreamLost(message, tokens=count, repeatable=repeatable)

    @property
    def _answering(self) -> bool:
        """Whether something of the answer itself has come."""
        if self._reader is not None:
            return self._reader.answering
        return bool(self._last) and (not self._followed.chat or b'"content":"' in self._last)

    def _take_prompt(self) -> bytes:
        """The tokenizer's answer is complete."""
        answer = parse_object(bytes(self._answer))
        self._answer.clear()
        prompt = ids_json(answer.get("tokens"))
        if self.prompt_tokens and zlib.crc32(prompt) != self._prompt_check and self._followed.prompt_ids() is None:
            raise self.lost("the other node renders its prompt in another way")
        window = answer.get("max_model_len")
        known = self._followed.prompt_ids()
        follow_up = self._continue(prompt if known is None else known, window if type(window) is int else None)
        if self._state is CheckpointState.ENDED:
            assert self._reader is not None
            unfed, self._unfed = self._unfed, []
            return self._pass(b"".join((*unfed, self._reader.end(None if self._finished else "length"))))
        self.follow_up = follow_up
        return b""

    def _continue(self, prompt: bytes, window: int | None) -> FollowUpRequest:
        tokens = self.tokens
        prompt_tokens, made = prompt.count(b",") + 1 if prompt else 0, tokens.count
        ids = tokens.ids()
        self.prompt_tokens = self.prompt_tokens or prompt_tokens
        reader = self._reader = self._reader or self._new_reader(prompt, ids)
        reader.begin(prompt_tokens)
        self._finished = self._finished or reader.finished
        most = self._followed.max_tokens()
        window = window if window is not None else self._capabilities.window
        if most is None:
            most = (window or 0) - prompt_tokens
        room = most - made if window is None else min(most - made, window - prompt_tokens - made)
        if self._finished or room < 1:
            self._state = CheckpointState.ENDED
        else:
            self._state = CheckpointState.CONTINUED
        return self._followed.continuation(prompt, ids, made, max(1, room), reader.thinking, self._capabilities)

    def _new_reader(self, prompt: bytes, ids: bytes) -> ContinuationReader:
        chat, known = self._followed.chat, self._capabilities
        reasoning = next((name for name in (b"reasoning", b"reasoning_content") if b'"%b":"' % name in self._last), b"")
        splits = known.splits_reasoning is not False or bool(reasoning)
        every = b",".join((prompt, ids))
        thinking = bool(reasoning)
        if known.think_end:
            thinking = last_of(every, known.think_start) > last_of(every, known.think_end)
        options = self._followed.parsed.get("stream_options") or {}
        form = StreamForm(
            head_of(self._first),
            chat,
            reasoning.decode() or "reasoning",
            self._keeps_ids,
            bool(options.get("continuous_usage_stats")),
            known.think_start,
            known.think_end,
        )
        raw = RawAnswer(self._followed.parsed, self._first.decode("latin-1"), self._answering)
        return ContinuationReader(form, self.tokens, raw, splits, thinking, self._answering)
