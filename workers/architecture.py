"""Memory of one token and of one sequence, from a model's config.json.

Attention keeps a key and a value per token; a Mamba layer keeps one state per sequence that does not grow
with its length. So a hybrid model is cheap in long contexts and dear in many sequences. The sizes follow
vLLM's own count (`MambaStateShapeCalculator.mamba2_state_shape`, `MambaSpec.max_memory_usage_bytes` and
`AttentionSpec` in 0.22 and 0.32), including what a naive count misses: key/value heads are copied when
there are fewer than tensor-parallel ranks, a sequence holds several Mamba states when states are cached or
tokens are guessed ahead, and the layers that guess (MTP) keep keys and values of their own.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from workers.errors import ConfigError

DTYPE_BYTES: Mapping[str, int] = {"auto": 2, "bfloat16": 2, "float16": 2, "fp8": 1, "float32": 4}
PATTERN_LETTERS: Mapping[str, str] = {"M": "mamba", "*": "attention", "E": "moe", "-": "feed_forward"}


@dataclass(frozen=True, slots=True)
class Architecture:
    """The dimensions of a model that decide its memory. Counts, not bytes."""

    attention_layers: int
    kv_heads: int
    head_dim: int
    heads: int | None = None
    mtp_attention_layers: int = 1
    mamba_layers: int = 0
    mamba_heads: int = 0
    mamba_head_dim: int = 0
    mamba_state: int = 0
    mamba_groups: int = 0
    conv_kernel: int = 0

    @property
    def has_mamba(self) -> bool:
        """Whether a sequence holds a state that does not grow."""
        return self.mamba_layers > 0

    def kv_bytes_per_token(self, dtype: str, tensor_parallel: int, guesses: bool = False) -> int:
        """Bytes of keys and values that one token takes on the whole node; `guesses`: with multi-token prediction.

        vLLM gives every rank at least one key/value head, so 2 heads on 8 GPUs are stored 4 times over each.
        """
        stored_heads = max(self.kv_heads, tensor_parallel)
        layers = self.attention_layers + (self.mtp_attention_layers if guesses else 0)
        return 2 * layers * stored_heads * self.head_dim * DTYPE_BYTES[dtype]

    def tensor_fault(self, tensor_parallel: int) -> str | None:
        """Why the layers cannot be cut over so many ranks, as vLLM checks it when it starts; None if they can.

        Attention and Mamba heads are divided evenly. Key/value heads are divided, or each is copied to equally many
        ranks.
        """
        for count, kind in ((self.heads, "attention"), (self.mamba_heads, "Mamba")):
            if count and count % tensor_parallel:
                return f"{count} {kind} heads cannot be divided by {tensor_parallel}"
        if self.kv_heads % tensor_parallel and tensor_parallel % self.kv_heads:
            return f"{self.kv_heads} key/value heads can neither be divided by {tensor_parallel} nor copied evenly"
        return None

    def tensor_sizes(self, most: int) -> tuple[int, ...]:
        """The tensor-parallel sizes up to `most` that the architecture allows."""
        return tuple(size for size in range(1, most + 1) if self.tensor_fault(size) is None)

    def state_bytes(self, tensor_parallel: int, ssm_dtype: str = "float32", guessed_tokens: int = 0) -> int:
        """Bytes of one copy of a sequence's Mamba state, all layers: convolution window plus SSM state."""
        if not self.has_mamba:
            return 0
        groups = self._stored_groups(tensor_parallel)
        inner = self.mamba_heads * self.mamba_head_dim
        window = self.conv_kernel - 1 + guessed_tokens
        convolution = (inner + 2 * groups * self.mamba_state) * window * DTYPE_BYTES["bfloat16"]
        ssm = inner * self.mamba_state * DTYPE_BYTES[ssm_dtype]
        return self.mamba_layers * (convolution + ssm)

    def _stored_groups(self, tensor_parallel: int) -> int:
        return self.mamba_groups if self.mamba_groups % tensor_parallel == 0 else tensor_parallel

    @staticmethod
    def state_copies(prefix_caching: bool, guessed_tokens: int) -> int:
        """States that a running sequence holds: one, one more to cache prefixes (mode `align`), one per
        guess.
        """
        return (2 if prefix_caching else 1) + guessed_tokens


def read_architecture(config: Mapping[str, Any]) -> Architecture:
    """Read the dimensions out of a config.json (or the excerpt of one in the catalogue).

    Raises ConfigError where a needed key is missing. Understands Nemotron-H (`hybrid_override_pattern` or
    `layers_block_type`), NAS models (`block_configs`) and plain transformers.
    """
    text = config.get("text_config", config) if isinstance(config, Mapping) else None
    if not isinstance(text, Mapping):
        raise ConfigError("config.json is not a JSON object; cannot compute its memory")
    try:
        layers = _count_layers(text)
        heads = text.get("num_attention_heads")
        architecture = Architecture(
            attention_layers=layers["attention"],
            kv_heads=_kv_heads(text),
            head_dim=int(text.get("head_dim") or text["hidden_size"] // text["num_attention_heads"]),
            heads=None if heads is None else int(heads),
            mtp_attention_layers=_mtp_attention_layers(text),
            **_mamba_sizes(text, layers["mamba"]),
        )
    except KeyError as missing:
        raise ConfigError(f"config.json has no {missing}; cannot compute its memory") from missing
    except (TypeError, ValueError, AttributeError, ZeroDivisionError) as wrong:
        raise ConfigError(f"config.json has a value of another kind than expected ({wrong})") from wrong
    if architecture.state_bytes(1) + architecture.kv_bytes_per_token("auto", 1) <= 0 or architecture.kv_heads < 1:
        raise ConfigError("config.json has no layer that keeps anything of a token: its counts are not positive")
    return architecture


def _mamba_sizes(config: Mapping[str, Any], layers: int) -> dict[str, int]:
    if layers == 0:
        return {}
    return {
        "mamba_layers": layers,
        "mamba_heads": int(config["mamba_num_heads"]),
        "mamba_head_dim": int(config["mamba_head_dim"]),
        "mamba_state": int(config["ssm_state_size"]),
        "mamba_groups": int(config["n_groups"]),
        "conv_kernel": int(config["conv_kernel"]),
    }


def _mtp_attention_layers(config: Mapping[str, Any]) -> int:
    """Attention layers of one prediction module (vLLM runs one, again for each guess): 1 where nothing is said."""
    layers = config.get("mtp_layers_block_type") or config.get("mtp_hybrid_override_pattern") or "*"
    return sum(layer in ("*", "attention") for layer in layers)


def _kv_heads(config: Mapping[str, Any]) -> int:
    if config.get("num_key_value_heads"):
        return int(config["num_key_value_heads"])
    for block in config.get("block_configs", []):
        per_group = block["attention"].get("n_heads_in_group")
        if per_group:
            return int(config["num_attention_heads"] // per_group)
    return int(config["num_attention_heads"])


def _count_layers(config: Mapping[str, Any]) -> Counter[str]:
    if "layer_counts" in config:
        return Counter({str(kind): int(count) for kind, count in config["layer_counts"].items()})
    if config.get("hybrid_override_pattern"):
        return Counter(PATTERN_LETTERS[letter] for letter in config["hybrid_override_pattern"])
    if config.get("layers_block_type"):
        return Counter(str(kind) for kind in config["layers_block_type"])
    if config.get("block_configs"):
        return Counter("none" if b["attention"].get("no_op") else "attention" for b in config["block_configs"])
    return Counter({"attention": int(config["num_hidden_layers"])})
