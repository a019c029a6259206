"""Reads the completions stream that continues an answer, and writes it as the chunks of the stream that broke off.

A completions stream is raw text. In a chat it is divided as a node's parsers would have done it: at the end of thinking
into reasoning and content, and the content into text and tool calls. What the division holds back of a text stays here
when the continuation breaks off, too: the next one goes on behind it. Stop strings are matched here, in the text that
the first node held back as well: a node looks for them only in what it makes itself.

A chat's continuation that begins in thinking has its special tokens in the text, the marker among them. Special tokens
of the answer itself, which a chat node leaves out, are then shown: an answer has none as a rule, and no list of them is
known here.
"""

from typing import Any, NamedTuple

from gateway.core.budgets.chunks import chat_choice, ids_of, read_chunk, text_choice
from gateway.core.budgets.continuation import END_TEXT, START_TEXT
from gateway.core.budgets.passed_ids import PassedIds
from gateway.core.budgets.split import TextSplit
from gateway.core.dialects.answers import find_error_message, find_error_status
from gateway.core.dialects.stream_filter import ABORTED, gave_up
from gateway.core.errors import NodeFailed, UpstreamError
from gateway.core.http.sse import DONE, event_data
from gateway.core.json_text import dump
from gateway.core.resume.answer_tokens import AnswerTokens, find
from gateway.core.resume.raw_answer import RawAnswer
from gateway.core.resume.stop_strings import StopStrings

_END = b"data: %b\n\n" % DONE


class StreamForm(NamedTuple):
    """What the chunks of the stream that broke off have in common.

    `head`: their bytes up to the bracket of the choices. `field`: the name of reasoning in a delta. `keeps_ids`: they
    have token ids. `counts`: they have a usage each. `start`, `end`: the token ids of the markers of thinking. `trims`:
    whitespace at the end of thinking is left out.
    """

    head: bytes
    chat: bool
    field: str
    keeps_ids: bool
    counts: bool
    start: tuple[int, ...]
    end: tuple[int, ...]
    trims: bool


