"""Imports point one way. Each rule says why it is there, so that whoever breaks it knows what they would lose.

    cli -> server -> app -> console -> {api | admin} -> pipeline -> {admission | pressure | responses | resume}
        -> upstream -> routing -> {access | fleet | limits | usage} -> telemetry -> redis -> {core | aio}

`core` holds rules, `aio` what a request awaits, `redis` the way to Redis. `config` is a strand that only `wiring` and
what lies above it may use: everything below is handed plain values. `cli` talks to a running gateway over HTTP.

Imports are read from the source with `ast`, those inside of functions and under TYPE_CHECKING included.
"""

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("gateway", "workers", "loadtest")

_AREAS = {"core", "aio", "redis", "telemetry", "access", "fleet", "routing", "limits", "usage"}
_BELOW_APP = _AREAS | {
    "admission",
    "upstream",
    "resume",
    "pressure",
    "responses",
    "request_record",
    "pipeline",
    "counting",
    "reading",
    "api",
    "admin",
    "console",
}

MAY_IMPORT: dict[str, set[str]] = {
    "core": set(),
    "aio": set(),
    "redis": {"core", "aio"},
    "telemetry": {"core", "redis"},
    "access": {"core", "redis"},
    "fleet": {"core", "aio", "redis", "telemetry"},
    "limits": {"core", "aio", "redis"},
    "usage": {"core", "redis", "telemetry"},
    "counting": {"core"},
    "reading": {"core"},
    "routing": {"core", "aio", "redis", "fleet"},
    "upstream": {"core", "aio", "telemetry", "fleet"},
    "admission": {"core", "aio", "fleet", "limits", "routing", "upstream"},
    "resume": {"core", "fleet", "upstream"},
    "pressure": {"core", "redis", "fleet", "upstream"},
    "responses": {"core", "redis", "upstream"},
    "request_record": _AREAS | {"admission", "upstream"},
    "pipeline": _AREAS | {"admission", "upstream", "pressure", "responses", "counting", "reading", "request_record"},
    "api": _AREAS | {"upstream", "pipeline"},
    "config": {"core"},
    "admin": _AREAS | {"admission", "pressure", "pipeline", "api", "config"},  # tenants in the file's words
    "console": _AREAS | {"admission", "pressure", "upstream", "request_record", "pipeline", "api", "admin"},
    "wiring": _BELOW_APP | {"config"},
    "app": _BELOW_APP | {"config", "wiring"},
    "server": _BELOW_APP | {"config", "wiring", "app"},
    "cli": _BELOW_APP | {"config", "wiring", "app", "server"},
}
"""For each part of the gateway, the other parts that it may know. A new part has to be given its place here."""

_IO = "core is sans-IO: it is handed bytes and facts, so that every case can be tested without a socket or a file"
_TIME = "core does not know the time: `now` is an argument, so that tests need no sleep and replays agree"
_CHANCE = "core does not throw dice: random bytes are an argument, so that a case can be run again"
_ENVIRONMENT = "core reads no environment: settings reach it as arguments, through the composition root"
_EFFECT = "core has no effects: what it finds is returned or raised, and who calls it writes logs and metrics"
_WAITING = "core never waits and never runs beside itself: its rules are plain calls"
_FRAMEWORK = "core outlives frameworks: HTTP belongs to api and upstream, Redis to redis"

BANNED_IN_CORE: dict[str, str] = {
    **dict.fromkeys(("asyncio", "concurrent", "contextvars", "multiprocessing", "sched", "threading"), _WAITING),
    **dict.fromkeys(("signal", "subprocess", "pty"), _WAITING),
    **dict.fromkeys(("socket", "selectors", "select", "ssl", "http", "urllib", "ftplib", "smtplib"), _IO),
    **dict.fromkeys(("io", "pathlib", "shutil", "tempfile", "fileinput", "mmap", "glob", "sqlite3", "dbm"), _IO),
    **dict.fromkeys(("time", "datetime", "zoneinfo", "calendar", "timeit"), _TIME),
    **dict.fromkeys(("random", "secrets", "uuid"), _CHANCE),
    **dict.fromkeys(("os", "sys", "platform", "getpass", "pwd"), _ENVIRONMENT),
    **dict.fromkeys(("logging", "warnings", "syslog", "atexit", "structlog", "prometheus_client"), _EFFECT),
    **dict.fromkeys(("importlib", "runpy"), "what core is made of can be read in its imports"),
    **dict.fromkeys(("fastapi", "starlette", "uvicorn", "httpx", "httptools", "uvloop", "redis", "yaml"), _FRAMEWORK),
}

