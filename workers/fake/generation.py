"""One answer as it grows: tokens from the model, text from the tokens, stop strings, and the end.

`Answer.step(count)` decodes up to `count` tokens and returns what they made as segments: pieces of text with the
part of the answer they belong to. Text that might begin a stop string is held back, as on a real node.
"""

import codecs
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal, NamedTuple

from workers.fake.model import Speaker
from workers.fake.sampling import Sampling
from workers.fake.tokens import EOS, IM_START, THINK_END, Tokenizer, is_special

Part = Literal["reasoning", "content"]
Finish = Literal["stop", "length", "abort"]


class Step(NamedTuple):
    """What one decoding step made: token ids, text pieces, and how the answer ended if it did."""

    ids: list[int]
    segments: list[tuple[Part, str]]
    finish: Finish | None
    stop_reason: str | int | None

    def text(self, part: Part) -> str:
        """The step's text in one part of the answer."""
        return "".join([text for where, text in self.segments if where == part])


def merged(steps: Sequence[Step]) -> Step:
    """Several steps of one answer as one."""
    ids = [i for step in steps for i in step.ids]
    segments = [segment for step in steps for segment in step.segments]
    return Step(ids, segments, steps[-1].finish, steps[-1].stop_reason)


class Answer:
    """One of a request's `n` answers."""

    __slots__ = (
        "_decode",
        "_plan",
        "_speaker",
        "_stops",
        "_thought",
        "_tokenizer",
        "finish",
        "made",
        "raw",
        "reasoning_tokens",
    )

    def __init__(self, tokenizer: Tokenizer, prompt: Sequence[int], plan: Sampling, salt: int, *, raw: bool) -> None:
        self._tokenizer = tokenizer
        self._plan = plan
        self._speaker = Speaker(tokenizer, prompt, replace(plan.wishes, salt=salt))
        self._decode = codecs.getincrementaldecoder("utf-8")("replace").decode
        self._stops = StopStrings(plan.stop, keep=plan.keep_stop) if plan.stop else None
        self._thought = plan.all_thought
        self.raw = raw
        self.made = 0
        self.reasoning_tokens = 0
        self.finish: Finish | None = None

    def step(self, count: int) -> Step:
        """Up to `count` more tokens; fewer at the end of the answer."""
        ids: list[int] = []
        segments: list[tuple[Part, str]] = []
        reason: str | int | None = None
        while len(ids) < count and self.finish is None:
            if self.made == self._plan.abort_after:
                self.finish = "abort"
                break
            thought = self._speaker.thinking or self._thought
            told = self._speaker.thinking or (self._thought and self._plan.tells_thought)
            part: Part = "reasoning" if told else "content"
            token = self._speaker.next()
            reason = self._ends_beam(token)
            if reason is not None:
                break
            ids.append(token)
            self.made += 1
            if thought and not is_special(token):
                self.reasoning_tokens += 1
            reason = self._take(token, part, segments)
            self._thought = self._thought and token != THINK_END
        return Step(ids, segments, self.finish, reason)

    def _ends_beam(self, token: int) -> int | None:
        """The end of a beam is told as its stop reason, and is none of its tokens."""
        if not self._plan.beams or token != EOS or self._plan.wishes.ignore_eos:
            return None
        self.finish = "stop"
        return token

    def _take(self, token: int, part: Part, segments: list[tuple[Part, str]]) -> str | int | None:
        reason: str | int | None = self._ends_at(token)
        ends = self.finish == "stop" and (token == EOS or not self._plan.keep_stop)
        text = "" if ends else self._text(token)
        if self._stops is None:
            if text:
                segments.append((part, text))
        else:
            hit = self._stops.feed(part, text, segments)
            if hit is not None:
                self.finish, reason = "stop", hit
            elif self.finish is not None:
                self._stops.flush(segments)
        return reason

    def _ends_at(self, token: int) -> int | None:
        if token == EOS and not self._plan.wishes.ignore_eos:
            self.finish = "stop"
        elif token in self._plan.stop_ids:
            self.finish = "stop"
            return token
        elif self.made >= self._plan.max_tokens:
            self.finish = "length"
        return None

    def _text(self, token: int) -> str:
        if is_special(token) and self._hidden(token):
            return self._decode(b"", final=True)  # half a character before it will never be whole
        return self._decode(self._tokenizer.texts[token])

    def _hidden(self, token: int) -> bool:
        # A chat's parsers take the marks of thinking out (where there is one) and need those of tool calls;
        # raw text has all or none.
        if self.raw:
            return self._plan.skip_special
        return token in (EOS, IM_START) or (token == THINK_END and not self._plan.think_marks)


class StopStrings:
    """Finds stop strings in text that comes in pieces. Unless they are kept in the text, as many characters are held
    back as a stop string may have before its last one, whatever they are."""

    def __init__(self, stops: Sequence[str], *, keep: bool) -> None:
        self._stops = stops
        self._keep = keep
        self._reach = max(map(len, stops)) - 1
        self._pending: list[tuple[Part, str]] = []
        self._seen = ""  # what may be part of a stop string; its first `_out` characters have been put out
        self._out = 0

    def feed(self, part: Part, text: str, out: list[tuple[Part, str]]) -> str | None:
        """Takes a piece, puts what is safe into `out`; the stop string, once one is complete."""
        if text:
            self._pending.append((part, text))
        self._seen += text
        found = [(at + len(stop), stop) for stop in self._stops if (at := self._seen.find(stop)) >= 0]
        if found:
            end, stop = min(found)
            self._release(end - (0 if self._keep else len(stop)), out)
            return stop
        self._release(len(self._seen) - (0 if self._keep else self._reach), out)
        return None

    def flush(self, out: list[tuple[Part, str]]) -> None:
        """Puts out what was held back: the answer ended without a stop string."""
        self._release(len(self._seen), out)

    def _release(self, end: int, out: list[tuple[Part, str]]) -> None:
        length = end - self._out
        while self._pending and length > 0:
            part, text = self._pending.pop(0)
            out.append((part, text[:length]))
            if len(text) > length:
                self._pending.insert(0, (part, text[length:]))
            self._out += min(length, len(text))
            length -= len(text)
        past = max(0, self._out - self._reach)
        self._seen, self._out = self._seen[past:], self._out - past
