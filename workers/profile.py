"""A profile: one model on one kind of hardware, with every choice that starts it and where the choice comes
from.
"""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from workers.architecture import Architecture
from workers.catalog.facts import (
    Checkpoint,
    Fact,
    Gpu,
    Model,
    Precision,
    find_gpu,
    find_model,
)
from workers.catalog.prices import Price
from workers.errors import ConfigError


def _gpu_of_name(given: Any) -> Any:
    return find_gpu(given) if isinstance(given, str) else given


def _model_of_name(given: Any) -> Any:
    return find_model(given) if isinstance(given, str) else given


StateType = Literal["float32", "float16", "bfloat16"]
SHORT_TYPES = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}


def _dtype_of_short(given: Any) -> Any:
    return SHORT_TYPES.get(given, given) if isinstance(given, str) else given


class Hardware(Fact):
    """The machines of one node: `nodes` machines with `gpus_per_node` GPUs each. `gpu` is a name or a whole
    GPU.
    """

    gpu: Annotated[Gpu, BeforeValidator(_gpu_of_name)]
    gpus_per_node: int = Field(ge=1)
    nodes: int = Field(default=1, ge=1)

    @property
    def gpus(self) -> int:
        """GPUs over all machines."""
        return self.gpus_per_node * self.nodes

    @property
    def memory_gb(self) -> float:
        """Memory of all GPUs in decimal GB."""
        return self.gpus * self.gpu.memory_gb


class Parallel(Fact):
    """How the model is cut: tensor ranks x pipeline stages, experts spread or not, and what joins the
    machines.
    """

    tensor: int = Field(ge=1)
    pipeline: int = Field(default=1, ge=1)
    expert: bool = False
    expert_reason: str = ""
    backend: Literal["mp", "ray"] | None = None

    @property
    def gpus(self) -> int:
        """GPUs this cut needs."""
        return self.tensor * self.pipeline


def check_tensor_size(architecture: Architecture, tensor: int, most: int) -> None:
    """Raises ValueError with the possible sizes (up to `most`, or 8) where no layer can be cut over `tensor` GPUs."""
    fault = architecture.tensor_fault(tensor)
    if fault is not None:
        possible = ", ".join(map(str, architecture.tensor_sizes(max(most, tensor, 8))))
        raise ValueError(f"tensor parallelism over {tensor} GPUs: {fault}; possible sizes: {possible}")


class Caching(Fact):
    """Prefix caching and chunked prefill. On Mamba models both or neither: vLLM's `align` mode needs the
    chunks.
    """

    prefix: bool
    chunked_prefill: bool
    reason: str


class Scheduling(Fact):
    """How many sequences run, how many wait, in which order. None leaves vLLM's own default."""

    policy: Literal["fcfs", "priority"] = "fcfs"
    max_sequences: int = Field(ge=1)
    max_batched_tokens: int | None = Field(default=None, ge=1)
    max_queued_requests: int | None = Field(default=None, ge=1)
    max_queued_tokens: int | None = Field(default=None, ge=1)


class Speculation(Fact):
    """Multi-token prediction: the method's name in vLLM and how many tokens are guessed ahead."""

    method: str
    tokens: int = Field(ge=1)


class Load(Fact):
    """What a throughput was measured under: `users` requests at once, each `input` prompt tokens, of which the share
    `cached` came from the prefix cache, and `output` tokens. `prefill`: prompt tokens a second, where that was
    measured.
    """

    input: float = Field(ge=1)
    cached: float = Field(ge=0, le=1)
    output: float = Field(ge=1)
    users: float = Field(gt=0)
    prefill: float | None = Field(default=None, gt=0)

    @property
    def fresh_tokens(self) -> float:
        """Prompt tokens of a request that were computed."""
        return max(1.0, self.input * (1 - self.cached))

    def is_like(self, other: "Load | None") -> bool:
        """Whether the requests have the same lengths, however many there were at once."""
        return other is not None and (self.input, self.cached, self.output) == (other.input, other.cached, other.output)


class Throughput(Fact):
    """Output tokens per second of the whole node, as a range (low = high for one measured value)."""

    kind: Literal["estimate", "measured"]
    low: float = Field(gt=0)
    high: float = Field(gt=0)
    workload: str
    source: str
    load: Load | None = None
    hardware: str = ""

    @property
    def middle(self) -> float:
        """The middle of the range, tokens/s."""
        return (self.low + self.high) / 2


class ExtraFlag(Fact):
    """A vLLM flag beyond the typed ones. `value` None is a bare switch; `otherwise` says what its absence
    costs.
    """

    flag: str = Field(pattern=r"^--[a-z0-9][a-z0-9.-]*$")
    value: str | None = None
    why: str
    otherwise: str = ""


class Profile(Fact):
    """One way to serve one model. Everything `plan`, `preflight`, `download`, `argv` and `launch` need."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9.-]*$")
    title: str
    role: Literal["recommended", "budget", "alternative", "on-paper", "vendor", "family", "development"]
    source: str
    notes: tuple[str, ...] = ()
    model: Annotated[Model, BeforeValidator(_model_of_name)]
    served_name: str
    precision: Precision
    revision: str = "main"
    hardware: Hardware
    parallel: Parallel
    gpu_memory_utilization: float = Field(gt=0, le=1)
    utilization_reason: str
    max_model_len: int = Field(ge=256)
    kv_cache_dtype: Literal["auto", "fp8"] = "auto"
    ssm_cache_dtype: Annotated[StateType, BeforeValidator(_dtype_of_short)] | None = None
    trust_remote_code: bool = True
    reasoning_parser: str | None
    tool_parser: str | None
    caching: Caching
    scheduling: Scheduling
    speculation: Speculation | None = None
    extra_flags: tuple[ExtraFlag, ...] = ()
    environment: dict[str, str] = Field(default_factory=dict)
    prices: tuple[Price, ...] = ()
    throughput: tuple[Throughput, ...] = ()
    min_vllm: str = "0.22.0"
    vllm_image: str = "vllm/vllm-openai:v0.22.0"
    min_shared_memory_gb: float = 16
    min_host_memory_gb: float = 64
    startup_seconds: float = 1800

    @property
    def checkpoint(self) -> Checkpoint:
        """The weights this profile loads."""
        return self.model.checkpoint(self.precision)

    @property
    def min_cuda(self) -> str | None:
        """The CUDA version that the GPU needs at least; None on a CPU."""
        return self.hardware.gpu.min_cuda

    @model_validator(mode="after")
    def _hangs_together(self) -> "Profile":
        if self.parallel.gpus != self.hardware.gpus:
            raise ValueError(f"parallel uses {self.parallel.gpus} GPUs, hardware has {self.hardware.gpus}")
        try:
            architecture = self.model.architecture()
        except ConfigError as error:
            raise ValueError(f"model.config: {error}") from error
        check_tensor_size(architecture, self.parallel.tensor, self.hardware.gpus_per_node)
        if self.hardware.nodes > 1 and self.parallel.backend != "ray":
            raise ValueError("several machines need parallel.backend: ray")
        if architecture.has_mamba and self.caching.prefix != self.caching.chunked_prefill:
            raise ValueError("Mamba models need prefix caching and chunked prefill both on or both off")
        if self.max_model_len > self.model.native_context:
            raise ValueError(f"max_model_len is above the model's {self.model.native_context}")
        return self
