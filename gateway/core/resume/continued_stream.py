"""Goes on with a broken stream: the requests to the next node, one after the other, and what comes of them.

The table of the states stands in `checkpoint`.
"""

import re
import zlib
from enum import Enum

from gateway.core.bodies import Body
from gateway.core.budgets.chunks import head_of, ids_json, last_of
from gateway.core.dialects.stream_filter import STOP, FollowUpRequest, StreamFilter
from gateway.core.errors import AnswerTooLarge, StreamLost, UpstreamCut
from gateway.core.fleet.capabilities import Capabilities
from gateway.core.http.sse import MAX_HELD, split_events
from gateway.core.json_text import parse_object
from gateway.core.resume.answer_tokens import ends_with, find
from gateway.core.resume.continuation_reader import ContinuationReader, StreamForm
from gateway.core.resume.followed_request import FollowedRequest
from gateway.core.resume.followed_stream import FollowedStream
from gateway.core.resume.raw_answer import RawAnswer
from gateway.core.resume.shown_text import UnshownText, find_unshown

_HALF = "\ufffd"
"""What a tokenizer writes for half a character."""
_HIDES_HALF = re.compile(r"\ufffd(?:<[^<>\s]{1,40}>)+\Z")
"""Half a character with special tokens behind it: the end of a prompt may not be half a character, not even to a node
that leaves special tokens out. It would send its prompt as text."""
_MAX_DROPPED = 16
"""The most ids of half characters at the end of an answer: more than three are of a model that writes no UTF-8."""


class CheckpointState(Enum):
    FOLLOWING = "following"
    """Or passing, where the stream has no ids (see `FollowedStream`)."""
    TOKENIZING = "tokenizing"
    DETOKENIZING = "detokenizing"
    CONTINUED = "continued"
    ENDED = "ended"


_ASKING = (CheckpointState.TOKENIZING, CheckpointState.DETOKENIZING)


