"""A profile: one model on one kind of hardware, with every choice that starts it and where the choice comes
from.
"""

import re
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
from workers.speed_flags import flags_hash
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
    """How the model is cut: tensor ranks x pipeline stages x data-parallel replicas, experts spread or not.

    `backend` joins several machines: `mp` is vLLM's own (`--nnodes`), `ray` needs a Ray cluster.
    """

    tensor: int = Field(ge=1)
    pipeline: int = Field(default=1, ge=1)
    data: int = Field(default=1, ge=1)
    expert: bool = False
    expert_reason: str = ""
    backend: Literal["mp", "ray"] | None = None

    @property
    def gpus(self) -> int:
        """GPUs this cut needs."""
        return self.tensor * self.pipeline * self.data


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


class KvOffload(Fact):
    """Keys and values that leave the GPUs are kept in RAM, and with `disk` on an NVMe disk behind it.

    `ram_gib` is the RAM of all ranks together, which vLLM takes as shared memory (/dev/shm). `disk` is a folder; vLLM
    puts no bound on what it keeps there.
    """

    ram_gib: float = Field(gt=0, allow_inf_nan=False)
    disk: str | None = Field(default=None, pattern=r"^/")
    reason: str


class KvEvents(Fact):
    """vLLM publishes which prefixes it caches (ZeroMQ), for routers that follow them. The events hold prompts' tokens.

    Without `endpoint` only this machine can read them. vLLM listens at `tcp://*:5557`, which is every address, and
    connects to an endpoint that names a host.
    """

    endpoint: str | None = Field(default=None, pattern=r"^(tcp://[^\s/]+:\d{1,5}|ipc://\S+)$")
    reason: str

    @property
    def port(self) -> int | None:
        """The TCP port at which vLLM listens; None where it listens at none."""
        found = re.fullmatch(r"tcp://.*[*].*:(\d+)", self.endpoint or "")
        return int(found.group(1)) if found else None


class Scheduling(Fact):
    """How many sequences run in each data-parallel replica, how many wait, in which order. None: vLLM's default."""

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
    low: float = Field(gt=0)
    high: float = Field(gt=0)
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


class ExtraFlag(Fact):
    """A vLLM flag beyond the typed ones. `value` None is a bare switch; `otherwise` says what its absence
    costs.
    """

    flag: str = Field(pattern=r"^--[a-z0-9][a-z0-9.-]*$")
    value: str | None = None
    why: str
    otherwise: str = ""


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
    environment: dict[str, str] = Field(default_factory=dict)
    prices: tuple[Price, ...] = ()
    throughput: tuple[Throughput, ...] = ()
    min_vllm: str = "0.22.0"
    vllm_image: Annotated[str, BeforeValidator(_image_of_name)] = CURRENT_IMAGE
    min_shared_memory_gb: float = 16
    min_host_memory_gb: float = 64
    startup_seconds: float = 1800

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
