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
    any          `resume`                            TOKENIZING   asks /tokenize for the prompt's ids
    TOKENIZING   other ids than the first node had   -            raises `StreamLost`
    any          the prompt's ids are known          DETOKENIZING asks /detokenize for the text of the kept ids
    any          the same, nothing was held back     CONTINUED    drops held ids; asks /v1/completions
    any          the same, nothing is left to come   ENDED        writes the end
    DETOKENIZING text that ends in half a character  DETOKENIZING asks again, without the last id
    DETOKENIZING text that the client has no part of -            raises `StreamLost`
    DETOKENIZING other text                          CONTINUED    writes what was held back; asks /v1/completions
    DETOKENIZING the same, nothing is left to come   ENDED        writes what was held back, and the end
    CONTINUED    a chunk                             CONTINUED    keeps its ids, passes it on as a chunk of the first
    CONTINUED    one that completes a stop string    CONTINUED    writes the end; `follow_up` closes the request

A node holds text back (see `shown_text`): only the text of its tokens tells what of it the client has. Where a node
does not tell that text, the next one is asked only if text is held for certain reasons: stop strings, or several ids in
the last event.

An event of which only a part came is forgotten: its tokens are made again.
"""

import re
import zlib
from enum import Enum
from typing import Any

from gateway.core.body_edits import insert_fields
from gateway.core.budgets.chunks import head_of, ids_json, last_of, take_prompt_ids
from gateway.core.dialects.answers import find_error_status
from gateway.core.dialects.stream_filter import ABORTED, CARRIAGE_RETURN, STOP, FollowUpRequest, StreamFilter, gave_up
from gateway.core.errors import AnswerTooLarge, StreamLost, UpstreamCut
from gateway.core.fleet.capabilities import Capabilities
from gateway.core.http.sse import DONE, MAX_HELD, EventSplitter, event_data, split_events
from gateway.core.json_text import load_object, parse_object
from gateway.core.resume.answer_tokens import AnswerTokens, ends_with, find
from gateway.core.resume.continuation_reader import ContinuationReader, StreamForm, failure
from gateway.core.resume.followed_request import GENERATING, FollowedRequest
from gateway.core.resume.raw_answer import RawAnswer
from gateway.core.resume.shown_text import ShownText, UnshownText, find_unshown, last_text

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
_HALF = "\ufffd"
"""What a tokenizer writes for half a character."""
_HIDES_HALF = re.compile(r"\ufffd(?:<[^<>\s]{1,40}>)+\Z")
"""Half a character with special tokens behind it: the end of a prompt may not be half a character, not even to a node
that leaves special tokens out. It would send its prompt as text."""
_MAX_DROPPED = 16
"""The most ids of half characters at the end of an answer: more than three are of a model that writes no UTF-8."""
_ASKED = b'"return_token_ids":true'
_COMPLETIONS_TEXT = b'","logprobs":null,"finish_reason":null,"stop_reason":null,"prompt_token_ids":null'


class CheckpointState(Enum):
    FOLLOWING = "following"
    PASSING = "passing"
    TOKENIZING = "tokenizing"
    DETOKENIZING = "detokenizing"
    CONTINUED = "continued"
    ENDED = "ended"


_ASKING = (CheckpointState.TOKENIZING, CheckpointState.DETOKENIZING)


class Checkpoint(StreamFilter):
    """The node's stream in, the client's out. `tokens`: what is kept of the answer."""

    __slots__ = (
        "_answer",
        "_behind",
        "_called",
        "_capabilities",
        "_clear",
        "_counted",
        "_dropped",
        "_finished",
        "_first",
        "_followed",
        "_grammar",
        "_inner",
        "_keeps_ids",
        "_last",
        "_over",
        "_prompt",
        "_prompt_check",
        "_reader",
        "_settled",
        "_shown",
        "_shows_special",
        "_state",
        "_tail",
        "_text",
        "_unfed",
        "_usage_told",
        "_window",
        "prelude",
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
        self._prompt = b""
        self._window: int | None = None
        """What the tokenizer said: the prompt's ids, and the node's window."""
        self._shows_special = False
        """Whether the continuation is to show special tokens, as its prompt hides half a character otherwise."""
        self._dropped = 0
        """Ids at the end that are not kept, those of half a character; -1 where no text is asked for."""
        self._unfed: list[bytes] = []
        """Events that came before one that broke the answer off in the same piece."""
        self.prelude: list[bytes] = []
        """Events for the client that wait for the first that says something of the answer."""
        self._follow(followed)

    def _follow(self, followed: FollowedRequest) -> None:
        """Begin to follow the answer to this request."""
        self._followed = followed
        self._state = CheckpointState.FOLLOWING if followed.generates else CheckpointState.PASSING
        self.tokens = AnswerTokens()
        self._shown = self.tokens.shown
        self._counted = ShownText()
        self._text = _CHAT_TEXT if followed.chat else _COMPLETIONS_TEXT
        self._tail = self._text + _IDS
        """What stands between an event's text and its ids, the ids' bracket included."""
        self._behind = len(self._tail) - 1
        self._clear = True
        """Whether an event may overtake what was fed before: nothing is held back."""
        self._first = b""
        self._last = b""
        """The first event, and the last with text: the form of all others."""
        self._called = self._finished = self._usage_told = self._over = False
        self._prompt_check = 0
        self.prompt_tokens = 0
        self._reader: ContinuationReader | None = None
        self._settled = False
        """Whether `inner` has all text of the kept ids, where no reader knows it."""
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
        counted = self._counted
        size = end - counted.begins
        if (
            size <= 0
            or not self._clear
            or event[counted.spot] != counted.letter
            or not event.endswith(self._tail, 0, at + 1)
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
        counted.size += size
        self._last = event
        if self._keeps_ids:
            return chunk
        size = at + _SAVED
        return b"".join((_SIZES[size] if size < _LONG else b"%x\r\n" % size, event[: at - 13], _NO_IDS_CHUNK))

    def feed(self, data: bytes) -> bytes:
        if not self._followed.generates:
            return self._pass(data)
        if self._state in _ASKING:
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
        passed = self._pass(b"".join(unfed))
        if self._reader is not None and self._reader.stopped:
            self.follow_up = STOP
        return passed

    def flush(self) -> bytes:
        if self._state is CheckpointState.TOKENIZING:
            return self._take_prompt()
        if self._state is CheckpointState.DETOKENIZING:
            return self._take_text()
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
        counted = self._counted
        size = at - len(self._text) - counted.begins
        if (
            size > 0
            and event[counted.spot] == counted.letter
            and event.endswith(self._text, 0, at)
            and event.endswith(_CLOSE)
        ):
            self.tokens.show(event[at + 14 : -6])
            counted.size += size
            self._last = event
            return event if self._keeps_ids else event[:at] + _NO_IDS
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
            self._state = CheckpointState.PASSING
            return event
        self._called = self._called or called
        self._finished = self._finished or finished
        ends = self._followed.chat and last_of(ids, self._capabilities.think_end) >= 0
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
        if self._grammar and self._reader is None and not self._finished:
            self._drop_grammar()
        refused = self._state is CheckpointState.DETOKENIZING
        self._clear = False
        self._splitter = EventSplitter()
        self._capabilities = capabilities
        self._answer.clear()
        self._finished = self._finished or (self._reader is not None and self._reader.finished)
        self._prompt, self._window, self._dropped, self._shows_special = b"", None, 0, False
        if self._grammar and not (self._finished or self._answering):
            self._drop_answer()
        if not self._holds_back(refused):
            self.tokens.drop_held()
            self._dropped = -1
        known = None if self._finished else self._followed.prompt_ids()
        if known is not None:
            self._prompt = known
            return self._go_on()
        self._state = CheckpointState.TOKENIZING
        return self._followed.tokenize()

    def _drop_grammar(self) -> None:
        """Do without the tokens of an answer that the client has nothing of: its grammar begins with the next one."""
        self.tokens.drop_held()
        if self._last:
            self.tokens.cut_behind(self._capabilities.think_end)
        else:
            self._shown.clear()

    def _holds_back(self, refused: bool) -> bool:
        """Whether the node may have held text back of the tokens that it sent. `refused`: another did not tell."""
        if self._finished or not self.tokens.shown:
            return False
        if self._reader is not None:  # a stream of raw text, without stop strings
            return not self.tokens.lone
        if self._settled:
            return False
        return not refused or self._followed.stops or not self.tokens.lone

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
        if self._state is CheckpointState.PASSING or not self._capabilities.think_end:
            return False
        if (self._counted.thinks and not self._thought) or not self._inner.forget_answer():
            return False
        self._drop_answer()
        self._called = self._finished = self._usage_told = False
        self._last = b""
        return True

    @property
    def _thought(self) -> bool:
        """Whether the end of thinking is one of the answer's tokens."""
        return find(self.tokens.behind(0, 0), self._capabilities.think_end) >= 0

    def _drop_answer(self) -> None:
        """Do without the tokens behind the end of thinking, of which the client has nothing."""
        thought = self._thought
        if not thought and (self._counted.thinks or (self._reader is not None and self._reader.thinking)):
            return
        self.tokens.keep(0)
        if thought:
            self.tokens.cut_behind(self._capabilities.think_end)
        else:
            self._shown.clear()
        if self._reader is not None and thought:
            self._unfed.append(self._reader.end_thinking())
            self._settled = True
        self._reader = None
        self._counted.forget_answer(not thought)

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
        if self._prompt_check and zlib.crc32(prompt) != self._prompt_check and self._followed.prompt_ids() is None:
            raise self.lost("the other node renders its prompt in another way")
        known = self._followed.prompt_ids()
        self._prompt = prompt if known is None else known
        window = answer.get("max_model_len")
        self._window = window if type(window) is int else None
        return self._send(self._go_on())

    def _send(self, follow_up: FollowUpRequest) -> bytes:
        """Ask for `follow_up`, unless the answer has ended; returns the end."""
        if self._state is not CheckpointState.ENDED:
            self.follow_up = follow_up
            return b""
        assert self._reader is not None
        unfed, self._unfed = self._unfed, []
        passed = self._pass(b"".join((*unfed, self._reader.end(None if self._finished else "length"))))
        held = self._inner.flush()
        self._take_over()
        return passed + held

    def _go_on(self) -> FollowUpRequest:
        """The next request, now that the prompt's ids are known."""
        return self._continue(None) if self._dropped < 0 else self._ask_text()

    def _ask_text(self) -> FollowUpRequest:
        self._state = CheckpointState.DETOKENIZING
        start = 0 if self._reader is None else self._reader.anchor
        return self._followed.detokenize(self.tokens.behind(start, self._dropped))

    def _take_text(self) -> bytes:
        """The text of the kept ids is complete."""
        text = parse_object(bytes(self._answer)).get("prompt")
        self._answer.clear()
        if not isinstance(text, str):
            raise self.lost("the other node does not tell the text of its tokens")
        if text.endswith(_HALF) or (not self._marked and _HIDES_HALF.search(text)):
            if self._dropped >= _MAX_DROPPED:
                raise self.lost("its text is no UTF-8")
            self._dropped += 1
            self.follow_up = self._ask_text()
            return b""
        self._shows_special = _HIDES_HALF.search(text) is not None
        unshown = self._find_unshown(text)
        if unshown is None:
            raise self.lost("its text is not the text of its tokens")
        self.tokens.keep(self._dropped)
        return self._send(self._continue(unshown))

    def _find_unshown(self, text: str) -> UnshownText | None:
        """What of `text` the client has not been sent; None where the two do not agree."""
        reader = self._reader
        if reader is not None:
            return UnshownText(text, "", True) if reader.agrees(text) else None
        choice = (parse_object(event_data(self._last)).get("choices") or [{}])[0]
        last = last_text(choice.get("delta") or {} if self._followed.chat else choice)
        return find_unshown(text, self._counted, last, self._splits, self._marked)

    def _continue(self, unshown: UnshownText | None) -> FollowUpRequest:
        """The request for the rest of the answer. `unshown`: the text that the client is to get before, if any."""
        tokens, prompt = self.tokens, self._prompt
        prompt_tokens, made = prompt.count(b",") + 1 if prompt else 0, tokens.count
        ids = tokens.ids()
        self.prompt_tokens = self.prompt_tokens or prompt_tokens
        reader = self._reader
        if reader is None:
            reader = self._reader = self._new_reader(ids, unshown)
            if unshown is not None:
                self._unfed.append(reader.give(unshown.before, unshown.text))
        reader.begin(prompt_tokens)
        most = self._followed.max_tokens()
        window = self._window if self._window is not None else self._capabilities.window
        if most is None:
            most = (window or 0) - prompt_tokens
        room = most - made if window is None else min(most - made, window - prompt_tokens - made)
        if self._finished or room < 1:
            self._state = CheckpointState.ENDED
        else:
            self._state = CheckpointState.CONTINUED
        known = self._capabilities
        marker = any(ends_with(ids, each) for each in (known.think_start, known.think_end))
        special = reader.thinking or marker or self._shows_special
        return self._followed.continuation(prompt, ids, made, max(1, room), special, known)

    @property
    def _reasoning(self) -> str:
        """The field of reasoning in the last event; empty where it had none."""
        names = ("reasoning", "reasoning_content")
        return next((name for name in names if b'"%b":"' % name.encode() in self._last), "")

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

    def _thinks(self, ids: bytes, unshown: UnshownText | None) -> bool:
        """Whether what follows in the text of the answer's tokens `ids`, or in `unshown`, is thinking."""
        known = self._capabilities
        if unshown is not None and unshown.behind_thinking:
            return False
        if not known.think_end:
            return bool(self._reasoning)
        prompt, start, end = self._prompt, known.think_start, known.think_end
        if unshown is None:
            prompt += b"," + ids
        elif self._reasoning or find(ids, start) >= 0:
            return True
        return last_of(prompt, start) > last_of(prompt, end)

    def _new_reader(self, ids: bytes, unshown: UnshownText | None) -> ContinuationReader:
        known = self._capabilities
        options = self._followed.parsed.get("stream_options") or {}
        form = StreamForm(
            head_of(self._first),
            self._followed.chat,
            self._reasoning or "reasoning",
            self._keeps_ids,
            bool(options.get("continuous_usage_stats")),
            known.think_start,
            known.think_end,
            unshown is None or unshown.trims,
        )
        raw = RawAnswer(self._followed.parsed, self._first.decode("latin-1"), self._answering)
        stops, thinking = self._followed.stop_strings(), self._thinks(ids, unshown)
        reader = ContinuationReader(form, self.tokens, raw, stops, self._splits, thinking, self._answering)
        reader.counted = self._usage_told
        return reader
