"""The `vllm serve` command of a profile, each flag with its reason.

The first flags are the recommended command of the model's deployment guide, in its order; the others make
the node fit behind the gateway. A flag that older versions lack says what happens without it.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from workers.profile import Profile

VLLM_SERVE = ("vllm", "serve")
DEFAULT_PORT = 8000
MASTER_PORT = 29501
"""vLLM's own default for `--master-port`, where the machines of one node meet."""

RAY_PORT = 6379
"""Ray's own default, where the head listens for the other machines."""

HEAD_ADDRESS = "HEAD"
"""Stands in a printed command for the address of the machine with rank 0."""


@dataclass(frozen=True, slots=True)
class Flag:
    """One flag: its name, its value (None for a switch), why it is there, and what its absence means.

    `otherwise` is empty for a flag that the profile cannot do without.
    """

    name: str
    value: str | None
    why: str
    otherwise: str = ""

    @property
    def words(self) -> tuple[str, ...]:
        """As words of a command line."""
        return (self.name,) if self.value is None else (self.name, self.value)


@dataclass(frozen=True, slots=True)
class Weights:
    """What vLLM loads: a hub repository or a folder, and the quantisation applied while loading, if any."""

    model: str
    revision: str = "main"
    quantization: str | None = None
    told: str = ""


@dataclass(frozen=True, slots=True)
class Binding:
    """Where the server listens. Not an address reached from outside: /metrics and /pause are open."""

    host: str = "127.0.0.1"
    port: int = DEFAULT_PORT


@dataclass(frozen=True, slots=True)
class Machine:
    """One machine of a node that vLLM itself joins (`parallel.backend: mp`): its rank, and rank 0's address."""

    rank: int = 0
    head: str = HEAD_ADDRESS


def weights_of(profile: Profile) -> Weights:
    """The weights where nothing was downloaded yet: the first repository of the profile's checkpoint."""
    return Weights(profile.checkpoint.repository, profile.revision)


def local_weights(folder: Path, quantization: str | None = None) -> Weights:
    """Weights that lie on this machine."""
    told = "" if quantization is None else f"the weights in the folder are BF16 and are quantised to {quantization}"
    return Weights(str(folder), quantization=quantization, told=told)


def flags_of(profile: Profile, weights: Weights, binding: Binding, machine: Machine | None = None) -> tuple[Flag, ...]:
    """All flags of a profile, in the order of the command line. `machine` matters to a node of several only."""
    return (
        *_recipe(profile, weights, binding),
        *_machines(profile, machine or Machine()),
        *_identity(profile, weights, binding),
        *_parsers(profile),
        *_caching(profile),
        *_scheduling(profile),
        *_precision(profile),
        *_offloading(profile, binding),
        *(Flag(extra.flag, extra.value, extra.why, extra.otherwise) for extra in profile.extra_flags),
    )


def command_line(weights: Weights, flags: Sequence[Flag], program: Sequence[str] = VLLM_SERVE) -> list[str]:
    """The whole command. `vllm serve` takes the model as a word, the bare API server module as --model."""
    model = [weights.model] if program[-1] == "serve" else ["--model", weights.model]
    return [*program, *model, *(word for flag in flags for word in flag.words)]


def _recipe(profile: Profile, weights: Weights, binding: Binding) -> Iterator[Flag]:
    cut = profile.parallel
    yield Flag("--tensor-parallel-size", str(cut.tensor), f"each layer is cut over {cut.tensor} GPUs")
    if cut.pipeline > 1:
        yield Flag("--pipeline-parallel-size", str(cut.pipeline), "layers are cut into stages, one per machine")
    if cut.data > 1:
        why = f"{cut.data} replicas share the requests; each has max-num-seqs of its own"
        yield Flag("--data-parallel-size", str(cut.data), why)
    if cut.backend is not None:
        yield Flag("--distributed-executor-backend", cut.backend, "starts the ranks on all machines")
    if cut.expert:
        yield Flag("--enable-expert-parallel", None, cut.expert_reason)
    share = f"{profile.gpu_memory_utilization:.2f}"
    yield Flag("--gpu-memory-utilization", share, profile.utilization_reason)
    yield Flag("--max-model-len", str(profile.max_model_len), "longest prompt plus answer, in tokens")
    if profile.trust_remote_code:
        yield Flag("--trust-remote-code", None, "the checkpoint brings code of its own; pin --revision")
    if weights.quantization is not None:
        yield Flag("--quantization", weights.quantization, weights.told or "quantised while it is loaded")
    yield Flag("--port", str(binding.port), "the node's one port")


