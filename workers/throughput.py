"""What a node was measured to give, under which load, and with which launch."""

from typing import Literal

from pydantic import Field, model_validator

from workers.catalog.facts import Fact, Precision
from workers.speed_flags import flags_hash


class Load(Fact):
    """What a throughput was measured under: `users` requests at once, each `input` prompt tokens, of which the share
    `cached` came from the prefix cache, and `output` tokens. `prefill`: prompt tokens a second, where that was
    measured.
    """

    input: float = Field(ge=1, le=1e8)
    cached: float = Field(ge=0, le=1)
    output: float = Field(ge=1, le=1e8)
    users: float = Field(ge=0.001, le=1e7)
    prefill: float | None = Field(default=None, ge=0.1, le=1e9)

    @property
    def fresh_tokens(self) -> float:
        """Prompt tokens of a request that were computed."""
        return max(1.0, self.input * (1 - self.cached))

    def is_like(self, other: "Load | None") -> bool:
        """Whether the requests have the same lengths, however many there were at once."""
        return other is not None and (self.input, self.cached, self.output) == (other.input, other.cached, other.output)


class MeasuredWith(Fact):
    """The launch that a throughput was measured with. `workers.measured` holds it against a profile.

    `hardware` is `8x h200`: GPUs of the whole node and their kind. `vllm` is the version of `/version`, or the image
    where a source names no version. `date` is that of the measurement, else of its publication. `flags` maps a flag
    to its value, null for a switch. `complete` is False where the source names some of its flags only. `flags_hash`
    is that of `workers.speed_flags`; empty where nobody took it.
    """

    hardware: str
    precision: Precision
    vllm: str
    date: str = Field(pattern=r"^\d{4}-\d{2}(-\d{2})?$")
    flags: dict[str, str | None]
    environment: dict[str, str] = Field(default_factory=dict)
    complete: bool
    flags_hash: str = ""

    @model_validator(mode="after")
    def _is_as_measured(self) -> "MeasuredWith":
        if self.flags_hash and self.flags_hash != flags_hash(self.flags, self.environment):
            raise ValueError(
                "flags or environment were changed after the measurement (flags_hash differs); measure again"
            )
        return self


class Throughput(Fact):
    """Output tokens per second of the whole node, as a range (low = high for one measured value)."""

    kind: Literal["estimate", "measured"]
    low: float = Field(ge=0.001, le=1e9)
    high: float = Field(ge=0.001, le=1e9)
    workload: str
    source: str
    measured_with: MeasuredWith | None = None
    load: Load | None = None

    @property
    def middle(self) -> float:
        """The middle of the range, tokens/s."""
        return (self.low + self.high) / 2

    @model_validator(mode="after")
    def _is_whole(self) -> "Throughput":
        if self.low > self.high:
            raise ValueError(f"low {self.low:g} is above high {self.high:g}")
        if (self.kind == "measured") != (self.measured_with is not None):
            raise ValueError("measured needs measured_with (hardware, vLLM, date, flags), an estimate has none")
        return self
