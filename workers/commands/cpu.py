"""`fleetgate-worker cpu-node` and `tiny-model`: a real vLLM on this machine's CPU, for demos and tests."""

import asyncio
import contextlib
import os
from collections import deque
from pathlib import Path
from types import TracebackType
from typing import Annotated, Self

import typer

from workers.argv import Binding
from workers.cache import cache_home
from workers.catalog.facts import parse
from workers.commands.edge import told
from workers.cpu_node import MODEL_NAME, free_port, require_port
from workers.errors import ConfigError
from workers.launch.identity import node_id_of
from workers.launch.plan import LaunchPlan, Patience, local_url
from workers.launch.server import vllm_server
from workers.launch.supervisor import Supervisor
from workers.profile import Profile
from workers.profiles.load import find_profile
from workers.registration import Capacity
from workers.registry import NoRegistry
from workers.tiny_model import ensure_tiny_model, missing_parts

PROFILE = "tiny-cpu"
LAST_LINES = 30
NEVER = float("inf")


@told
def tiny_model(
    out: Annotated[Path | None, typer.Option(help="Where to put it; the user's cache by default.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what would be set up, a line each; or none.")
    ] = False,
) -> None:
    """Build the tiny thinking model and print its directory. Sets up vLLM for CPU first where it is missing."""
    if dry_run:
        for part in missing_parts(out):
            typer.echo(part)
        return
    typer.echo(ensure_tiny_model(_say, out))


@told
def cpu_node(
    port: Annotated[int, typer.Option(help="TCP port; 0 takes a free one.", min=0, max=65535)] = 8000,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    max_model_len: Annotated[int, typer.Option(help="Context window, in tokens (at most 8192).")] = 4096,
    served_model_name: Annotated[str, typer.Option(help="The model's name in requests.")] = MODEL_NAME,
    tools: Annotated[bool, typer.Option(help="Take requests with tools (--enable-auto-tool-choice).")] = True,
    dtype: Annotated[str, typer.Option(help="float32 where texts are compared: near-ties flip in bfloat16.")] = "auto",
    api_key: Annotated[
        str | None, typer.Option(envvar="VLLM_API_KEY", help="Bearer key that the node asks for.")
    ] = None,
    cores: Annotated[
        str | None, typer.Option(help="CPU cores to compute on, e.g. 1 or 2-5; the upper half by default.")
    ] = None,
    log: Annotated[Path | None, typer.Option(help="vLLM's log file; in the user's cache by default.")] = None,
    vllm_arguments: Annotated[
        list[str] | None, typer.Argument(help="After --: more arguments for vLLM, which win over the ones set here.")
    ] = None,
) -> None:
    """Start a real vLLM on this machine's CPU with the tiny thinking model. Sets both up first where they are missing.

    `launch tiny-cpu` for demos and tests: the log goes to a file, nothing is registered, a server that ends is not
    started again. Ends with everything it started on Ctrl-C; exit code 0 then, else vLLM's.
    """
    binding = Binding(host, port or free_port(host))
    require_port(binding.host, binding.port)
    profile = _profile(max_model_len, served_model_name, tools)
    where = (log or cache_home(os.environ) / "logs" / f"cpu-node-{binding.port}.log").absolute()
    more = [*([] if dtype == "auto" else ["--dtype", dtype]), *(vllm_arguments or ())]
    with LogFile(where) as file:
        plan = _plan(profile, binding, cores, api_key, more)
        _say(f"starting vLLM on {plan.local_url} (usually 40 to 60 seconds); its log: {where}")
        code = asyncio.run(Supervisor(plan, NoRegistry(), _say, file.write).run())
    if code:
        _say(f"the end of {where}:\n" + "\n".join(f"    {line[:300]}" for line in file.last))
    raise typer.Exit(code)


class LogFile:
    """The server's log in a file of its own, with its last lines at hand. What a full disk does not take is lost."""

    def __init__(self, path: Path) -> None:
        """Opens it anew. Raises ConfigError where it cannot be written."""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("w", encoding="utf-8", buffering=1)
        except OSError as error:
            raise ConfigError(f"--log {path}: cannot be written ({error.strerror})") from error
        self.last: deque[str] = deque(maxlen=LAST_LINES)

    def write(self, line: str) -> None:
        """Append a line."""
        self.last.append(line)
        with contextlib.suppress(OSError):
            self._file.write(line + "\n")

    def __enter__(self) -> Self:
        """Usable as a context: closes the file."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the file."""
        self._file.close()


def _plan(profile: Profile, binding: Binding, cores: str | None, api_key: str | None, more: list[str]) -> LaunchPlan:
    environ = dict(os.environ) | ({"VLLM_API_KEY": api_key} if api_key else {})
    server = vllm_server(profile, binding, environ, _say, cores=cores, extra=tuple(more))
    return LaunchPlan(
        node_id=node_id_of(None, profile, binding),
        profile=profile.name,
        served_name=profile.served_name,
        command=server.command,
        environment=server.environment,
        binding=binding,
        advertise=local_url(binding),
        capacity=Capacity(max_concurrency=profile.max_sequences, max_model_len=profile.max_model_len),
        price=None,
        has_budgets=profile.reasoning_parser is not None,
        api_key=api_key,
        # No proof that an idle engine answers: nobody would start another, and tests count what the node runs.
        patience=Patience(startup=profile.startup_seconds, drain=5.0, settle=0.0, stop=15.0, proof=NEVER),
        once=True,
    )


def _profile(max_model_len: int, served_name: str, tools: bool) -> Profile:
    base = find_profile(PROFILE)
    wanted = {"max_model_len": max_model_len, "served_name": served_name}
    document = base.model_dump() | wanted | ({} if tools else {"tool_parser": None})
    profile: Profile = parse(Profile, document, "cpu-node")
    return profile


def _say(line: str) -> None:
    # Progress goes to standard error: what a command prints as its result can be piped. What nobody reads is lost.
    with contextlib.suppress(OSError):
        typer.echo(line, err=True)