class ContinuedStream(FollowedStream):
    """A stream of which several nodes may have made parts."""

    __slots__ = (
        "_answer",
        "_dropped",
        "_forgotten",
        "_grammar",
        "_prompt",
        "_reader",
        "_settled",
        "_shows_special",
        "_state",
        "_unfed",
        "_window",
        "prelude",
    )

    def __init__(
        self, inner: StreamFilter, followed: FollowedRequest, capabilities: Capabilities, keeps_ids: bool, grammar: bool
    ) -> None:
        """`capabilities`: of the node that is asked first. `keeps_ids`: `inner` is to see them. `grammar`: one bounds
        the answer."""
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
        self._forgotten: list[int] = []
        """The ids at the end that `inner` has been fed, and that are made again."""
        self._unfed: list[bytes] = []
        """Events that came before one that broke the answer off in the same piece."""
        self.prelude: list[bytes] = []
        """Events for the client that wait for the first that says something of the answer."""
        super().__init__(inner, followed, capabilities, keeps_ids)

    def _follow(self, followed: FollowedRequest) -> None:
        super()._follow(followed)
        self._state = CheckpointState.FOLLOWING
        self._reader: ContinuationReader | None = None
        self._settled = False
        """Whether `inner` has all text of the kept ids, where no reader knows it."""

    @property
    def generates(self) -> bool:
        """Whether what is asked of a node now makes tokens; `/tokenize` and `/detokenize` make none."""
        return self._followed.generates and self._state not in _ASKING

    @property
    def recomputed(self) -> int | None:
        """Prompt tokens that the last continuation's node computed again; None where that is not known."""
        return None if self._reader is None else self._reader.recomputed

    @property
    def thinks(self) -> bool | None:
        if self._reader is None or not self._splits:
            return super().thinks
        return self._reader.thinking

    def feed(self, data: bytes) -> bytes:
        if not self._followed.generates:
            return self._pass(data)
        if self._state in _ASKING:
            self._answer += data
            if len(self._answer) > MAX_HELD:
                raise AnswerTooLarge(f"The node's tokenizer answered with more than {MAX_HELD} bytes.")
            return b""
        told = b""
        if self._forgotten and self._reader is not None:
            told = self._tell_forgotten(self._reader)
            if self.follow_up is not None or self.ended or self.failed:  # by what came before the break
                return told
        unfed, self._unfed = self._unfed, []
        for event in split_events(self._splitter.feed(data)):
            try:
                unfed.append(self._read(event) if self._reader is None else self._reader.take(event))
            except Exception:
                self._unfed = unfed
                raise
            if self._breaks():  # the rest of the node's answer is dropped
                break
        self._clear = self._reader is None and not (self.tokens.held or self._splitter.rest)
        passed = told + self._pass(b"".join(unfed))
        if self._reader is not None and self._reader.stopped:
            self.follow_up = STOP
        return passed

    def _forget(self, ids: bytes) -> None:
        """These token ids, the answer's last, are made again."""
        if ids and self._keeps_ids:
            self._forgotten[:0] = map(int, ids.split(b","))

    def _tell_forgotten(self, reader: ContinuationReader) -> bytes:
        """Have `inner` forget the ids that are made again, once it has what came before the break."""
        unfed, self._unfed = self._unfed, []
        forgotten, self._forgotten = self._forgotten, []
        passed = self._pass(b"".join(unfed))
        if not self._inner.forget_tokens(forgotten):
            reader.passed_on.add(forgotten)
        return passed

    def _breaks(self) -> bool:
        """Whether the node's stream is left behind the last event."""
        return False

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

    @property
    def _answering(self) -> bool:
        """Whether something of the answer itself has come."""
        if self._reader is not None:
            return self._reader.answering
        return bool(self._last) and (not self._followed.chat or b'"content":"' in self._last)

    def lost(self, why: str, repeatable: bool = True, advice: str | None = None) -> StreamLost:
        """The error for an answer that ends here; `advice` is the sentence with the remedy."""
        count = self.count
        if advice is None:
            advice = "Repeating the request is safe." if repeatable else "Do not repeat it unchanged."
        message = f"The node failed after {count} tokens of this answer, which cannot go on elsewhere: {why}. {advice}"
        return StreamLost(message, tokens=count, repeatable=repeatable)

    @property
    def _speaks_for_itself(self) -> bool:
        """Whether the last event most likely showed the text of all its tokens: of one, with no stop strings."""
        return self._reader is None and not self._followed.stops and self.tokens.lone

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
        if unshown is None and not self._speaks_for_itself:
            raise self.lost("its text is not the text of its tokens")
        if unshown is None:  # special tokens that the node leaves out, which are not known here
            self._forget(self.tokens.drop_held())
            self._shows_special = True
        else:
            self._forget(self.tokens.keep(self._dropped))
        return self._send(self._continue(unshown))

    def _find_unshown(self, text: str) -> UnshownText | None:
        """What of `text` the client has not been sent; None where the two do not agree."""
        reader = self._reader
        if reader is not None:
            return UnshownText(text, "", True) if reader.agrees(text) else None
        return find_unshown(text, self._counted, self._last_text, self._splits, self._marked)

    def _continue(self, unshown: UnshownText | None) -> FollowUpRequest:
        """The request for the rest of the answer. `unshown`: the text that the client is to get before, if any."""
        tokens, prompt = self.tokens, self._prompt
        prompt_tokens = prompt.count(b",") + 1 if prompt else 0
        ids = tokens.ids()
        self.prompt_tokens = self.prompt_tokens or prompt_tokens
        reader = self._reader
        if reader is None:
            if self._cannot_tell(unshown):
                raise self.lost("whether it begins with thinking is not known")
            reader = self._reader = self._new_reader(ids, unshown)
            if unshown is not None:
                self._unfed.append(reader.give(unshown.before, unshown.text))
        if self._end_thought(reader):
            ids = tokens.ids()
        made = tokens.count
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
        follow_up = self._followed.continuation(prompt, ids, made, max(1, room), special, known)
        self._followed.forget_parsed()
        self._prompt = b""
        return follow_up

    def _end_thought(self, reader: ContinuationReader) -> bool:
        """End the thinking before the answer goes on, where that is to be done; whether the answer's tokens changed."""
        return False

    def _cannot_tell(self, unshown: UnshownText | None) -> bool:
        """Whether what follows may be thinking or not: neither the markers nor an event tell. It is nobody's guess, as
        thinking may be hidden from the client."""
        if not self._splits or self._finished or self._capabilities.think_end or self._reader is not None:
            return False
        return not (self._reasoning or self._answering or (unshown is not None and unshown.behind_thinking))

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
        parsed = self._followed.parsed
        tools: Body = {name: parsed[name] for name in ("tools", "tool_choice") if name in parsed}
        raw = RawAnswer(tools, self._first.decode("latin-1"), self._answering)
        stops, thinking = self._followed.stop_strings(), self._thinks(ids, unshown)
        reader = ContinuationReader(form, self.tokens, raw, stops, self._splits, thinking, self._answering)
        reader.counted = self._usage_told
        return reader
