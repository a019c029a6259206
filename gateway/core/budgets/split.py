"""Where thinking stands in token ids and in text: the markers `<think>` and `</think>`."""

from gateway.core.budgets.chunks import last_of
from gateway.core.budgets.continuation import END_TEXT, START_TEXT


class TextSplit:
    """Tells thinking from the answer by the markers' token ids, and in raw text by the markers themselves."""

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
        """How many of an event's tokens are thinking: those before the end marker, the markers apart.

        Without ids an event with thinking counts as one token.
        """
        if ids is None:
            return int(thought)
        end = ids.index(self._end[0]) if self.ends(ids) else len(ids)
        return end - (ids[:end].count(self._start[0]) if self.starts(ids) else 0)

    def flush(self) -> str:
        """What waits for its rest, which will not come."""
        held, self._tail = self._tail, ""
        return held

    def feed(self, text: str, ids: list[int] | None, thinking: bool, last: bool) -> tuple[str, str, bool]:
        """A piece of raw text: (thinking in it, answer in it, whether thinking is over).

        What could be the beginning of a marker waits for its rest; `last` lets nothing wait.
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
    """The length of the longest end of `text` that the end marker could begin with."""
    return next((size for size in range(len(END_TEXT) - 1, 0, -1) if text.endswith(END_TEXT[:size])), 0)
