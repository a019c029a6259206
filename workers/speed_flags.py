"""The flags and variables of vLLM that decide its speed, in one spelling, so that two launches can be compared.

A throughput holds for the flags that it was measured with. Names, ports, parsers and queue bounds do not change it
and are left out. The same flag in another spelling is the same flag: `--no-x` is `--x` off, `0.9` is `0.90`, an
underscore is a dash, JSON has no order, `nemotron_h_mtp` is an older name of `mtp`.
"""

import hashlib
import json
from collections.abc import Mapping

NEUTRAL = frozenset(
    {
        "--api-key",
        "--disable-access-log-for-endpoints",
        "--enable-auto-tool-choice",
        "--enable-prompt-tokens-details",
        "--headless",
        "--host",
        "--kv-events-config",
        "--master-addr",
        "--master-port",
        "--max-num-queued-reqs",
        "--max-num-queued-tokens",
        "--model",
        "--node-rank",
        "--port",
        "--reasoning-parser",
        "--reasoning-parser-plugin",
        "--revision",
        "--served-model-name",
        "--tool-call-parser",
        "--trust-remote-code",
    }
)
"""Flags without influence on tokens per second."""

DEFAULTS: Mapping[str, str] = {
    "--data-parallel-size": "1",
    "--decode-context-parallel-size": "1",
    "--disable-hybrid-kv-cache-manager": "off",
    "--enable-chunked-prefill": "on",
    "--enable-expert-parallel": "off",
    "--kv-cache-dtype": "auto",
    "--nnodes": "1",
    "--pipeline-parallel-size": "1",
    "--scheduling-policy": "fcfs",
}
"""What vLLM does without the flag, for hybrid models, from 0.22 to 0.32: a flag that says the same is left out."""

VARIABLES = ("CUDA_", "NCCL_", "OMP_", "PYTORCH_", "TORCH", "VLLM_")
NEUTRAL_VARIABLES = frozenset(
    {"VLLM_API_KEY", "VLLM_CACHE_ROOT", "VLLM_HOST_IP", "VLLM_LOGGING_LEVEL", "VLLM_NO_USAGE_STATS", "NCCL_DEBUG"}
)
HASH_DIGITS = 16


def speed_flags(flags: Mapping[str, str | None], environment: Mapping[str, str]) -> dict[str, str]:
    """The flags and variables that decide speed, sorted, in one spelling; a switch is `on` or `off`.

    `flags` maps a flag to its value, None for a bare switch; `environment` holds the server's variables.
    """
    found: dict[str, str] = {}
    for name, value in flags.items():
        flag, plain = _flag(name, value)
        if flag not in NEUTRAL and DEFAULTS.get(flag) != plain:
            found[flag] = plain
    for name, text in environment.items():
        if name.startswith(VARIABLES) and name not in NEUTRAL_VARIABLES:
            found[name] = str(text)
    return dict(sorted(found.items()))


def flags_hash(flags: Mapping[str, str | None], environment: Mapping[str, str]) -> str:
    """Sixteen hexadecimal digits that are equal for two launches with the same `speed_flags`."""
    text = json.dumps(speed_flags(flags, environment), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:HASH_DIGITS]


def _flag(name: str, value: str | None) -> tuple[str, str]:
    flag = "--" + name.removeprefix("--").replace("_", "-")
    if value is None and flag.startswith("--no-"):
        return "--" + flag.removeprefix("--no-"), "off"
    return flag, "on" if value is None else _plain(value)


def _plain(value: str) -> str:
    """A value in one spelling: numbers without trailing zeros, JSON sorted."""
    try:
        parsed = json.loads(value)
    except ValueError:
        return value
    if isinstance(parsed, dict):
        if parsed.get("method") == "nemotron_h_mtp":
            parsed["method"] = "mtp"
        return json.dumps(parsed, sort_keys=True)
    return f"{parsed:g}" if isinstance(parsed, float) else value.strip()
