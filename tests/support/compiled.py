"""The gateway as the tests have it: from source, or compiled by mypyc (`make test-compiled`)."""

import ast
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).parents[2]


def is_compiled() -> bool:
    found = find_spec("gateway.core.plan")
    assert found is not None and found.origin is not None
    return not found.origin.endswith(".py")


def slots_of(kind: type) -> tuple[str, ...]:
    """The `__slots__` of a class, out of its source: a compiled class has none."""
    tree = ast.parse((ROOT / kind.__module__.replace(".", "/")).with_suffix(".py").read_text())
    for found in ast.walk(tree):
        if isinstance(found, ast.ClassDef) and found.name == kind.__name__:
            for line in found.body:
                if isinstance(line, ast.Assign) and ast.unparse(line.targets[0]) == "__slots__":
                    names: tuple[str, ...] = ast.literal_eval(line.value)
                    return names
    return ()
