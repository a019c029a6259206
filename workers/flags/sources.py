"""Reads the flags of a vLLM version out of its sources, without importing them: no torch, no GPU, no vLLM.

vLLM builds most of its parser from annotated classes, so the names are found in three places: the literal
strings given to `add_argument`, the fields of the frontend classes (a field `tool_call_parser` is the flag
--tool-call-parser), and the fields of EngineArgs for their types (a `bool` field is a switch with a --no-
form, a `Literal` field has choices). Parser names are the keys of vLLM's own registries.
"""

import ast
import re
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from workers.errors import ConfigError
from workers.flags.flagset import SPECULATION_METHOD, FlagSet

ENGINE = "vllm/engine/arg_utils.py"
FRONTENDS = ("vllm/entrypoints/openai/cli_args.py", "vllm/entrypoints/launchers/cli_args.py")
FRONTEND_CLASSES = ("BaseFrontendArgs", "FrontendArgs")
REGISTRIES: Mapping[str, str] = {
    "--reasoning-parser": "vllm/reasoning/__init__.py",
    "--tool-call-parser": "vllm/tool_parsers/__init__.py",
}
SPECULATION = "vllm/config/speculative.py"


def read_sources(source: Path) -> FlagSet:
    """The flags of a wheel (*.whl) or of a folder that holds `vllm/`. Raises ConfigError if it is neither."""
    texts = _read_wheel(source) if source.suffix == ".whl" else _read_folder(source)
    if ENGINE not in texts:
        raise ConfigError(f"{source} holds no {ENGINE}; it is not a vLLM wheel or source tree")
    engine = ast.parse(texts[ENGINE])
    frontends = [ast.parse(texts[name]) for name in FRONTENDS if name in texts]
    fields = dict(_fields(engine, ("EngineArgs", "AsyncEngineArgs")))
    for frontend in frontends:
        fields |= dict(_fields(frontend, FRONTEND_CLASSES))
    flags = set(_literal_flags(engine))
    for frontend in frontends:
        flags |= set(_literal_flags(frontend))
        flags |= {_flag(name) for name, _ in _fields(frontend, FRONTEND_CLASSES)}
    switches = {_flag(name) for name, annotation in fields.items() if _mentions(annotation, "bool")}
    return FlagSet(
        version=_version(source, texts),
        origin=source.name,
        flags=frozenset(flags),
        switches=frozenset(switches & flags),
        choices=_choices(texts, fields, flags),
    )


def _read_wheel(wheel: Path) -> dict[str, str]:
    try:
        with zipfile.ZipFile(wheel) as archive:
            names = [n for n in archive.namelist() if n.endswith((".py", "METADATA"))]
            return {name: archive.read(name).decode() for name in names}
    except (OSError, zipfile.BadZipFile) as error:
        raise ConfigError(f"cannot read {wheel}: {error}") from error


def _read_folder(folder: Path) -> dict[str, str]:
    package = folder / "vllm"
    wanted = [*package.glob("**/*.py"), *folder.glob("vllm*.dist-info/METADATA")]
    return {str(file.relative_to(folder)): file.read_text() for file in wanted}


def _version(source: Path, texts: Mapping[str, str]) -> str:
    for name, text in texts.items():
        found = re.search(r"^Version: (\S+)", text, re.MULTILINE) if name.endswith("METADATA") else None
        if found:
            return found.group(1)
    return source.name


def _literal_flags(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            if node.func.attr != "add_argument":
                continue
            for argument in node.args:
                if isinstance(argument, ast.Constant) and str(argument.value).startswith("--"):
                    yield str(argument.value)


def _fields(tree: ast.Module, classes: tuple[str, ...]) -> Iterator[tuple[str, ast.expr]]:
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and node.name in classes:
            for line in node.body:
                if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name):
                    yield line.target.id, line.annotation


def _choices(texts: Mapping[str, str], fields: Mapping[str, ast.expr], flags: set[str]) -> dict[str, frozenset[str]]:
    aliases: dict[str, frozenset[str]] = {}
    for name, text in texts.items():
        if name.startswith(("vllm/config/", "vllm/model_executor/layers/quantization/__init__")):
            aliases |= dict(_literal_aliases(ast.parse(text)))
    choices = {
        _flag(name): found
        for name, annotation in fields.items()
        if _flag(name) in flags and (found := _closed_choice(annotation, aliases)) is not None
    }
    for flag, registry in REGISTRIES.items():
        if registry in texts:
            choices[flag] = frozenset(_registry_keys(ast.parse(texts[registry])))
    methods = [values for _, values in _literal_aliases(ast.parse(texts.get(SPECULATION, "")), closed=False)]
    choices[SPECULATION_METHOD] = frozenset().union(*methods)
    return choices


def _literal_aliases(tree: ast.Module, closed: bool = True) -> Iterator[tuple[str, frozenset[str]]]:
    """`Name = Literal["a", "b"]`. One that names another alias is not closed: its list is not complete
    here.
    """
    for node in tree.body:
        if isinstance(node, ast.Assign) and _mentions(node.value, "Literal"):
            target = node.targets[0]
            names = {n.id for n in ast.walk(node.value) if isinstance(n, ast.Name)}
            values = {c.value for c in ast.walk(node.value) if isinstance(c, ast.Constant)}
            if isinstance(target, ast.Name) and (names == {"Literal"} or not closed):
                yield target.id, frozenset(str(value) for value in values)


def _closed_choice(annotation: ast.expr, aliases: Mapping[str, frozenset[str]]) -> frozenset[str] | None:
    """The choices of an annotation that is an alias of Literal, alone or with None. A wider one is open."""
    parts = _union_parts(annotation)
    names = [part.id for part in parts if isinstance(part, ast.Name)]
    if len(names) != 1 or len(parts) - len(names) > 1:
        return None
    return aliases.get(names[0])


def _union_parts(annotation: ast.expr) -> list[ast.expr]:
    if isinstance(annotation, ast.BinOp):
        return [*_union_parts(annotation.left), *_union_parts(annotation.right)]
    return [annotation]


def _registry_keys(tree: ast.Module) -> Iterator[str]:
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict):
            yield from (str(k.value) for k in node.value.keys if isinstance(k, ast.Constant))


def _mentions(annotation: ast.expr, name: str) -> bool:
    return any(isinstance(node, ast.Name) and node.id == name for node in ast.walk(annotation))


def _flag(field: str) -> str:
    return "--" + field.replace("_", "-")
