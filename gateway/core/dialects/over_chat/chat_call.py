"""A tool call of a chat stream, and what has to wait for its end."""

from collections.abc import Mapping
from typing import Any

from gateway.core.json_text import load_object


class ChatCall:
    """One tool call. `pieces`: its arguments so far. `begun`: whether it was passed on; else its pieces wait here."""

    __slots__ = ("_cut_at", "_whole_at", "begun", "call_id", "name", "pieces")

    def __init__(self, call_id: str, name: str) -> None:
        self.call_id = call_id
        self.name = name
        self.pieces: list[str] = []
        self.begun = False
        self._cut_at = self._whole_at = 0

    @property
    def arguments(self) -> str:
        return "".join(self.pieces)

    def is_whole(self) -> bool:
        """Whether the arguments are complete: nothing can follow. They are read anew only when there are more."""
        pieces = self.pieces
        count = len(pieces)
        if count == self._cut_at:
            return False
        if count == self._whole_at:
            return True
        if pieces[-1].rstrip().endswith("}") and load_object(self.arguments) is not None:
            self._whole_at = count
            return True
        self._cut_at = count
        return False


class WaitingText:
    """A piece of the answer behind a call that is not whole; one of thinking has no `choice`."""

    __slots__ = ("choice", "text")

    def __init__(self, text: str, choice: Mapping[str, Any] | None) -> None:
        self.text = text
        self.choice = choice
