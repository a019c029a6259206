"""What a chat answer says, streamed or plain, and whether it is what its node would have said."""

import json
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Said:
    """Text, end and length of an answer. `tokens`: as its usage counts them, None where it has none."""

    reasoning: str
    content: str
    finish: str | None
    tokens: int | None

    def equals(self, other: "Said") -> bool:
        """Whether both say the same; a usage that is missing says nothing."""
        told = None not in (self.tokens, other.tokens)
        texts = (self.reasoning, self.content, self.finish) == (other.reasoning, other.content, other.finish)
        return texts and (not told or self.tokens == other.tokens)


def read_plain(body: bytes) -> Said:
    """A chat completion."""
    whole = json.loads(body)
    choice = whole["choices"][0]
    message = choice["message"]
    tokens = (whole.get("usage") or {}).get("completion_tokens")
    return Said(message.get("reasoning") or "", message.get("content") or "", choice["finish_reason"], tokens)


def read_stream(body: bytes) -> Said | None:
    """A chat stream; None where it is not whole: without one end, with an error, or with half an event."""
    lines = [line[6:] for line in body.decode().split("\n") if line.startswith("data: ")]
    if not lines or lines[-1] != "[DONE]" or lines.count("[DONE]") != 1:
        return None
    try:
        chunks: list[dict[str, Any]] = [json.loads(line) for line in lines[:-1]]
    except ValueError:
        return None
    if any("error" in chunk for chunk in chunks):
        return None
    choices = [choice for chunk in chunks for choice in chunk["choices"]]
    ends = [choice["finish_reason"] for choice in choices if choice["finish_reason"]]
    texts = {name: "".join(choice["delta"].get(name) or "" for choice in choices) for name in ("reasoning", "content")}
    usage: dict[str, Any] = next((chunk["usage"] for chunk in reversed(chunks) if chunk.get("usage")), {})
    finish = ends[0] if len(ends) == 1 else None
    return Said(texts["reasoning"], texts["content"], finish, usage.get("completion_tokens"))
