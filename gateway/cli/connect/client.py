"""What is known of one client: its files, how it reads them, and what it sends."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from gateway.cli.connect.merging import CannotEdit, Format, read

_MOST_OUTPUT = 32_000

SpokenDialect = Literal["messages", "responses", "chat"]


@dataclass(frozen=True, slots=True)
class Target:
    """The gateway as a client is to use it. `url` without `/v1`. In tokens, None where it is not known: `context`, and
    `output_cap`, the longest answer that the operator lets this key have."""

    url: str
    key: str
    model: str
    context: int | None = None
    output_cap: int | None = None

    @property
    def most_output(self) -> int:
        """Tokens that an answer may have: what agents ask for, or half the context, as a node refuses more than all."""
        half = None if self.context is None else self.context // 2
        return min(most for most in (_MOST_OUTPUT, half, self.output_cap) if most is not None)

    @property
    def base(self) -> str:
        """The base URL of clients that add no `/v1` themselves."""
        return f"{self.url}/v1"


@dataclass(frozen=True, slots=True)
class ConfigFile:
    """A file below the home directory and what is set in it. `opening` is what a new file needs besides; `instead` is a
    file that goes over this one, and is edited where it exists."""

    path: str
    form: Format
    settings: Any
    opening: Mapping[str, Any] = field(default_factory=dict)
    instead: str = ""


@dataclass(frozen=True, slots=True)
class Configured:
    """How a client is set up on this machine: what it would call, with which key, for which model."""

    source: str
    base: str
    key: str
    model: str


class Machine:
    """What a client finds when it starts: files below a home directory, and the environment."""

    def __init__(self, home: Path, environment: Mapping[str, str]) -> None:
        self.home = home
        self.environment = environment

    def tree(self, path: str, form: Format) -> Any:
        """The settings in a file below home; an empty mapping where there is none. Raises `CannotEdit`."""
        try:
            text = (self.home / path).read_text(encoding="utf-8-sig")
        except FileNotFoundError:
            return {}
        except (OSError, UnicodeDecodeError) as error:
            raise CannotEdit(f"{path} cannot be read: {error}") from None
        try:
            tree = read(text, form)
        except CannotEdit as error:
            raise CannotEdit(f"{path}: {error}") from None
        return {} if tree is None else tree

    def first(self, *names: str) -> str:
        """The first of these variables that is set; empty where none is."""
        return next((self.environment[name] for name in names if self.environment.get(name)), "")

    def expand(self, value: Any) -> str:
        """A value in which `{env:NAME}` or `${{ secrets.NAME }}` stand for variables."""
        text = value if isinstance(value, str) else ""
        return re.sub(r"\{env:(\w+)\}|\$\{\{ *secrets\.(\w+) *\}\}", lambda m: self.first(m[1] or m[2]), text)


def at(tree: Any, *path: str) -> Any:
    """The value at a path of member names; None where there is none."""
    for name in path:
        tree = tree.get(name) if isinstance(tree, dict) else None
    return tree


@dataclass(frozen=True, slots=True)
class Asked:
    """What a client is to ask: a question of a model, for at most `most_output` tokens where it says so itself."""

    model: str
    question: str
    most_output: int


@dataclass(frozen=True, slots=True)
class Call:
    """The request that a client begins with: the path behind its base URL, headers without the key, the body."""

    path: str
    headers: Mapping[str, str]
    body: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Client:
    """One client. `files` is empty for one that is set up by hand: then `by_hand` has the lines to enter.

    `v1_in_base`: whether its base URL ends in `/v1`. `models_path`: where it lists models, behind its base URL.
    """

    name: str
    title: str
    dialect: SpokenDialect
    v1_in_base: bool
    files: Callable[[Target], tuple[ConfigFile, ...]]
    configured: Callable[[Machine], Configured | None]
    call: Callable[[Asked], Call]
    by_hand: Callable[[Target], str] | None = None
    remarks: tuple[str, ...] = ()

    def base(self, target: Target) -> str:
        """The base URL as this client is given it."""
        return target.base if self.v1_in_base else target.url

    @property
    def models_path(self) -> str:
        return "/models" if self.v1_in_base else "/v1/models"
