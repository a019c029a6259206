"""Traces in the mooncake format: JSON lines with timestamp (ms), input_length, output_length, hash_ids.

Each hash id names a block of 512 tokens of the prompt; prompts that begin with the same ids begin with the same text.
"""

import itertools
import json
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from workers.errors import ConfigError, problems_of

BLOCK_TOKENS = 512
MOST_ENTRIES = 20_000
LONGEST_LINE = 1_000_000


class TraceEntry(BaseModel):
    """One request of a trace: when it came (ms since the trace began), lengths in tokens, the blocks of its prompt."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    timestamp: float = Field(ge=0, allow_inf_nan=False)
    input_length: int = Field(ge=1, le=100_000_000)
    output_length: int = Field(ge=1, le=100_000_000)
    hash_ids: tuple[int, ...] = ()


def read_trace(file: Path) -> list[TraceEntry]:
    """The entries of a trace, the first 20,000 of them. Raises ConfigError with file, line and field."""
    entries: list[TraceEntry] = []
    try:
        with file.open(encoding="utf-8") as lines:
            for number, line in enumerate(itertools.islice(iter(lambda: lines.readline(LONGEST_LINE), ""), 0, None), 1):
                if line.strip() and len(entries) < MOST_ENTRIES:
                    entries.append(_read_line(line, f"{file}, line {number}"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read the trace {file}: {error}") from error
    if not entries:
        raise ConfigError(f"{file} has no request: expected one JSON object a line, in the mooncake format")
    return entries


def _read_line(line: str, where: str) -> TraceEntry:
    try:
        document = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{where}: not JSON ({error})") from error
    try:
        return TraceEntry.model_validate(document)
    except ValidationError as error:
        raise ConfigError(f"{where}: {problems_of(error, 'the line')[0]} (mooncake format)") from error
