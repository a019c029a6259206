"""Splits thinking from the answer by its markers, `<think>` and `</think>`, in token ids and in text."""

from gateway.core.budgets.chunks import last_of
from gateway.core.budgets.continuation import END_TEXT, START_TEXT


class TextSplit:
    """The split of one stream: by the markers' token ids, and in raw text by the markers themselves."""

    __slots__ = ("_end", "_start", "_tail")

    def __init__(self, start: tuple[int, ...], end: tuple[int, ...]) -> None:
        """`start` and `end`: the token ids of the markers, empty where they are not known."""
        self._start = start
        self._end = end
        self._tail = ""

    def opened_by(self, prompt: bytes) -> bool:
        """Whether a prompt (token ids as JSON writes them) ends inside of thinking."""
        return last_of(prompt, self._start) > last_of(prompt, self._end)

    def starts(self, ids: list[int] | None) -> bool:
        return len(self._start) == 1 and self._start[0] in (ids or ())

    def ends(self, ids: list[int] | None) -> bool:
        return len(self._end) == 1 and self._end[0] in (ids or ())

    def count(self, ids: list[int] | None, thought: bool) -> int:
        """The number of an event's tokens that are thinking: those before the end marker, without the markers.

        An event of thinking without ids counts as one token.
        """
        if ids is None:
            return int(thought)
        end = ids.index(self._end[0]) if self.ends(ids) else len(ids)
        return end - (ids[:end].count(self._start[0]) if self.starts(ids) else 0)

    def flush(self) -> str:
        """The text that was held back, at the stream's end."""
        held, self._tail = self._tail, ""
        return held

    def feed(self, text: str, ids: list[int] | None, thinking: bool, last: bool) -> tuple[str, str, bool]:
        """Split a piece of raw text: (thinking in it, answer in it, whether thinking is over).

        A possible beginning of a marker is held back for its rest, unless the piece is the `last`.
        """
        text = self._tail + text
        self._tail = ""
        if not thinking:
            opened = text.lstrip()
            if self.starts(ids) or opened.startswith(START_TEXT):
                text = opened.removeprefix(START_TEXT)
            elif START_TEXT.startswith(opened) and not last:
                self._tail = text
                return "", "", False
            else:
                return "", text, bool(opened)
        before, marker, after = text.partition(END_TEXT)
        if marker:
            return before, after, True
        if self.ends(ids):  # the marker is a token that is not shown
            return text, "", True
        wait = 0 if last else _unfinished(text)
        self._tail = text[len(text) - wait :]
        return text[: len(text) - wait], "", False


def _unfinished(text: str) -> int:
    """The length of the longest end of `text` that is a beginning of the end marker."""
    return next((size for size in range(len(END_TEXT) - 1, 0, -1) if text.endswith(END_TEXT[:size])), 0)
