"""The tokens of an answer so far, as the node counts them."""

from typing import Any


class TokenTranscript:
    """The prompt and the thinking of one answer, as token ids in JSON (numbers with commas between).

    `prompt` is None until it is known. `thinking` holds the ids of each event, `made` the number of tokens made by the
    node, `reasoning` the number of those that count as thinking, which the markers do not.
    """

    __slots__ = ("made", "prompt", "reasoning", "thinking")

    def __init__(self) -> None:
        self.prompt: bytes | None = None
        self.thinking: list[bytes] = []
        self.made = 0
        self.reasoning = 0

    def add(self, ids: bytes, reasoning: int) -> None:
        """Take in an event of thinking: the ids of its tokens, and how many of them are reasoning."""
        self.reasoning += reasoning
        if ids:
            self.thinking.append(ids)
            self.made += ids.count(b",") + 1

    def drop(self, count: int) -> list[int]:
        """Do without the last `count` ids of thinking; returns them. Their `reasoning` is the caller's to take off."""
        dropped: list[int] = []
        while self.thinking and len(dropped) < count:
            ids = [int(item) for item in self.thinking.pop().split(b",")]
            rest, last = ids[: -(count - len(dropped))], ids[-(count - len(dropped)) :]
            if rest:
                self.thinking.append(",".join(map(str, rest)).encode())
            dropped = last + dropped
        self.made -= len(dropped)
        return dropped

    def resume(self, prompt: bytes, thinking: bytes, events: int) -> None:
        """Take in an answer that was followed without ids until now. `events` is the number of its events of thinking,
        for which there may be no ids."""
        self.prompt = prompt or None
        self.thinking = [thinking] if thinking else []
        self.reasoning = self.made = thinking.count(b",") + 1 if thinking else events

    @property
    def complete(self) -> bool:
        """Whether the ids of all tokens are known, so that the answer can be continued from them."""
        return bool(self.prompt) and (bool(self.thinking) or self.reasoning == 0)

    @property
    def prompt_tokens(self) -> int:
        return self.prompt.count(b",") + 1 if self.prompt else 0

    def usage(self, output: int) -> dict[str, Any]:
        """The usage of an answer of several requests. The prompt counts once; `output` is thinking, the marker and the
        answer, since a node that ends thinking by itself counts its marker too."""
        return {
            "prompt_tokens": self.prompt_tokens,
            "total_tokens": self.prompt_tokens + output,
            "completion_tokens": output,
            "completion_tokens_details": {"reasoning_tokens": self.reasoning},
        }