ALLOWED_IN_CORE = {"orjson": "a pure function from bytes to values, and five times as fast as Python's own"}
"""What core may use beside the standard library."""

BANNED_BUILTINS_IN_CORE = {
    "open": _IO,
    "input": _IO,
    "print": _EFFECT,
    "__import__": "what core is made of can be read in its imports",
}

ONLY_IN: dict[str, tuple[set[str], str]] = {
    "fastapi": ({"api", "admin", "console"}, "a framework at the edge can be replaced; one in the rules cannot"),
    "starlette": ({"api", "admin", "console"}, "as FastAPI"),
    "uvicorn": ({"api", "server", "cli"}, "who serves is the process side's choice"),
    "typer": ({"cli"}, "only the command line talks to people"),
    "rich": ({"cli"}, "only the command line talks to people"),
    "prometheus_client": ({"telemetry"}, "one place for every metric; the rest tells facts and names no metric"),
    "yaml": ({"config", "cli"}, "settings are spelled as in the file there, and nowhere else"),
    "pydantic_settings": ({"config"}, "one place knows where configuration comes from"),
    "redis": ({"redis"}, "shared state goes through one script at a time, never through the relay"),
    "httpx": ({"cli"}, "people's commands only: a client is 100 KB and a request 400 µs, for each node and probe"),
    "tenacity": (
        {"fleet", "cli", "limits", "redis", "usage"},
        "control plane only: a user's request is retried by rule",
    ),
    "cryptography": ({"responses"}, "what clients say is sealed in one place"),
    "tokenizers": ({"counting"}, "an optional extra: nothing else may need it"),
    "jinja2": ({"counting"}, "an optional extra: nothing else may need it"),
    "httptools": (
        {"upstream", "fleet", "api"},
        "HTTP is parsed at both ends, from nodes (answers, and probes) and from clients, and nowhere between",
    ),
}
"""Where a library may be imported in the gateway, and why nowhere else."""


@dataclass(frozen=True, slots=True)
class Import:
    """`module`, imported in `file` at `line`."""

    file: Path
    line: int
    module: str

    def __str__(self) -> str:
        return f"{self.file.relative_to(ROOT)}:{self.line} imports {self.module}"


def imports_of(file: Path, source: str | None = None) -> Iterator[Import]:
    """Every module that a file imports, at any depth. `from a import b` counts as `a.b`, for b may be a module."""
    package = file.relative_to(ROOT).with_suffix("").parts
    for node in ast.walk(ast.parse(file.read_text() if source is None else source, str(file))):
        if isinstance(node, ast.Import):
            for name in node.names:
                yield Import(file, node.lineno, name.name)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level]) if node.level else ""
            module = ".".join(part for part in (base, node.module) if part)
            for name in node.names:
                yield Import(file, node.lineno, f"{module}.{name.name}")


