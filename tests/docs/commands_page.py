"""docs/commands.md: every command of `fleetgate` and `fleetgate-worker`, with its options, out of their functions."""

import enum
import inspect
import json
import textwrap
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import typer
from typer.models import ArgumentInfo, OptionInfo

from gateway.cli.main import app as gateway_app
from workers.cli import app as worker_app

PROGRAMS: dict[str, typer.Typer] = {"fleetgate": gateway_app, "fleetgate-worker": worker_app}

HEAD = """# Commands

Every command and option, made from the code by `make references`; `--help` behind a command shows the same.
`fleetgate` runs gateways and asks them, `fleetgate-worker` runs nodes. Where an option has a variable, that sets it
too; the option goes over it.
"""


@dataclass(frozen=True)
class Command:
    """A command and what its function says of it."""

    name: str
    call: Callable[..., Any]

    @property
    def about(self) -> str:
        return inspect.cleandoc(self.call.__doc__ or "")

    @property
    def sentence(self) -> str:
        return " ".join(self.about.split("\n\n")[0].split())

    @property
    def anchor(self) -> str:
        return self.name.replace(" ", "-")


@dataclass(frozen=True)
class Parameter:
    """One row: an option or an argument."""

    names: str
    value: str
    default: str
    variable: str
    meaning: str
    is_argument: bool


def commands(app: typer.Typer, above: str) -> Iterator[Command]:
    """All commands of an application, those of its groups included, in the order of `--help`."""
    for each in app.registered_commands:
        assert each.callback is not None
        if not each.hidden:
            yield Command(f"{above} {each.name or each.callback.__name__.replace('_', '-')}", each.callback)
    for group in app.registered_groups:
        assert group.typer_instance is not None
        yield from commands(group.typer_instance, f"{above} {group.name}")


def parameters(command: Command) -> Iterator[Parameter]:
    for parameter in inspect.signature(command.call, eval_str=True).parameters.values():
        if parameter.annotation is typer.Context:
            continue
        kind, info = _declared(parameter)
        if info.hidden:
            continue
        if not info.help:
            raise LookupError(f"{command.name}: {parameter.name} has no help text")
        is_argument = isinstance(info, ArgumentInfo)
        value = _value(kind)
        names = parameter.name if is_argument else _names(parameter.name, info, value == "")
        variable = info.envvar or ""
        assert isinstance(variable, str)
        default = _default(parameter.default, value, info)
        yield Parameter(names, value, default, variable, _sentence(info.help), is_argument)


def _declared(parameter: inspect.Parameter) -> tuple[Any, OptionInfo | ArgumentInfo]:
    if get_origin(parameter.annotation) is Annotated:
        kind, *given = get_args(parameter.annotation)
        for each in given:
            if isinstance(each, OptionInfo | ArgumentInfo):
                return kind, each
    raise LookupError(f"{parameter}: expected Annotated[..., typer.Option(...)] or typer.Argument(...)")


def _names(name: str, info: OptionInfo | ArgumentInfo, is_flag: bool) -> str:
    usual = name.replace("_", "-")
    declared = [str(each) for each in (info.default, *(info.param_decls or ())) if str(each).startswith("-")]
    names = declared or [f"--{usual}" + (f"/--no-{usual}" if is_flag else "")]
    return "`, `".join(sorted(names, key=lambda each: (each.startswith("--"), len(each))))


def _value(kind: Any) -> str:
    """What an option takes; empty for a flag."""
    if get_origin(kind) in (Union, types.UnionType):
        return _value(next(each for each in get_args(kind) if each is not type(None)))
    if get_origin(kind) in (list, tuple):
        return f"{_value(get_args(kind)[0])}, repeatable"
    if get_origin(kind) is Literal:
        return ", ".join(f"`{each}`" for each in get_args(kind))
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return ", ".join(f"`{each.value}`" for each in kind)
    return {bool: "", int: "whole number", float: "number", Path: "path"}.get(kind, "text")


def _default(default: Any, value: str, info: OptionInfo | ArgumentInfo) -> str:
    if default is inspect.Parameter.empty or default is ...:
        return "required"
    if isinstance(info.show_default, str):
        return info.show_default
    if default is None or default is False or default in ((), [], ""):
        return "-"
    if isinstance(default, enum.Enum):
        default = default.value
    return f"`{default if isinstance(default, str | Path) else json.dumps(default)}`"


def _sentence(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def page() -> str:
    """The whole page."""
    return "\n".join(_lines())


def _lines() -> Iterator[str]:
    yield HEAD
    found = {program: list(commands(app, program)) for program, app in PROGRAMS.items()}
    for program, of_program in found.items():
        yield f"## {program}"
        yield ""
        yield "| command | what it does |"
        yield "|---|---|"
        for each in of_program:
            yield f"| [`{each.name}`](#{each.anchor}) | {_sentence(each.sentence)} |"
        yield ""
        for each in of_program:
            yield from _of_command(each)


def _of_command(command: Command) -> Iterator[str]:
    rows = list(parameters(command))
    arguments = " ".join(
        f"{each.names.upper()}" if each.default == "required" else f"[{each.names.upper()}]"
        for each in rows
        if each.is_argument
    )
    yield f"### {command.name}"
    yield ""
    yield "```"
    yield " ".join(part for part in (command.name, "[OPTIONS]" if rows else "", arguments) if part)
    yield "```"
    yield ""
    for paragraph in command.about.split("\n\n"):
        yield textwrap.fill(" ".join(paragraph.split()), 120, break_long_words=False, break_on_hyphens=False)
        yield ""
    if rows:
        yield "| option | value | default | variable | meaning |"
        yield "|---|---|---|---|---|"
        for each in rows:
            name = each.names.upper() if each.is_argument else each.names
            variable = f"`{each.variable}`" if each.variable else "-"
            yield f"| `{name}` | {each.value or 'flag'} | {each.default} | {variable} | {each.meaning} |"
        yield ""
