"""Which test files belong to the core: those whose branch coverage of gateway/core `make test` counts.

The rule is what a file imports, not where it lies: something of gateway.core, and nothing else of this project. Imports
of tests' own modules are followed. Such tests start no server and no process, so tracing their lines costs seconds.
"""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

PROJECT = ("gateway", "workers", "loadtest")


def knows_only_core(file: Path, root: Path) -> bool:
    """Whether `file`, in the checkout `root`, imports gateway.core and nothing else of the project."""
    modules = _reached(file, root)
    return bool(modules) and all(f"{module}.".startswith("gateway.core.") for module in modules)


@cache
def _reached(file: Path, root: Path) -> frozenset[str]:
    """The project's modules that a test file imports, also through other modules of the tests."""
    modules: set[str] = set()
    seen, left = {file}, [file]
    while left:
        for module in _imported(left.pop()):
            package = module.partition(".")[0]
            if package in PROJECT:
                modules.add(module)
            elif package == "tests":
                found = _file_of(module, root)
                if found is not None and found not in seen:
                    seen.add(found)
                    left.append(found)
    return frozenset(modules)


def _imported(file: Path) -> Iterator[str]:
    """What `file` imports, at any depth. `from a import b` counts as `a.b`, as b may be a module."""
    for node in ast.walk(ast.parse(file.read_bytes(), str(file))):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:  # relative ones are banned by ruff
            yield from (f"{node.module}.{name.name}" for name in node.names)


def _file_of(module: str, root: Path) -> Path | None:
    path = root.joinpath(*module.split("."))
    candidates = (path.with_suffix(".py"), path / "__init__.py", path.parent.with_suffix(".py"))
    return next((file for file in candidates if file.exists()), None)
