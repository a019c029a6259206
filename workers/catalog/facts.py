"""Typed facts about GPUs and models, and how they are read."""

from collections.abc import Mapping
from importlib.resources import files
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from workers.architecture import Architecture, read_architecture
from workers.errors import ConfigError

Precision = Literal["bf16", "fp8", "nvfp4"]
BYTES_PER_PARAMETER: Mapping[Precision, float] = {"bf16": 2.0, "fp8": 1.0, "nvfp4": 0.5}


class Fact(BaseModel):
    """Base of everything read from YAML: frozen, and a misspelt key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Gpu(Fact):
    """One kind of GPU. `memory_gb` is decimal GB; `nvlink_links` is the n of NV<n> on an SXM board."""

    name: str
    title: str
    memory_gb: float
    family: Literal["ampere", "hopper", "blackwell", "cpu"]
    form: Literal["sxm", "pcie", "none"]
    nvlink_links: int
    min_cuda: str | None
    min_driver: str | None
    fp8_compute: bool
    fp4_compute: bool


class Fallback(Fact):
    """What to do where a repository does not exist: another precision, quantised while it is loaded."""

    precision: Precision
    quantization: str


class Checkpoint(Fact):
    """A model's weights at one precision. Sizes in decimal GB, None where nobody has told us."""

    precision: Precision
    repository: str
    size_gb: float | None = None
    vendor_minimum_gb: float | None = None
    may_be_missing: bool = False
    local: bool = False
    fallback: Fallback | None = None
    note: str = ""


class Model(Fact):
    """A model: its size in billions of parameters, its checkpoints, and the keys of its config.json."""

    name: str
    title: str
    parameters_billion: float
    active_billion: float
    native_context: int
    license: str
    checkpoints: tuple[Checkpoint, ...]
    config: dict[str, Any]

    def checkpoint(self, precision: Precision) -> Checkpoint:
        """The checkpoint of that precision. Raises ConfigError where there is none."""
        for checkpoint in self.checkpoints:
            if checkpoint.precision == precision:
                return checkpoint
        raise ConfigError(f"{self.name} has no {precision} checkpoint in the catalogue")

    def architecture(self) -> Architecture:
        """The dimensions that decide memory."""
        return read_architecture(self.config)


def read_yaml(text: str) -> Any:
    """A YAML document as plain data, by libyaml where it is there. Raises yaml.YAMLError."""
    return yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))


def parse(kind: Any, document: Any, where: str) -> Any:
    """Validate a YAML document as `kind`. Raises ConfigError with the file's name and every wrong field."""
    try:
        return TypeAdapter(kind).validate_python(document)
    except ValidationError as error:
        lines = [f"  {'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()]
        raise ConfigError(f"{where} is not valid:\n" + "\n".join(lines)) from error


def load_gpus() -> tuple[Gpu, ...]:
    """All GPUs of hardware.yaml."""
    source = files("workers.catalog") / "hardware.yaml"
    gpus: tuple[Gpu, ...] = parse(tuple[Gpu, ...], read_yaml(source.read_text()), "hardware.yaml")
    return gpus


def model_names() -> list[str]:
    """The names of all models of catalog/models."""
    folder = files("workers.catalog") / "models"
    return sorted(f.name.removesuffix(".yaml") for f in folder.iterdir() if f.name.endswith(".yaml"))


def find_gpu(name: str) -> Gpu:
    """The GPU of that name. Raises ConfigError with the known names."""
    known = {gpu.name: gpu for gpu in load_gpus()}
    if name.lower() not in known:
        raise ConfigError(f"unknown GPU {name!r}; known: {', '.join(known)} (workers/catalog/hardware.yaml)")
    return known[name.lower()]


def find_model(name: str) -> Model:
    """The model of that name, or of a unique beginning of it. Raises ConfigError with the known names."""
    names = model_names()
    hits = [n for n in names if n == name] or [n for n in names if n.startswith(name)]
    if len(hits) != 1:
        raise ConfigError(f"{name!r} names {len(hits)} models; known: {', '.join(names)}")
    source = files("workers.catalog") / "models" / f"{hits[0]}.yaml"
    model: Model = parse(Model, read_yaml(source.read_text()), source.name)
    return model
