"""A workload: how many conversations go on at once, what one turn of them asks for, and how fast it should be."""

from collections.abc import Iterable, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BeforeValidator, Field, model_validator

from workers.catalog.facts import Fact, parse, read_document, read_yaml
from workers.errors import ConfigError

FORM = "a file, a name (chat, coding-agents, long-reasoning), or FIELD=VALUE[,FIELD=VALUE...]"


def _share_as_number(given: Any) -> Any:
    """`90%` is 0.9. More than 100% would be read as that many tokens, and is refused."""
    if isinstance(given, str) and given.strip().endswith("%"):
        try:
            share = float(given.strip()[:-1]) / 100
        except ValueError:
            return given
        if not 0 <= share <= 1:
            raise ValueError(f"{given}: expected 0% to 100%")
        return share
    return given


Share = Annotated[float, BeforeValidator(_share_as_number), Field(ge=0, allow_inf_nan=False)]


class Workload(Fact):
    """`agents` conversations of `turns` turns each go on at once; one that ends makes room for the next.

    A turn sends a prompt of `input` tokens, of which `cached` are in the prefix cache of the node that had the turn
    before (a share up to 1, or tokens), and gets `output` tokens, thinking included. `pause` seconds lie between an
    answer and the next prompt. `spread` is the standard deviation of a turn's uncached prompt tokens, divided by their
    mean: 0 where all turns are alike, 1 where a few are much longer than the others.

    What is wanted: `first_token` seconds to the first token and `rate` tokens a second for each conversation, both on
    average. The fleet runs `hours` a month.
    """

    name: str = "workload"
    title: str = ""
    agents: int = Field(ge=1, le=1_000_000)
    turns: int = Field(default=1, ge=1, le=1_000_000)
    input: float = Field(ge=1, le=1e8, allow_inf_nan=False)
    cached: Share = 0.0
    output: float = Field(ge=1, le=1e8, allow_inf_nan=False)
    pause: float = Field(default=0.0, ge=0, le=1e7, allow_inf_nan=False)
    spread: float = Field(default=1.0, ge=0, le=10, allow_inf_nan=False)
    first_token: float = Field(default=5.0, gt=0, le=1e5, allow_inf_nan=False)
    rate: float = Field(default=20.0, gt=0, le=1e5, allow_inf_nan=False)
    hours: float = Field(default=730.0, gt=0, le=744, allow_inf_nan=False)

    @property
    def cached_tokens(self) -> float:
        """Prompt tokens of a turn that a prefix cache has."""
        return self.cached * self.input if self.cached <= 1 else self.cached

    @property
    def fresh_tokens(self) -> float:
        """Prompt tokens of a turn that are computed; at least the last one is."""
        return max(1.0, self.input - self.cached_tokens)

    def without_cache(self) -> "Workload":
        """The same on nodes that cache no prefixes."""
        return self.model_copy(update={"cached": 0.0})

    @model_validator(mode="before")
    @classmethod
    def _no_switches(cls, given: Any) -> Any:
        """YAML reads `yes` and `on` as truth, which would pass for the number 1."""
        wrong = [name for name, value in given.items() if isinstance(value, bool)] if isinstance(given, dict) else []
        if wrong:
            raise ValueError(f"{', '.join(map(str, wrong))}: a number is expected, not yes or no")
        return given

    @model_validator(mode="after")
    def _hangs_together(self) -> "Workload":
        if self.cached_tokens > self.input:
            raise ValueError(f"cached: {self.cached:g} tokens are more than the {self.input:g} of input")
        return self


def read_workload(parts: Iterable[str]) -> Workload:
    """The workload that `--workload` options describe together, later ones over earlier ones. Raises ConfigError."""
    document: dict[str, Any] = {}
    said = []
    for part in parts:
        said.append(part)
        document |= _document(part)
    workload: Workload = parse(Workload, document, f"--workload {' '.join(said)}")
    return workload


def known_workloads() -> dict[str, dict[str, Any]]:
    """Those of the catalogue, by name."""
    rows = read_yaml((files("workers.catalog") / "workloads.yaml").read_text())
    return {str(row["name"]): row for row in rows}


def _document(part: str) -> Mapping[str, Any]:
    known = known_workloads()
    if part in known:
        return known[part]
    if part.endswith((".yaml", ".yml", ".json")):
        return _read_file(Path(part))
    first, _, rest = part.partition(",")
    if first in known:
        return {**known[first], **_read_fields(rest)}
    if "=" in part:
        return _read_fields(part)
    raise ConfigError(f"--workload: {part!r} is not {FORM}; the catalogue has {', '.join(known)}")


def _read_fields(part: str) -> Mapping[str, Any]:
    """`agents=40,cached=90%` as a mapping; values are read as YAML reads them."""
    fields: dict[str, Any] = {}
    for item in part.split(","):
        field, sign, value = item.partition("=")
        if not sign or field.strip() in fields:
            raise ConfigError(f"--workload: {item!r} is not FIELD=VALUE, each field once")
        try:
            fields[field.strip()] = read_yaml(value)
        except yaml.YAMLError as error:
            raise ConfigError(f"--workload: the value of {item!r} cannot be read") from error
    return fields


def _read_file(file: Path) -> Mapping[str, Any]:
    document = read_document(file)
    if not isinstance(document, dict):
        raise ConfigError(f"{file} is not a mapping of a workload's fields")
    return document
