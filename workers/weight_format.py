"""Which precision the weights in a folder have, read out of what lies beside them.

vLLM decides by `quantization_config` in config.json, else by hf_quant_config.json (ModelOpt's own file); so does this.
Formats known: ModelOpt (`quant_algo` FP8, NVFP4, or MIXED_PRECISION with an algorithm per layer), compressed-tensors
(`config_groups` with bits and type), `fp8` and `fbgemm_fp8`. No quantisation at all means BF16.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workers.catalog.facts import Model, Precision, find_model, model_names
from workers.errors import DownloadFailed

CONFIG = "config.json"
MODELOPT = "hf_quant_config.json"
LARGEST_CONFIG_BYTES = 16_000_000
FP8_METHODS = frozenset({"fp8", "fbgemm_fp8", "ptpc_fp8"})
SIZES = ("hidden_size", "num_hidden_layers")


@dataclass(frozen=True, slots=True)
class WeightFormat:
    """The precision in a folder, None where it is none that profiles have; `told` names file and key that say so."""

    precision: Precision | None
    told: str


def read_weight_format(folder: Path) -> WeightFormat | None:
    """The format of the weights in `folder`; None where no config.json says anything. Raises DownloadFailed."""
    config = _read(folder / CONFIG)
    if config is None or not ("model_type" in config or "architectures" in config):
        return None
    quantization = config.get("quantization_config")
    if quantization is None and isinstance(config.get("text_config"), dict):
        quantization = config["text_config"].get("quantization_config")
    where = f"{CONFIG}: quantization_config"
    if quantization is None:
        quantization, where = (_read(folder / MODELOPT) or {}).get("quantization"), f"{MODELOPT}: quantization"
    if quantization is None:
        return WeightFormat("bf16", f"{CONFIG} has no quantization_config")
    if not isinstance(quantization, dict):
        raise DownloadFailed(f"{folder}: {where} is {type(quantization).__name__}, expected a mapping")
    algorithms = sorted(set(_algorithms(quantization)))
    told = f"{where} says {', '.join(algorithms) or 'nothing that is known'}"
    return WeightFormat(_precision(algorithms), told)


def find_other_model(folder: Path, model: Model) -> str | None:
    """Which other model of the catalogue lies in `folder`, None if none does.

    The catalogue's sizes are excerpts of what was published. So weights that match no model at all are not refused.
    """
    config = _read(folder / CONFIG) or {}
    text = config.get("text_config")
    seen: Mapping[str, Any] = text if isinstance(text, dict) else config
    sizes = [seen.get(key) for key in SIZES]
    if None in sizes or sizes == [model.config.get(key) for key in SIZES]:
        return None
    for name in model_names():
        other = find_model(name)
        if sizes == [other.config.get(key) for key in SIZES]:
            told = ", ".join(f"{key} {size}" for key, size in zip(SIZES, sizes, strict=True))
            return f"{CONFIG} has {told}, as {other.title} has"
    return None


def _algorithms(quantization: Mapping[str, Any]) -> Iterator[str]:
    """The algorithms that a quantisation names, in capitals: FP8, NVFP4, or another's name."""
    method = str(quantization.get("quant_method", "")).lower()
    named = str(quantization.get("quant_algo") or "").upper()
    if named == "MIXED_PRECISION":
        layers = quantization.get("quantized_layers")
        for layer in layers.values() if isinstance(layers, dict) else ():
            if isinstance(layer, dict) and layer.get("quant_algo"):
                yield str(layer["quant_algo"]).upper()
    elif named:
        yield named
    groups = quantization.get("config_groups")
    for group in groups.values() if isinstance(groups, dict) else ():
        weights = group.get("weights") if isinstance(group, dict) else None
        if isinstance(weights, dict) and named in ("", "MIXED_PRECISION"):
            yield _by_bits(weights)
    if method in FP8_METHODS:
        yield "FP8"
    elif method == "modelopt_fp4":
        yield "NVFP4"
    elif method and not named and not isinstance(groups, dict):
        yield method.upper()


def _by_bits(weights: Mapping[str, Any]) -> str:
    kind, bits = str(weights.get("type", "int")).lower(), str(weights.get("num_bits"))
    return {("float", "8"): "FP8", ("float", "4"): "NVFP4"}.get((kind, bits), f"{kind.upper()}{bits}")


def _precision(algorithms: list[str]) -> Precision | None:
    """NVFP4 checkpoints keep some layers in FP8, so one NVFP4 layer decides."""
    if any("NVFP4" in name for name in algorithms):
        return "nvfp4"
    if algorithms and all(name.startswith("FP8") for name in algorithms):
        return "fp8"
    return None


def _read(file: Path) -> dict[str, Any] | None:
    """A JSON mapping, None where there is no file. Raises DownloadFailed where it is something else."""
    try:
        if not file.is_file():
            return None
        if file.stat().st_size > LARGEST_CONFIG_BYTES:
            raise DownloadFailed(f"{file} has {file.stat().st_size:,} bytes: not the configuration of a model")
        document = json.loads(file.read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise DownloadFailed(f"cannot read {file}: {error}; download it again") from error
    if not isinstance(document, dict):
        raise DownloadFailed(f"{file} is no JSON object; download it again")
    return document
