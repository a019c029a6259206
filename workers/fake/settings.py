"""What one fake node is set to: its model, its speed, its size, its version and its manners."""

from dataclasses import dataclass
from typing import Literal

from workers.fake.faults import Fault

Version = Literal["vllm-0.22", "vllm-0.32", "vllm-0.33"]
BudgetManners = Literal["obey", "disobey", "absent"]


@dataclass(frozen=True, slots=True)
class FakeSettings:
    """Settings of a fake node. Rates of 0 mean: as fast as possible.

    Units: rates in tokens per second, lengths in tokens, `capacity` in blocks of `block_size` tokens,
    `slow_start` in seconds.
    """

    models: tuple[str, ...] = ("nemotron-3-ultra",)
    version: Version = "vllm-0.32"
    host: str = "127.0.0.1"
    port: int = 0
    api_key: str | None = None
    max_model_len: int = 32768
    # Speed and size
    rate: float = 0.0
    prefill_rate: float = 0.0
    max_num_seqs: int = 1024
    tokens_per_event: int = 1
    block_size: int = 16
    capacity: int = 65536
    # The text: how long a thought and an answer are, unless the prompt asks otherwise
    thinking_tokens: int = 24
    answer_tokens: int = 16
    # Manners
    budget: BudgetManners = "obey"
    tool_parser: bool = True
    reasoning_field: Literal["reasoning", "reasoning_content"] = "reasoning"
    reasoning_parser: bool = True
    prompt_tokens_details: bool = True
    responses_store: bool = True
    pooling: bool = False
    slow_start: float = 0.0
    faults: tuple[Fault, ...] = ()

    @property
    def is_032(self) -> bool:
        """Whether the node speaks as vLLM 0.32 and later do, and not as 0.22."""
        return self.version != "vllm-0.22"

    @property
    def is_033(self) -> bool:
        """Whether the node speaks as vLLM 0.33 does."""
        return self.version == "vllm-0.33"

    @property
    def vllm_version(self) -> str:
        """What `/version` says."""
        return f"{self.version.removeprefix('vllm-')}.0"

    @property
    def fingerprint(self) -> str:
        """`system_fingerprint` of every answer."""
        return f"vllm-{self.vllm_version}-fa4e0de0"
