"""How much text of an answer its node has sent, and what is left of the text of the answer's tokens.

Token ids and text do not march together. A node holds back half a character, the beginning of a possible tag,
whitespace at the end of thinking, and with stop strings some characters of everything; with several ids an event it
does so in the middle of an event. So the text of the ids is asked for, and what was sent is counted.

Text is counted in bytes of its JSON: an event's is the distance of two offsets, whatever is escaped in it.
"""

from typing import Any, Final, NamedTuple

from gateway.core.budgets.chunks import head_of
from gateway.core.budgets.continuation import END_TEXT, START_TEXT
from gateway.core.json_text import dump, load_json

_NEVER = 1 << 62
BETWEEN_FIELDS: Final = b'","'
"""Stands behind a text where another field follows; a quote inside of one is escaped."""
_THINKING = ("reasoning", "reasoning_content")
_ANSWER = ("content", "text")


class ShownText:
    """The count of one answer.

    `size`: bytes of all its text. `thought`: those of its thinking; -1 as long as there is nothing else.
    `begins`, `spot`, `letter`: in an event like the last, text begins at `begins`, and at `spot` stands the first
    letter of its field. Text of another field is never counted by offsets. `last`: the last text that was counted so,
    as JSON has it; empty where an event was parsed since.
    """

    __slots__ = ("begins", "last", "letter", "size", "spot", "thought")

    def __init__(self) -> None:
        # What is read with each event comes first (see docs/architecture.md, "What is compiled").
        self.begins = _NEVER
        self.spot = 0
        self.letter = 0
        self.size = 0
        self.last = b""
        self.thought = -1

    def add(self, event: bytes, said: dict[str, Any], chat: bool) -> None:
        """Count the text of a parsed event: `said` is its delta, or its choice."""
        self.last = b""
        thinking, answer = _first_of(said, _THINKING), _first_of(said, _ANSWER)
        self.size += json_size(said[thinking]) if thinking else 0
        if answer:
            self.thought = self.size if self.thought < 0 else self.thought
            self.size += json_size(said[answer])
        self._learn(event, answer or thinking, chat)

    @property
    def thinks(self) -> bool:
        """Whether there is thinking and nothing else."""
        return self.size > 0 and self.thought < 0

    def forget_answer(self, everything: bool) -> None:
        """Count anew behind the thinking, or from the beginning."""
        self.size = 0 if everything else self.size if self.thought < 0 else self.thought
        self.thought = -1
        self.begins = _NEVER

    def _learn(self, event: bytes, field: str, chat: bool) -> None:
        """Learn the offsets of such events; none where there is more than one text."""
        opening = b'{"index":0,"delta":{"' if chat else b'{"index":0,"'
        head = head_of(event) + opening
        whole = head + field.encode() + b'":"'
        self.begins = _NEVER
        if len(head) > len(opening) and event.startswith(whole) and BETWEEN_FIELDS not in event[len(whole) :]:
            self.begins = len(whole)
            self.spot = len(head)
            self.letter = event[self.spot]


class UnshownText(NamedTuple):
    """The text of an answer's tokens that its node has not sent. `before`: the text in front of it.

    `behind_thinking`: it begins in the answer itself. `trims`: the node leaves whitespace out at the end of thinking,
    as vLLM's parser for Nemotron does; where that does not show, it is taken for one that does.
    """

    before: str
    text: str
    behind_thinking: bool
    trims: bool = True


def find_unshown(text: str, shown: ShownText, last: str, splits: bool, marked: bool) -> UnshownText | None:
    """What the node has not sent of `text`, that of the answer's tokens; None where the two do not agree.

    `last`: the last text that was sent. `splits`: the node split reasoning from content. `marked`: its text shows the
    markers of thinking, where it does not split them off.
    """
    if not splits:
        found = _find_in_raw(text if marked else _without_markers(text), shown, last)
        return found or (_find_in_raw(text, shown, last) if not marked else None)
    if shown.thought >= 0:
        return _find_in_answer(text, shown, last)
    begin = len(text) - len(text.lstrip())
    begin = begin + len(START_TEXT) if text.startswith(START_TEXT, begin) else 0
    at = _offset(text[begin:], shown.size, last)
    if at < 0:
        return None
    before, rest = text[: begin + at], text[begin + at :]
    if END_TEXT in before[begin:]:
        return None
    return UnshownText(before, rest, False, not before[-1:].isspace())


def _find_in_raw(text: str, shown: ShownText, last: str) -> UnshownText | None:
    at = _offset(text, shown.size, last)
    return None if at < 0 else UnshownText(text[:at], text[at:], True)


def _find_in_answer(text: str, shown: ShownText, last: str) -> UnshownText | None:
    """Some of the answer itself was sent."""
    thinking, marker, answer = text.partition(END_TEXT)
    if not marker:
        thinking, answer = "", text
    answer = answer.replace(END_TEXT, "")  # a second one is left out by parsers
    at = _offset(answer, shown.size - shown.thought, last)
    if at < 0:
        return None
    return UnshownText(thinking + marker + answer[:at], answer[at:], True)


def _offset(text: str, size: int, last: str) -> int:
    """Where the first `size` bytes of JSON of `text` end, if `last` does, too; else -1."""
    json = dump(text)[1:-1]
    if size > len(json):
        return -1
    part = load_json(b'"%b"' % json[:size])
    return len(part) if isinstance(part, str) and part.endswith(last) else -1


def _without_markers(text: str) -> str:
    """The text as a node gives it that leaves special tokens out."""
    return text.replace(START_TEXT, "").replace(END_TEXT, "")


def last_text(said: dict[str, Any]) -> str:
    """The last of the texts of an event; `said` is its delta, or its choice."""
    field = _first_of(said, _ANSWER) or _first_of(said, _THINKING)
    return str(said[field]) if field else ""


def json_size(text: str) -> int:
    """Bytes of the JSON of `text`, without its quotes."""
    return len(dump(text)) - 2


def _first_of(said: dict[str, Any], names: tuple[str, ...]) -> str:
    return next((name for name in names if isinstance(said.get(name), str) and said[name]), "")
