"""What is asked: chat, agents, reasoning, or a trace, cut down to what the node's context holds."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from workers.bench.prose import write_prose
from workers.bench.trace import BLOCK_TOKENS, TraceEntry
from workers.errors import ConfigError

TEMPLATE_TOKENS = 96
"""Kept free for the chat template and for lengths that come out a little over."""
TASK = "\n\nGo on with this text at length, in whole sentences."
LEAST_TOKENS = 16


@dataclass(frozen=True, slots=True)
class Shape:
    """Prompt and answer in tokens, and the share of the prompt that the same user has sent before (0 to 1)."""

    name: str
    input_tokens: int
    output_tokens: int
    shared: float

    @property
    def told(self) -> str:
        """As it is shown and saved."""
        return f"{self.name} {self.input_tokens:,} in / {self.output_tokens:,} out, {100 * self.shared:.0f}% repeated"


SHAPES = {
    "chat": Shape("chat", 8192, 1024, 0.7),
    "agents": Shape("agents", 65_536, 400, 0.9),
    "reasoning": Shape("reasoning", 1024, 8192, 0.0),
}
"""Chat and agents are those of NVIDIA's measured recipes; reasoning is a short question with a long thought."""


@dataclass(frozen=True, slots=True)
class Lengths:
    """Tokens of a request on average, and the share of the prompt that the node may have in its cache (0 to 1; None: it
    is not known)."""

    input_tokens: float
    output_tokens: float
    shared: float | None


@dataclass(frozen=True, slots=True)
class Question:
    """One request: its prompt, the tokens of its answer, and in an open loop the second at which it is sent."""

    prompt: str
    output_tokens: int
    at: float | None = None


class Asker(Protocol):
    """Gives out a workload's questions."""

    @property
    def told(self) -> str:
        """The workload in words, its real lengths included."""

    @property
    def lengths(self) -> Lengths:
        """The same as numbers."""

    def warm_up(self, user: int) -> Question | None:
        """What the user has sent before the measurement; None for nothing."""

    def next(self, user: int) -> Question | None:
        """The user's next question; None where there are no more."""


class ShapedAsker:
    """Questions of one shape. Each user has a beginning of their own, and each question an end of its own."""

    def __init__(self, shape: Shape, run: str, tokens_per_word: float) -> None:
        """`run` makes the texts new, so that nothing of an earlier run is in the node's cache."""
        self._shape = shape
        self._run = f"{run}/{shape.name}"
        self._per_word = tokens_per_word
        self._asked = 0
        self._warm: set[int] = set()

    @property
    def told(self) -> str:
        """The shape in words."""
        return self._shape.told

    @property
    def lengths(self) -> Lengths:
        """Those of the shape."""
        return Lengths(self._shape.input_tokens, self._shape.output_tokens, self._shape.shared)

    def warm_up(self, user: int) -> Question | None:
        """The shared beginning alone, for an answer of one token; once a user."""
        if not self._shape.shared or user in self._warm:
            return None
        self._warm.add(user)
        return Question(self._beginning(user), 1)

    def next(self, user: int) -> Question | None:
        """The user's beginning with an end that nobody has sent before."""
        self._asked += 1
        words = (1 - self._shape.shared) * self._shape.input_tokens / self._per_word
        end = write_prose(f"{self._run}/end/{self._asked}", round(words))
        return Question(f"{self._beginning(user)}\n{end}{TASK}", self._shape.output_tokens)

    def _beginning(self, user: int) -> str:
        words = round(self._shape.shared * self._shape.input_tokens / self._per_word)
        return f"Talk {self._run}/{user}.\n" + (write_prose(f"{self._run}/user/{user}", words) if words else "")


class TraceAsker:
    """A trace's requests in its order, whichever user asks."""

    def __init__(
        self,
        entries: Sequence[TraceEntry],
        scale: float,
        room: int,
        run: str,
        tokens_per_word: float,
        rate: float | None = None,
    ) -> None:
        """`scale` multiplies all lengths; entries that are longer than `room` tokens are left out and counted. Times
        are the trace's own, stretched so that on average `rate` requests a second come (None: as recorded)."""
        scaled = [(max(1, round(e.input_length * scale)), max(1, round(e.output_length * scale)), e) for e in entries]
        self._entries = [each for each in scaled if each[0] + each[1] <= room]
        self.left_out = len(scaled) - len(self._entries)
        if not self._entries:
            raise ConfigError(f"every request of the trace is longer than the node's {room:,} tokens: use --scale")
        self._block_words = round(BLOCK_TOKENS * scale / tokens_per_word) or 1
        self._per_word = tokens_per_word
        self._run = run
        self._scale = scale
        self._speed = rate / self.requests_per_second if rate else 1.0
        self._next = iter(self._entries)

    @property
    def told(self) -> str:
        """The trace in words."""
        count, means = len(self._entries), self.lengths
        cut = "" if self._scale == 1 else f", lengths x {self._scale:g}"
        left = f"; {self.left_out:,} longer than the context left out" if self.left_out else ""
        average = f"{means.input_tokens:,.0f} in / {means.output_tokens:,.0f} out"
        return f"trace of {count:,} requests, on average {average}{cut}{left}"

    @property
    def lengths(self) -> Lengths:
        """The means of the trace. What its requests share depends on which of them the node still has."""
        count = len(self._entries)
        sums = sum(each[0] for each in self._entries), sum(each[1] for each in self._entries)
        return Lengths(sums[0] / count, sums[1] / count, None)

    @property
    def requests_per_second(self) -> float:
        """As the trace was recorded."""
        first, last = self._entries[0][2].timestamp, self._entries[-1][2].timestamp
        return 1000 * len(self._entries) / max(last - first, 1.0)

    def warm_up(self, user: int) -> Question | None:
        """Nothing: a trace begins cold."""
        return None

    def next(self, user: int) -> Question | None:
        """The next request; None at the trace's end."""
        found = next(self._next, None)
        if found is None:
            return None
        tokens, output, entry = found
        return Question(f"{self._prompt(entry, tokens)}{TASK}", output, entry.timestamp / 1000 / self._speed)

    def _prompt(self, entry: TraceEntry, tokens: int) -> str:
        words = max(1, round((tokens - 12) / self._per_word))
        return f"Trace {self._run}.\n" + " ".join(self._blocks(entry, words))

    def _blocks(self, entry: TraceEntry, words: int) -> Iterator[str]:
        for block in entry.hash_ids:
            if words <= 0:
                return
            yield write_prose(f"{self._run}/{block}", min(words, self._block_words))
            words -= self._block_words
        if words > 0:  # a trace without blocks, or with too few of them
            yield write_prose(f"{self._run}/{entry.timestamp}/{entry.input_length}", words)


def fit(shape: Shape, scale: float, context: int) -> Shape:
    """The shape times `scale`, and smaller still where prompt and answer would not fit into `context` tokens."""
    room = max(2 * LEAST_TOKENS, context - TEMPLATE_TOKENS)
    factor = min(scale, room / (shape.input_tokens + shape.output_tokens))
    lengths = [max(LEAST_TOKENS, int(tokens * factor)) for tokens in (shape.input_tokens, shape.output_tokens)]
    return Shape(shape.name, lengths[0], lengths[1], shape.shared)
