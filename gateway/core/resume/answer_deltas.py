"""The deltas of a chat stream's answer, as a tool parser gives them: content, and tool calls with ids of their own."""

from typing import Any

from gateway.core.dialects.over_chat.stream import derived_id


class AnswerDeltas:
    """Collects the deltas of one answer. `take` hands out those that are new.

    Whitespace before the first word is held back: it is content where a word or the end follows, and is left out where
    a call in tags follows. It is left out between calls as well, until content has a word. Behind that it is content.

    `calls`: the calls that have begun.
    """

    __slots__ = ("_chat_id", "_new", "_spaces", "_spoken", "calls")

    def __init__(self, chat_id: str, spoken: bool) -> None:
        """`spoken`: content with a word in it came before."""
        self._chat_id = chat_id
        self._spoken = spoken
        self._spaces = ""
        self._new: list[dict[str, Any]] = []
        self.calls = 0

    @property
    def holds(self) -> bool:
        """Whether whitespace is held back."""
        return bool(self._spaces)

    def say(self, text: str) -> None:
        """Add content."""
        if not self._spoken:
            text = text.lstrip() if self.calls else self._spaces + text
            self._spoken = bool(text.strip())
            self._spaces = "" if self._spoken else text
        if self._spoken and text:
            self._add_content(text)

    def begin(self, name: str) -> None:
        """Begin a call."""
        self._spaces = ""
        call_id = derived_id("chatcmpl-tool-", self._chat_id, self.calls)
        function = {"name": name, "arguments": ""}
        call = {"id": call_id, "type": "function", "index": self.calls, "function": function}
        self._new.append({"tool_calls": [call]})
        self.calls += 1

    def go_on(self, arguments: str) -> None:
        """Add to the arguments of the call that was begun last."""
        if arguments:
            function = {"arguments": arguments}
            self._new.append({"tool_calls": [{"index": self.calls - 1, "function": function}]})

    def end_line(self) -> None:
        """Leave out whitespace until the next word, also where content came before."""
        self._spoken = False

    def leave_out(self) -> None:
        """Leave out the whitespace that was held back: what follows is no content."""
        self._spaces = ""

    def add_spaces(self) -> None:
        """Add the whitespace that was held back, where no call came before."""
        if self._spaces and not self.calls:
            self._add_content(self._spaces)
        self._spaces = ""

    def take(self) -> list[dict[str, Any]]:
        """The deltas since the last call."""
        new, self._new = self._new, []
        return new

    def _add_content(self, text: str) -> None:
        if self._new and "content" in self._new[-1]:
            self._new[-1]["content"] += text
        else:
            self._new.append({"content": text})
