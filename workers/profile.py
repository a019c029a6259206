"""A profile: one model on one kind of hardware, with every choice that starts it and where the choice comes
from.
"""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from workers.catalog.facts import Checkpoint, Fact, Model, Precision, find_model
from workers.catalog.prices import Price
from workers.errors import ConfigError
from workers.node_shape import (
    Caching,
    ExtraFlag,
    Hardware,
    KvEvents,
    KvOffload,
    Parallel,
    Scheduling,
    Speculation,
    check_tensor_size,
)
from workers.throughput import Throughput
from workers.versions import at_least

CURRENT_IMAGE = "vllm/vllm-openai:v0.32.0"
"""The default: the newest version whose CPU build runs this project's tests."""

GUIDE_IMAGE = "vllm/vllm-openai:v0.22.0"
"""The image that the model's deployment guide names. A profile may say `vllm_image: guide`."""

NAMED_IMAGES = {"current": CURRENT_IMAGE, "guide": GUIDE_IMAGE}
LONG_CONTEXT_SWITCH = "VLLM_ALLOW_LONG_MAX_MODEL_LEN"
DISK_OFFLOAD_SINCE = "0.32.0"


def _image_of_name(given: Any) -> Any:
    return NAMED_IMAGES.get(given, given) if isinstance(given, str) else given


def _model_of_name(given: Any) -> Any:
    return find_model(given) if isinstance(given, str) else given


Variable = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
VariableText = Annotated[str, Field(pattern=r"^[^\x00]*$")]
StateType = Literal["float32", "float16", "bfloat16"]
SHORT_TYPES = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}


def _dtype_of_short(given: Any) -> Any:
    return SHORT_TYPES.get(given, given) if isinstance(given, str) else given


class Rather(Fact):
    """The profile that we would run in place of this one, and why."""

    profile: str
    reasons: tuple[str, ...] = Field(min_length=1)


class Profile(Fact):
    """One way to serve one model. Everything `plan`, `preflight`, `download`, `argv` and `launch` need."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9.-]*$")
    title: str
    role: Literal["recommended", "budget", "alternative", "on-paper", "vendor", "family", "development"]
    source: str
    notes: tuple[str, ...] = ()
    rather: Rather | None = None
    model: Annotated[Model, BeforeValidator(_model_of_name)]
    served_name: str = Field(min_length=1)
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
    kv_offload: KvOffload | None = None
    kv_events: KvEvents | None = None
    extra_flags: tuple[ExtraFlag, ...] = ()
    environment: dict[Variable, VariableText] = Field(default_factory=dict)
    prices: tuple[Price, ...] = ()
    throughput: tuple[Throughput, ...] = ()
    min_vllm: str = Field(default="0.22.0", pattern=r"^\d+(\.\d+)*$")
    vllm_image: Annotated[str, BeforeValidator(_image_of_name), Field(min_length=1)] = CURRENT_IMAGE
    min_shared_memory_gb: float = Field(default=16, ge=0, le=1e6)
    min_host_memory_gb: float = Field(default=64, ge=0, le=1e6)
    startup_seconds: float = Field(default=1800, ge=1, le=1e6)

    @property
    def checkpoint(self) -> Checkpoint:
        """The weights this profile loads."""
        return self.model.checkpoint(self.precision)

    @property
    def max_sequences(self) -> int:
        """Sequences that run at once over all data-parallel replicas."""
        return self.scheduling.max_sequences * self.parallel.data

    @property
    def offload_bytes(self) -> int:
        """RAM for offloaded keys and values, which is shared memory, in bytes."""
        return 0 if self.kv_offload is None else int(self.kv_offload.ram_gib * 2**30)

    @property
    def host_memory_gb(self) -> float:
        """RAM of each machine in decimal GB: what loading needs, and its part of the offloaded keys and values."""
        return self.min_host_memory_gb + self.offload_bytes / self.hardware.nodes / 1e9

    @property
    def shared_memory_gib(self) -> float:
        """Shared memory of each machine in GiB, offloaded keys and values included."""
        return self.min_shared_memory_gb + self.offload_bytes / self.hardware.nodes / 2**30

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
        if self.hardware.nodes > 1 and self.parallel.backend is None:
            raise ValueError("several machines need parallel.backend: mp (vLLM's --nnodes) or ray")
        if architecture.has_mamba and self.caching.prefix != self.caching.chunked_prefill:
            raise ValueError("Mamba models need prefix caching and chunked prefill both on or both off")
        if self.kv_offload is not None and not self.caching.prefix:
            raise ValueError("kv_offload needs caching.prefix: what it keeps are cached prefixes")
        if (
            self.kv_events is not None
            and self.parallel.data > 1
            and not (self.kv_events.endpoint or "").startswith("tcp")
        ):
            raise ValueError(
                "kv_events of data-parallel replicas need an endpoint tcp://*:PORT; each takes the next port"
            )
        self._check_context()
        if self.kv_offload is not None and self.kv_offload.disk and not at_least(self.min_vllm, DISK_OFFLOAD_SINCE):
            raise ValueError(f"kv_offload.disk needs min_vllm: {DISK_OFFLOAD_SINCE} or newer")
        return self

    def _check_context(self) -> None:
        """A context beyond the model's own needs a switch, and is bounded too."""
        native, longest = self.model.native_context, self.model.longest_context
        if self.max_model_len <= native:
            return
        if self.max_model_len > (longest or native):
            raise ValueError(f"max_model_len is above the model's {longest or native}")
        if self.environment.get(LONG_CONTEXT_SWITCH) != "1":
            raise ValueError(f'max_model_len above {native} needs environment: {{{LONG_CONTEXT_SWITCH}: "1"}}')
