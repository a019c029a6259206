"""Tells thinking from the answer in the events of a stream whose budget is enforced."""

from typing import Any

from gateway.core.budgets.chunks import write_chunk
from gateway.core.budgets.continuation import BudgetTerms
from gateway.core.budgets.split import TextSplit


class ThinkingReader:
    """Reads the parsed events of one stream until its thinking is over.

    `parsed`: the node's reasoning parser splits thinking from the answer; None until an event shows it.
    """

    __slots__ = ("_split", "_terms", "parsed")

    def __init__(self, terms: BudgetTerms) -> None:
        self._terms = terms
        self._split = TextSplit(terms.start, terms.end)
        self.parsed = terms.splits if terms.chat else False

    def opened_by(self, prompt: bytes) -> bool:
        """Whether a prompt (token ids as JSON writes them) ends inside of thinking."""
        return self._split.opened_by(prompt)

    def weigh(self, choice: dict[str, Any], ids: list[int] | None, thinking: bool) -> tuple[bool, int]:
        """Whether an event has thinking in it, and the tokens of that. `thinking`: it was open before the event."""
        thought, text = self._texts(choice)
        if self.parsed is None:
            self.parsed = self._detect_parser(thought, text, ids, thinking)
        thinking = thinking or thought or self._split.starts(ids)
        answers = self.parsed is True and bool(text) and not thought and not self._split.ends(ids)
        return thinking, self._split.count(ids, thought) if thinking and not answers else 0

    def count(self, ids: list[int]) -> int:
        """How many of these tokens of thinking are no markers."""
        return self._split.count(ids, True)

    def pass_on(
        self, chunk: dict[str, Any], choice: dict[str, Any], ids: list[int] | None, thinking: bool
    ) -> tuple[bytes, bool]:
        """The client's event, empty where all of it is hidden, and whether thinking is over."""
        text = self._texts(choice)[1]
        last = bool(choice.get("finish_reason"))
        delta = self._delta(choice)
        if self.parsed is not False:
            ended = bool(text) or bool(delta.get("tool_calls")) or self._split.ends(ids)
        else:
            ended = bool(text or ids or last) and self._divide(delta, text, ids, thinking, last)
        if ended:
            self.parsed = self._terms.chat  # all that follows is the answer
        if self._terms.hide and self._terms.chat:
            _set(delta, "reasoning", "")
            _set(delta, "reasoning_content", "")
            return write_chunk(chunk) if delta or last else b"", ended
        return write_chunk(chunk), ended

    def flush(self) -> str:
        """The thinking that was held back, as far as the client sees it."""
        held = self._split.flush()
        return held if self._terms.chat and not self._terms.hide else ""

    def _delta(self, choice: dict[str, Any]) -> dict[str, Any]:
        delta = choice.get("delta") if self._terms.chat else choice
        return delta if isinstance(delta, dict) else {}

    def _texts(self, choice: dict[str, Any]) -> tuple[bool, str]:
        """Whether the node's parser found thinking, and the other text."""
        delta = self._delta(choice)
        thought = bool(delta.get("reasoning") or delta.get("reasoning_content"))
        return thought, delta.get("content" if self._terms.chat else "text") or ""

    def _detect_parser(self, thought: bool, text: str, ids: list[int] | None, thinking: bool) -> bool | None:
        """Whether the node has a reasoning parser, judged by an event before the end of thinking; None: not known."""
        if thought:
            return True
        if text and (thinking or self._split.starts(ids)):
            return self._split.ends(ids)
        return None

    def _divide(self, delta: dict[str, Any], text: str, ids: list[int] | None, thinking: bool, last: bool) -> bool:
        """Put raw text where a parser would have put it. Returns whether thinking is over."""
        thought, answer, ended = self._split.feed(text, ids, thinking, last)
        if self._terms.chat:
            _set(delta, "reasoning", thought)
            _set(delta, "content", answer)
        return ended


def _set(delta: dict[str, Any], field: str, text: str) -> None:
    if text:
        delta[field] = text
    else:
        delta.pop(field, None)