def _machines(profile: Profile, machine: Machine) -> Iterator[Flag]:
    """vLLM's own way over several machines, without Ray: each starts its part, rank 0 serves."""
    if profile.hardware.nodes == 1 or profile.parallel.backend != "mp":
        return
    yield Flag("--nnodes", str(profile.hardware.nodes), "machines of this node")
    yield Flag("--node-rank", str(machine.rank), "this machine; rank 0 serves")
    yield Flag("--master-addr", machine.head, "where rank 0 is reached, on the fast network")
    yield Flag("--master-port", str(MASTER_PORT), "where the machines meet")
    if machine.rank > 0:
        yield Flag("--headless", None, "no server here, the requests come through rank 0")


def _identity(profile: Profile, weights: Weights, binding: Binding) -> Iterator[Flag]:
    yield Flag("--host", binding.host, "a private address: nodes must not be reachable from outside")
    yield Flag("--served-model-name", profile.served_name, "the name that the gateway routes by")
    if weights.revision != "main":
        yield Flag("--revision", weights.revision, "the commit of the repository that was checked")


def _parsers(profile: Profile) -> Iterator[Flag]:
    if profile.reasoning_parser:
        why = "splits thinking from the answer; without it vLLM refuses thinking budgets"
        yield Flag("--reasoning-parser", profile.reasoning_parser, why)
    if profile.tool_parser:
        yield Flag("--enable-auto-tool-choice", None, "tool calls are answered 400 without it")
        yield Flag("--tool-call-parser", profile.tool_parser, "the model's way of writing tool calls")


def _caching(profile: Profile) -> Iterator[Flag]:
    caching, mamba = profile.caching, profile.model.architecture().has_mamba
    name = "--enable-prefix-caching" if caching.prefix else "--no-enable-prefix-caching"
    yield Flag(name, None, caching.reason)
    name = "--enable-chunked-prefill" if caching.chunked_prefill else "--no-enable-chunked-prefill"
    yield Flag(name, None, caching.reason)
    if mamba and caching.prefix:
        why = "caches the Mamba state at block ends; newer versions have no other mode with prefix caching"
        yield Flag("--mamba-cache-mode", "align", why)
    why = "usage.prompt_tokens_details shows the gateway what its routing hits"
    yield Flag("--enable-prompt-tokens-details", None, why, "cached tokens are missing in usage")


def _scheduling(profile: Profile) -> Iterator[Flag]:
    plan = profile.scheduling
    yield Flag("--max-num-seqs", str(plan.max_sequences), "sequences that run at once")
    if plan.max_batched_tokens is not None:
        why = "tokens of one step; larger prefills faster and takes more memory"
        yield Flag("--max-num-batched-tokens", str(plan.max_batched_tokens), why)
    if plan.policy != "fcfs":
        yield Flag("--scheduling-policy", plan.policy, "lets the gateway rank requests")
    without = "vLLM's queue has no bound; the gateway's leases (max_concurrency) bound it instead"
    if plan.max_queued_requests is not None:
        why = "running and waiting; more are answered 503 before anything is sent, safe to try elsewhere"
        yield Flag("--max-num-queued-reqs", str(plan.max_queued_requests), why, without)
    if plan.max_queued_tokens is not None:
        why = "bounds the time to first token by the prompts that wait"
        yield Flag("--max-num-queued-tokens", str(plan.max_queued_tokens), why, without)


def _offloading(profile: Profile, binding: Binding) -> Iterator[Flag]:
    offload = profile.kv_offload
    if offload is not None and offload.disk is None:
        why = f"GiB of RAM over all ranks: {offload.reason}"
        yield Flag("--kv-offloading-size", f"{offload.ram_gib:g}", why)
    elif offload is not None:
        tiers = [{"type": "fs", "root_dir": offload.disk}]
        extra = {
            "spec_name": "TieringOffloadingSpec",
            "cpu_bytes_to_use": profile.offload_bytes,
            "secondary_tiers": tiers,
        }
        connector = {"kv_connector": "OffloadingConnector", "kv_role": "kv_both", "kv_connector_extra_config": extra}
        yield Flag("--kv-transfer-config", json.dumps(connector), offload.reason)
    if profile.kv_events is not None:
        endpoint = profile.kv_events.endpoint or f"ipc:///tmp/fleetgate-kv-events-{binding.port}"
        value = {"enable_kv_cache_events": True, "publisher": "zmq", "endpoint": endpoint}
        yield Flag("--kv-events-config", json.dumps(value), profile.kv_events.reason)


def _precision(profile: Profile) -> Iterator[Flag]:
    if profile.kv_cache_dtype != "auto":
        yield Flag("--kv-cache-dtype", profile.kv_cache_dtype, "half the memory of 16 bit keys and values")
    if profile.ssm_cache_dtype is not None:
        yield Flag("--mamba-ssm-cache-dtype", profile.ssm_cache_dtype, f"as in {profile.source}")
    if profile.speculation is not None:
        guess = profile.speculation
        value = json.dumps({"method": guess.method, "num_speculative_tokens": guess.tokens})
        yield Flag("--speculative-config", value, f"the model guesses {guess.tokens} tokens ahead (MTP)")
