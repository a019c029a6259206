"""Finds in a node's answer when thinking and the answer begin (`answer_marks`), and how it ends: of recorded requests
alone."""

import re
from typing import Final

from gateway.core.dialects.answer_marks import ANSWER, THINKING
from gateway.core.json_text import parse_object

_FINISH: Final = re.compile(rb'"(?:finish_reason|stop_reason)": ?"([a-z_]{1,40})"')
_STATUS: Final = re.compile(rb'"type": ?"response\.(completed|incomplete|failed)"')
_ID: Final = re.compile(rb'"id": ?"([A-Za-z0-9._:-]{1,200})"')
_TEXT: Final = re.compile(
    rb'"(reasoning|reasoning_content|thinking|content|text|partial_json|arguments|delta)": ?("(?:[^"\\]|\\.)+")'
)
_OF_THINKING: Final = frozenset({b"reasoning", b"reasoning_content", b"thinking"})

MOST_REASONS: Final = 16


class AnswerWatch:
    """`first`, `thinking`, `answer`: when the first event, the first of thinking and the first of the answer came, as
    `see` was told; None before. `reasons`: the finish reasons. `texts`: the beginning of the thinking and of the
    answer, at most `content` bytes of each."""

    __slots__ = ("_content", "answer", "first", "id", "reasons", "said", "thinking", "thought")

    def __init__(self, content: int = 0) -> None:
        self._content = content
        self.first: float | None = None
        self.thinking: float | None = None
        self.answer: float | None = None
        self.id: str | None = None
        self.reasons: list[str] = []
        self.thought = bytearray()
        self.said = bytearray()

    def see(self, data: bytes, now: float) -> None:
        """A piece of the node's stream came at `now`."""
        if self.first is None:
            self.first = now
            found = _ID.search(data)
            if found is not None:
                self.id = found[1].decode()
        if self.answer is None:
            if self.thinking is None and THINKING.search(data) is not None:
                self.thinking = now
            if ANSWER.search(data) is not None:
                self.answer = now
        self.read_end(data)
        if self._content:
            self._keep(data)

    def see_plain(self, body: bytes, now: float) -> None:
        """The whole of a plain answer came at `now`."""
        if self.first is None:
            self.first = now
            found = _ID.search(body[:4096])
            if found is not None:
                self.id = found[1].decode()
        self.read_end(body)
        if self._content:
            self._keep(body)

    def read_end(self, data: bytes) -> None:
        """Read the reasons for which a choice ended."""
        for found in _FINISH.finditer(data):
            if len(self.reasons) < MOST_REASONS:
                self.reasons.append(found[1].decode())
        status = _STATUS.search(data)
        if status is not None and len(self.reasons) < MOST_REASONS:
            self.reasons.append(status[1].decode())

    def _keep(self, data: bytes) -> None:
        for found in _TEXT.finditer(data):
            name = found[1]
            thinks = name in _OF_THINKING or (name == b"delta" and b'"response.reasoning' in data)
            kept = self.thought if thinks else self.said
            room = self._content - len(kept)
            if room > 0:
                text = parse_object(b'{"t":' + found[2] + b"}").get("t")
                if isinstance(text, str):
                    kept += text.encode("utf-8", "replace")[:room]

    def texts(self) -> tuple[str, str]:
        """The beginnings of the thinking and of the answer."""
        return self.thought.decode("utf-8", "ignore"), self.said.decode("utf-8", "ignore")
