"""Traces in mooncake's format, replayed: each line a request with its moment, lengths and the blocks of its prompt."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from loadtest.load.prompts import shared_text
from loadtest.load.turns import Session, Turn

BLOCK = 512
"""Tokens of the block that a hash id stands for."""


class TraceError(ValueError):
    """A line that is no request, with its number."""


@dataclass(frozen=True, slots=True)
class Row:
    """One request of a trace: seconds from its beginning, tokens, and the blocks of the prompt."""

    at: float
    input: int
    output: int
    blocks: tuple[int, ...]


def read_trace(path: Path, seconds: float, speed: float = 1.0, part: int = 0, parts: int = 1) -> Iterator[Row]:
    """The requests of the first `seconds`, `speed` times as fast; of `parts` generators the one that `part` is.

    Raises TraceError.
    """
    with path.open() as lines:
        for number, line in enumerate(lines):
            try:
                given = json.loads(line)
                at = float(given["timestamp"]) / 1000 / speed
                row = Row(at, int(given["input_length"]), int(given["output_length"]), tuple(given["hash_ids"]))
            except (ValueError, KeyError, TypeError) as error:
                raise TraceError(
                    f"{path}:{number + 1}: not a request in mooncake's format (timestamp in ms, input_length, "
                    f"output_length, hash_ids): {error!r}"
                ) from None
            if row.at > seconds:
                return
            if number % parts == part:
                yield row


def session_of(row: Row, scale: float) -> Session:
    """One request: its blocks are texts that other prompts with the same ids have too, its last one is cut."""
    block = max(1, round(BLOCK * scale))
    tokens = max(1, round(row.input * scale))
    words = " ".join(shared_text(f"block {number}", block) for number in row.blocks).split(" ")
    prompt = " ".join(words[:tokens]) or "river"
    # Its length was the whole answer's: a tenth is left for what is said behind the thought.
    output = max(2, round(row.output * scale))
    answer = max(1, output // 10)
    yield Turn(({"role": "user", "content": prompt},), answer, output - answer)
