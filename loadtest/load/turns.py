"""One request of a load, as the OpenAI client is asked for it, and what came back of it."""

from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Steering = Literal["marks", "budget"]
"""How lengths are asked for: by marks in the prompt, which fake nodes obey, or by `thinking_token_budget` and
`max_tokens`, which real ones do."""


@dataclass(frozen=True, slots=True)
class Turn:
    """One request. `thinking` and `answer` are tokens that are asked for; `pause` seconds lie before it.

    `call`: the model is asked to call a tool. A client may leave after `leave_after` events, or read one event in
    `read_every` seconds. `wrong_key`: it is asked with a key that nobody has. `expected` is the status of an error that
    is no fault, 0 for none.
    """

    messages: tuple[Mapping[str, Any], ...]
    answer: int
    thinking: int = 0
    stream: bool = True
    tools: tuple[Mapping[str, Any], ...] = ()
    call: bool = False
    session: str = ""
    pause: float = 0.0
    leave_after: int = 0
    read_every: float = 0.0
    wrong_key: bool = False
    expected: int = 0


@dataclass(slots=True)
class Answer:
    """What came of one request. Times in seconds from its sending; None where it never came to that.

    `ending` is ok, left (as the client meant to), expected (the error that was provoked), or an error's cause. `gaps`
    are the seconds between two events.
    """

    ending: str = "ok"
    first_token: float | None = None
    first_answer: float | None = None
    whole: float | None = None
    gaps: list[float] = field(default_factory=list)
    prompt_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    text: str = ""
    calls: list[dict[str, Any]] = field(default_factory=list)

    @property
    def failed(self) -> bool:
        """Whether the client did not get what it should have."""
        return self.ending not in ("ok", "left", "expected")

    @property
    def gap(self) -> float | None:
        """Seconds between two events on average; None of fewer than two."""
        return sum(self.gaps) / len(self.gaps) if self.gaps else None


Session = Generator[Turn, Answer, None]
"""The turns of one conversation: it is sent the answer to each."""


def body_of(turn: Turn, model: str, steering: Steering) -> dict[str, Any]:
    """The keyword arguments of `client.chat.completions.create`.

    Messages go the way of fields that the client does not know, as they are: it walks those that it knows value by
    value, 2.2 s for a body of 30,000 parts, in which no other request of a generator is sent.
    """
    messages = [dict(message) for message in turn.messages]
    given: dict[str, Any] = {"messages": messages}
    body: dict[str, Any] = {"model": model, "messages": (), "stream": turn.stream, "extra_body": given}
    if turn.stream:
        body["stream_options"] = {"include_usage": True}
    if turn.tools:
        body["tools"] = [dict(tool) for tool in turn.tools]
    body["max_tokens"] = max(1, turn.thinking + turn.answer + 64 * turn.call)
    if steering == "marks":
        marks = f"[[think={turn.thinking}]][[answer={turn.answer}]]" + "[[call]]" * turn.call
        messages[-1]["content"] = f"{messages[-1]['content']} {marks}"
        body["max_tokens"] += 16
    elif turn.thinking:
        given["thinking_token_budget"] = turn.thinking
    if turn.session:
        body["extra_headers"] = {"x-session-id": turn.session}
    return body
