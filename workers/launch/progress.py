"""Reads a vLLM server's log and says how far it is: download, load, compile, ready.

The patterns are the log calls in vLLM 0.22's and 0.32's sources. A line that is none of them changes nothing, so a
newer version at worst shows fewer steps; whether the server is ready is asked of /health, never read from a log.
"""

import re
from dataclasses import dataclass
from typing import Literal

Phase = Literal["start", "download", "load", "compile", "memory", "serve"]


@dataclass(frozen=True, slots=True)
class Step:
    """One step told by the log. `percent` where the line carries one."""

    phase: Phase
    told: str
    percent: int | None = None


@dataclass(frozen=True, slots=True)
class Pattern:
    """A log line and what it means; groups of the expression fill `told`."""

    phase: Phase
    expression: re.Pattern[str]
    told: str


PATTERNS = (
    Pattern("start", re.compile(r"Initializing a V1 LLM engine \(v(\S+)\)"), "vLLM {0} starts its engine"),
    Pattern("download", re.compile(r"([\w.-]+\.safetensors):\s+(\d+)%"), "downloading {0}"),
    Pattern("download", re.compile(r"Time spent downloading weights for (\S+): ([\d.]+)"), "downloaded in {1} s"),
    Pattern("load", re.compile(r"Starting to load model (\S+?)\.\.\."), "loading {0}"),
    Pattern("load", re.compile(r"Loading safetensors checkpoint shards:\s+(\d+)%.*?\| (\d+/\d+)"), "shards {1}"),
    Pattern("load", re.compile(r"Loading weights took ([\d.]+) s"), "weights loaded in {0} s"),
    Pattern("load", re.compile(r"Model loading took ([\d.]+) GiB.*? ([\d.]+) s"), "{0} GiB per GPU in {1} s"),
    Pattern("compile", re.compile(r"Dynamo bytecode transform time: ([\d.]+)"), "compiling the model"),
    Pattern("compile", re.compile(r"torch\.compile and initial profiling\S* .*?([\d.]+) s"), "compiled in {0} s"),
    Pattern("memory", re.compile(r"Available KV cache memory: (\S+) GiB"), "{0} GiB per GPU for sequences"),
    Pattern("memory", re.compile(r"KV cache size: ([\d,]+) tokens"), "room for {0} tokens"),
    Pattern(
        "memory", re.compile(r"Maximum concurrency for ([\d,]+) tokens per request: ([\d.]+)x"), "{1} x {0} tokens"
    ),
    Pattern("compile", re.compile(r"Capturing CUDA graphs[^:]*:\s+(\d+)%"), "capturing CUDA graphs"),
    Pattern("compile", re.compile(r"Graph capturing finished in (\d+) secs"), "graphs captured in {0} s"),
    Pattern("serve", re.compile(r"Starting vLLM server on (\S+)"), "listening on {0}"),
)
PERCENT = re.compile(r"(\d+)%")


def read_line(line: str) -> Step | None:
    """The step that a log line tells, or None."""
    for pattern in PATTERNS:
        found = pattern.expression.search(line)
        if found is not None:
            percent = PERCENT.search(found.group())
            return Step(pattern.phase, pattern.told.format(*found.groups()), int(percent.group(1)) if percent else None)
    return None


def is_news(step: Step, last: Step | None) -> bool:
    """Whether a step is worth a line: a new phase or text, or ten percent more than the last one told."""
    if last is None or step.phase != last.phase:
        return True
    if step.percent is not None and last.percent is not None and step.percent < 100:
        return step.percent >= last.percent + 10 or step.percent < last.percent
    return step != last
