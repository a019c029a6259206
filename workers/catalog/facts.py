"""Typed facts about GPUs and models, and how they are read."""

import functools
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from workers.architecture import Architecture, read_architecture
from workers.errors import ConfigError, problems_of

Precision = Literal["bf16", "fp8", "nvfp4"]
BYTES_PER_PARAMETER: Mapping[Precision, float] = {"bf16": 2.0, "fp8": 1.0, "nvfp4": 0.5}

LONGEST_FILE = 16 << 20
"""Bytes of a YAML or JSON file that is read at all."""


class Fact(BaseModel):
    """Base of everything read from YAML: frozen, and a misspelt key, `.inf` or `.nan` is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Gpu(Fact):
    """One kind of GPU. `memory_gb` is what the vendor sells, `nvml_gb` what NVML counts, both in decimal GB.

    `nvlink_links` is the n of NV<n> on an SXM board. `bf16_tflops` is the data sheet's figure without sparsity.
    """

    name: str
    title: str
    memory_gb: float = Field(gt=0, le=1e5)
    nvml_gb: float | None = Field(default=None, gt=0, le=1e5)
    family: Literal["ampere", "hopper", "blackwell", "cpu"]
    form: Literal["sxm", "pcie", "none"]
    nvlink_links: int
    min_cuda: str | None
    min_driver: str | None
    fp8_compute: bool
    fp4_compute: bool
    bf16_tflops: float | None = Field(default=None, gt=0, le=1e6)


class Fallback(Fact):
    """What to do where a repository does not exist: another precision, quantised while it is loaded."""

    precision: Precision
    quantization: str


class ListedNode(Fact):
    """A node that a vendor lists for a checkpoint: `gpus` of one kind, and where it is listed."""

    gpu: str
    gpus: int = Field(ge=1)
    source: str


class Checkpoint(Fact):
    """A model's weights at one precision. Sizes in decimal GB, None where nobody has told us.

    `size_gb` counts the tensors; `vendor_minimum_gb` is the GPU memory that a published recipe asks for. `also` are
    repositories that serve as well, tried in order where the first is not there; `fallback` comes last.
    """

    precision: Precision
    repository: str
    also: tuple[str, ...] = ()
    size_gb: float | None = Field(default=None, gt=0)
    vendor_minimum_gb: float | None = Field(default=None, gt=0)
    listed_nodes: tuple[ListedNode, ...] = ()
    local: bool = False
    fallback: Fallback | None = None
    note: str = ""

    def listed_on(self, gpu: str, gpus: int) -> ListedNode | None:
        """The vendor's entry for a node of so many GPUs of that kind, or a smaller one."""
        return next((node for node in self.listed_nodes if node.gpu == gpu and node.gpus <= gpus), None)


class Model(Fact):
    """A model: its size in billions of parameters, its checkpoints, and the keys of its config.json.

    `longest_context` is what its vendor serves beyond the native context, None where it does not.
    """

    name: str
    title: str
    parameters_billion: float = Field(gt=0, le=1e6)
    active_billion: float = Field(gt=0, le=1e6)
    native_context: int
    longest_context: int | None = None
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
    """A YAML document as plain data, by libyaml where it is there. Raises yaml.YAMLError, also for what the library
    lets through as other errors: a 31st of February, thousands of nested brackets.
    """
    try:
        return yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except (ValueError, TypeError, RecursionError) as error:
        raise yaml.YAMLError(f"a value cannot be read: {error}") from error


def read_document(file: Path) -> Any:
    """A file's YAML as plain data. Raises ConfigError where it cannot be read, is too long, or is no YAML."""
    try:
        with file.open("rb") as stream:
            data = stream.read(LONGEST_FILE + 1)
        if len(data) > LONGEST_FILE:
            raise ConfigError(f"{file} is longer than {LONGEST_FILE >> 20} MiB: is it the right file?")
        return read_yaml(data.decode())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"cannot read {file}: {error}") from error


def parse(kind: Any, document: Any, where: str) -> Any:
    """Validate a YAML document as `kind`. Raises ConfigError with the file's name and every wrong field."""
    try:
        return TypeAdapter(kind).validate_python(document)
    except ValidationError as error:
        raise ConfigError("\n  ".join([f"{where} is not valid:", *problems_of(error)])) from error


@functools.cache
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


@functools.cache
def find_model(name: str) -> Model:
    """The model of that name, or of a unique beginning of it. Raises ConfigError with the known names."""
    names = model_names()
    hits = [n for n in names if n == name] or [n for n in names if n.startswith(name)]
    if len(hits) != 1:
        raise ConfigError(f"{name!r} names {len(hits)} models; known: {', '.join(names)}")
    source = files("workers.catalog") / "models" / f"{hits[0]}.yaml"
    model: Model = parse(Model, read_yaml(source.read_text()), source.name)
    return model