def files_of(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def part_of(file: Path) -> str:
    """The part of the gateway that a file belongs to: its package, or itself where it stands beside them."""
    return file.relative_to(ROOT / "gateway").parts[0].removesuffix(".py")


GATEWAY_IMPORTS = [found for file in files_of("gateway") for found in imports_of(file)]


def test_every_part_of_the_gateway_has_its_place() -> None:
    parts = {part_of(file) for file in files_of("gateway")} - {"__init__"}
    assert not parts - MAY_IMPORT.keys(), "say in MAY_IMPORT what the new part may know"


def test_the_table_itself_has_no_circle() -> None:
    seen: set[str] = set()
    left = dict(MAY_IMPORT)
    while left:
        free = [part for part, known in left.items() if known <= seen]
        assert free, f"these know each other: {sorted(left)}"
        for part in free:
            seen.add(part)
            del left[part]


def test_imports_point_one_way() -> None:
    wrong = []
    for found in GATEWAY_IMPORTS:
        head, *rest = found.module.split(".")
        importer = part_of(found.file)
        if head == "gateway" and rest and rest[0] not in MAY_IMPORT.get(importer, set()) | {importer}:
            wrong.append(f"{found}: {importer} may know {sorted(MAY_IMPORT.get(importer, set())) or 'nothing'}")
    assert not wrong, "\n".join(wrong)


def test_the_packages_do_not_know_each_other() -> None:
    """Gateway, workers and load test meet over HTTP, processes and a documented record in Redis, never in Python:
    so each can be deployed, versioned and replaced alone."""
    wrong = [
        str(found)
        for package in PACKAGES
        for file in files_of(package)
        for found in imports_of(file)
        if found.module.split(".")[0] in {*PACKAGES, "tests"} - {package}
    ]
    assert not wrong, "\n".join(wrong)


def test_the_framing_of_http_chunks_is_the_connections() -> None:
    """Stream filters are asked about events: a chunk's frame is stripped where the chunk arrives, and written where it
    is passed on."""
    chunks = "gateway.core.http.chunks"
    users = {str(found.file.relative_to(ROOT)) for found in GATEWAY_IMPORTS if found.module.startswith(chunks)}
    assert users == {"gateway/upstream/connection.py", "gateway/upstream/exchange.py"}


@pytest.mark.parametrize("module", sorted(BANNED_IN_CORE))
def test_core_does_not_import(module: str) -> None:
    wrong = [str(found) for found in GATEWAY_IMPORTS if _is_core(found.file) and found.module.split(".")[0] == module]
    assert not wrong, f"{BANNED_IN_CORE[module]}:\n" + "\n".join(wrong)


def test_core_needs_nothing_but_the_standard_library_and_a_parser() -> None:
    wrong = [
        str(found)
        for found in GATEWAY_IMPORTS
        if _is_core(found.file) and found.module.split(".")[0] not in sys.stdlib_module_names | {"gateway", "orjson"}
    ]
    assert not wrong, "\n".join(wrong)


def test_core_calls_no_builtin_that_does_io() -> None:
    wrong = []
    for file in files_of("gateway/core"):
        for node in ast.walk(ast.parse(file.read_text(), str(file))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                reason = BANNED_BUILTINS_IN_CORE.get(node.func.id)
                if reason is not None:
                    wrong.append(f"{file.relative_to(ROOT)}:{node.lineno} {node.func.id}: {reason}")
    assert not wrong, "\n".join(wrong)


def test_core_never_awaits() -> None:
    waiting = (ast.AsyncFunctionDef, ast.Await, ast.AsyncFor, ast.AsyncWith)
    wrong = [
        f"{file.relative_to(ROOT)}:{node.lineno}"
        for file in files_of("gateway/core")
        for node in ast.walk(ast.parse(file.read_text(), str(file)))
        if isinstance(node, waiting)
    ]
    assert not wrong, f"{_WAITING}: {wrong}"


@pytest.mark.parametrize("library", sorted(ONLY_IN))
def test_libraries_stay_in_their_place(library: str) -> None:
    places, reason = ONLY_IN[library]
    wrong = [
        str(found)
        for found in GATEWAY_IMPORTS
        if found.module.split(".")[0] == library and part_of(found.file) not in places
    ]
    assert not wrong, f"{library} belongs to {sorted(places)}: {reason}\n" + "\n".join(wrong)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import os.path as p", ["os.path"]),
        ("from os import path, sep", ["os.path", "os.sep"]),
        ("def f():\n    from gateway.upstream import pool\n", ["gateway.upstream.pool"]),
        ("if TYPE_CHECKING:\n    import asyncio\n", ["asyncio"]),
        ("from . import plan", ["gateway.core.plan"]),
        ("from ..upstream.pool import Pool", ["gateway.upstream.pool.Pool"]),
    ],
)
def test_every_way_to_import_is_seen(source: str, expected: list[str]) -> None:
    file = ROOT / "gateway" / "core" / "example.py"
    assert [found.module for found in imports_of(file, source)] == expected


def _is_core(file: Path) -> bool:
    return part_of(file) == "core"