class ContinuationReader:
    """`thinking`: the end of thinking is still to come. `answering`: something of the answer itself was written.

    `received`: characters of raw text since the last continuation began. `anchor`: the number of tokens before it.
    `stopped`: a stop string ended the answer, of which the node does not know.
    """

    __slots__ = (
        "_form",
        "_made",
        "_over",
        "_prompt_tokens",
        "_raw",
        "_spaces",
        "_split",
        "_splits",
        "_stops",
        "_tells_thought",
        "_tokens",
        "anchor",
        "answering",
        "counted",
        "finished",
        "passed_on",
        "received",
        "recomputed",
        "stopped",
        "thinking",
    )

    def __init__(
        self,
        form: StreamForm,
        tokens: AnswerTokens,
        raw: RawAnswer,
        stops: StopStrings | None,
        splits: bool,
        thinking: bool,
        answering: bool,
    ) -> None:
        """`splits`: the node that broke off split reasoning from content."""
        self._form = form
        self._tokens = tokens
        self._raw = raw
        self._stops = stops
        self._split = TextSplit(form.start, form.end)
        self._splits = form.chat and splits and not answering
        self._spaces = ""
        """Whitespace that may be the end of thinking."""
        self.thinking = thinking and self._splits
        self.answering = answering
        self.finished = self.stopped = self._over = False
        self.counted = False
        """The usage of the whole answer was written."""
        self._tells_thought = form.chat and splits and bool(form.end)
        self.passed_on = PassedIds()
        self._prompt_tokens = 0
        self._made = self.anchor = self.received = 0
        self.recomputed: int | None = None
        """Prompt tokens that the node computed though another had done it; None before it says so."""

    def begin(self, prompt_tokens: int) -> None:
        """A continuation of an answer to a prompt of `prompt_tokens` begins."""
        self._prompt_tokens = prompt_tokens
        self._made = self.anchor = self._tokens.count
        self.received = 0

    @property
    def calls(self) -> bool:
        """Whether a tool call was written."""
        return self._raw.calls > 0

    def give(self, before: str, unshown: str) -> bytes:
        """The events for text of the kept tokens that the first node had not sent; it follows `before`."""
        if self._stops is not None:
            unshown = self._stops.begin(before, unshown)
        return self._write_raw(unshown, [], None, None, [] if self._form.keeps_ids else None) if unshown else b""

    def agrees(self, text: str) -> bool:
        """Whether `text`, that of the tokens since the last continuation began, is what came of them."""
        return self.received in (len(text), len(text.replace(START_TEXT, "").replace(END_TEXT, "")))

    def take(self, event: bytes) -> bytes:
        """The events for one of the node's. Raises the error by which the node gives up."""
        data = event_data(event)
        if self.stopped or self._over:
            return b""
        if data == DONE:
            if not self.finished:  # no success: the answer has no end
                raise gave_up()
            self._over = True
            return event
        if not data:
            return event
        chunk = read_chunk(data)
        if chunk.get("error"):
            raise failure(data)
        if ABORTED in data:
            raise gave_up()
        choices = chunk.get("choices")
        if not choices:
            return self._take_usage(chunk)
        return self._take_choice(choices[0])

    def end(self, finish: str | None) -> bytes:
        """The end of an answer of which no token is left to come; `finish`: its reason, where that is not written."""
        written = b""
        if finish is not None:
            text = self._stops.flush() if self._stops is not None else ""
            written = self._write_raw(text, [], finish, None, [] if self._form.keeps_ids else None)
        return written + self._write_end()

    def end_thinking(self) -> bytes:
        """The events for thinking that is held back, where it is over and its answer is forgotten."""
        text = self._stops.flush() if self._stops is not None else ""
        deltas = self._divide(text, [], False)
        return b"".join(self._write(chat_choice(delta), None) for delta in deltas if self._form.field in delta)

    def close_thinking(self, marked: bool) -> bytes:
        """The events for an end of thinking that the model did not write. `marked`: raw text shows it."""
        text = self._stops.flush() if self._stops is not None else ""
        ids = [*self._form.end]
        shown = ids if self._form.keeps_ids else None
        if marked or self.thinking:
            text += END_TEXT
        return self._write_raw(text, ids, None, None, shown) if text or shown else b""

    def _write_end(self) -> bytes:
        asked = self._prompt_tokens + (self.anchor if self.stopped else 0)
        usage = {"prompt_tokens": asked, "completion_tokens": self._made - self.anchor}
        return (b"" if self.counted else self._take_usage({"usage": usage})) + _END

    def _take_choice(self, choice: dict[str, Any]) -> bytes:
        text, finish, ids = choice.get("text") or "", choice.get("finish_reason"), ids_of(choice) or []
        joined = ",".join(map(str, ids)).encode()
        if text or finish or (self._splits and self._split.ends(ids)):
            self._tokens.show(joined)
        elif joined:
            self._tokens.hold(joined)
        self._made += len(ids)
        self.received += len(text)
        reason, shown = choice.get("stop_reason"), self.passed_on.new(ids) if self._form.keeps_ids else None
        if self._stops is None:
            return self._write_raw(text, ids, finish, reason, shown)
        text = self._stops.feed(text, self._made)
        if self._stops.matched is not None:
            self.stopped = finish is None
            finish, reason = "stop", self._stops.matched
        elif finish is not None:
            text += self._stops.flush()
        # Text lags behind its ids.
        return self._write_raw(text, [], finish, reason, shown) + (self._write_end() if self.stopped else b"")

    def _write_raw(
        self, text: str, ids: list[int], finish: str | None, reason: Any = None, shown: list[int] | None = None
    ) -> bytes:
        """The events for raw text. `ids`: those it is made of, where that is known; `shown`: those for the client."""
        if not self._form.chat:
            return self._write_text(text, finish, reason, shown)
        return self._write_deltas(self._divide(text, ids, finish is not None), finish, reason, shown)

    def _divide(self, text: str, ids: list[int], last: bool) -> list[dict[str, Any]]:
        """The deltas of a piece of raw text."""
        split = self._split
        deltas: list[dict[str, Any]] = []
        if self._splits and (text or ids or last):
            begins = split.starts(ids) or START_TEXT in text
            thought, text, ended = split.feed(text, ids, self.thinking, last)
            self.thinking = (self.thinking or begins or bool(thought)) and not ended
            self._splits = not ended
            thought = self._trim(thought, ended or last)
            if thought:
                deltas.append({self._form.field: thought})
        if text or last:
            deltas += self._raw.feed(text, last)
            self.answering = self.answering or bool(text)
        return deltas

    def _trim(self, thought: str, ended: bool) -> str:
        """Thinking without whitespace at its end, which follows with the next word if one comes."""
        if not self._form.trims:
            return thought
        thought = self._spaces + thought
        trimmed = thought.rstrip()
        self._spaces = "" if ended else thought[len(trimmed) :]
        return trimmed

    def _write_text(self, text: str, finish: str | None, reason: Any, ids: list[int] | None) -> bytes:
        self.finished = self.finished or finish is not None
        self.answering = self.answering or bool(text)
        return self._write(text_choice(text, finish, reason), ids)

    def _write_deltas(
        self, deltas: list[dict[str, Any]], finish: str | None, reason: Any, ids: list[int] | None
    ) -> bytes:
        """The chunks of one event: the last one has its token ids and its finish reason, as the node's would. Only the
        ids of thinking are with its text, so that a budget takes or drops both."""
        if not deltas and not ids and finish is None:
            return b""
        *before, last = deltas or [{}]
        if finish is not None:
            self.finished = True
            finish = self._raw.finish_reason(finish)
        thought: list[int] = []
        if ids and before and self._form.field in before[0] and self._split.ends(ids):
            end = ids.index(self._form.end[0])
            thought, ids = ids[:end], ids[end:]
        chunks = []
        for delta in before:
            chunks.append(self._write(chat_choice(delta), None if ids is None else thought))
            thought = []
        return b"".join([*chunks, self._write(chat_choice(last, finish, reason), ids)])

    def _write(self, choice: dict[str, Any], ids: list[int] | None) -> bytes:
        if ids is not None:
            choice["token_ids"] = ids
        usage = b""
        if self._form.counts:
            usage = b',"usage":' + dump(self._usage(self._tokens.made))
        return b"".join((self._form.head, dump(choice), b"]", usage, b"}\n\n"))

    def _take_usage(self, chunk: dict[str, Any]) -> bytes:
        """The chunk of the whole answer's usage for that of the continuation."""
        usage = chunk.get("usage")
        if not isinstance(usage, dict):
            return b""
        self.counted = True
        asked, made = usage.get("prompt_tokens"), usage.get("completion_tokens")
        details = usage.get("prompt_tokens_details")
        cached = details.get("cached_tokens") if isinstance(details, dict) else None
        if type(asked) is int:
            self.recomputed = max(0, asked - (cached if type(cached) is int else 0))
        whole = self._usage(self.anchor + made if type(made) is int and made >= 0 else self._tokens.made)
        extra = {key: value for key, value in chunk.items() if key == "system_fingerprint" and value is not None}
        tail = dump({"usage": whole, **extra})[1:]
        return b"".join((self._form.head, b"],", tail, b"\n\n"))

    def _usage(self, made: int) -> dict[str, Any]:
        """Each token is counted once, however often it was computed."""
        prompt = self._prompt_tokens
        usage: dict[str, Any] = {"prompt_tokens": prompt, "total_tokens": prompt + made, "completion_tokens": made}
        if self._tells_thought:
            usage["completion_tokens_details"] = {"reasoning_tokens": self._reasoning()}
        return usage

    def _reasoning(self) -> int:
        """The tokens of thinking, without the markers."""
        ids = self._tokens.ids()
        end = find(ids, self._form.end)
        if end < 0 and not self.thinking:
            return 0
        thought = (ids if end < 0 else ids[:end]).strip(b",")
        starts = find(thought, self._form.start) >= 0
        return (thought.count(b",") + 1 if thought else 0) - (len(self._form.start) if starts else 0)


def failure(data: bytes) -> UpstreamError:
    """The error that a node reports in its stream: `NodeFailed` where another may do better."""
    message = find_error_message(data) or "The node reported an error."
    if 500 <= find_error_status(data) <= 504:
        return NodeFailed(message)
    return UpstreamError(message, code="upstream_error")
