"""Parts of a profile: the machines of a node, how the model is cut over them, what is cached, how much runs at once."""

import re
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from workers.architecture import Architecture
from workers.catalog.facts import Fact, Gpu, find_gpu


def _gpu_of_name(given: Any) -> Any:
    return find_gpu(given) if isinstance(given, str) else given


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

    ram_gib: float = Field(gt=0, le=1e6)
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
    max_sequences: int = Field(ge=1, le=1_000_000)
    max_batched_tokens: int | None = Field(default=None, ge=1)
    max_queued_requests: int | None = Field(default=None, ge=1)
    max_queued_tokens: int | None = Field(default=None, ge=1)


class Speculation(Fact):
    """Multi-token prediction: the method's name in vLLM and how many tokens are guessed ahead."""

    method: str
    tokens: int = Field(ge=1)


class ExtraFlag(Fact):
    """A vLLM flag beyond the typed ones. `value` None is a bare switch; `otherwise` says what its absence
    costs.
    """

    flag: str = Field(pattern=r"^--[a-z0-9][a-z0-9.-]*$")
    value: str | None = None
    why: str
    otherwise: str = ""
