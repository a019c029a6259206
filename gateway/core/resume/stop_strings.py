"""Stop strings of an answer that goes on on another node, which would not find one that began before the break.

They are matched as vLLM does it: the one that is complete first ends the answer, the first of the list where several
are. Without `included` the text up to the longest one's last character but one is held back.
"""


class StopStrings:
    """`matched`: the stop string that ended the answer, if any."""

    __slots__ = ("_included", "_minimum", "_out", "_reach", "_stops", "_text", "matched")

    def __init__(self, stops: list[str], included: bool, minimum: int) -> None:
        """`included`: the stop string is part of the answer. `minimum`: tokens that an answer has at least."""
        self._stops = stops
        self._included = included
        self._minimum = minimum
        self._reach = max(map(len, stops)) - 1
        self._text = ""
        self._out = 0
        """The length of what of `_text` is passed on."""
        self.matched: str | None = None

    def begin(self, before: str, unshown: str) -> str:
        """Take over an answer whose node found none: what to pass on of `unshown`, which follows `before`."""
        self._text = before + unshown
        self._out = len(before)
        return self._release(self._end_of_certain())

    def feed(self, text: str, made: int) -> str:
        """More text, that of the tokens up to the answer's number `made`: the text to pass on."""
        known = len(self._text)
        self._text += text
        if text and made > self._minimum:
            found = [
                (at + len(stop), stop)
                for stop in self._stops
                if (at := self._text.find(stop, max(0, known + 1 - len(stop)))) >= 0
            ]
            if found:
                end, self.matched = min(found, key=_end_of)
                return self._release(end if self._included else end - len(self.matched))
        return self._release(self._end_of_certain())

    def flush(self) -> str:
        """The rest of the text, at the answer's end."""
        return self._release(len(self._text))

    def _end_of_certain(self) -> int:
        return len(self._text) if self._included else len(self._text) - self._reach

    def _release(self, end: int) -> str:
        end = max(self._out, end)
        passed = self._text[self._out : end]
        self._out = end
        past = min(self._out, max(0, len(self._text) - self._reach))
        self._text, self._out = self._text[past:], self._out - past
        return passed


def _end_of(found: tuple[int, str]) -> int:
    return found[0]
