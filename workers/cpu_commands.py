"""The commands of `fleetgate-worker` that run a real vLLM on a CPU. Thin: what they do is in their modules."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from workers.cache import cache_home
from workers.cpu_node import MODEL_NAME, CpuNode, available_cores, default_cores, free_port, require_port
from workers.cpu_runtime import ensure_cpu_runtime
from workers.errors import WorkerError
from workers.run_node import run_node
from workers.tiny_model import ensure_tiny_model


def tiny_model(
    out: Annotated[Path | None, typer.Option(help="Where to put it; the user's cache by default.")] = None,
) -> None:
    """Build the tiny thinking model and print its directory. Sets up vLLM for CPU first where it is missing."""
    with _told_errors():
        typer.echo(ensure_tiny_model(_say, out))


def cpu_node(
    port: Annotated[int, typer.Option(help="TCP port; 0 takes a free one.")] = 8000,
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

    Ends with everything it started on Ctrl-C, with vLLM's exit code.
    """
    with _told_errors():
        chosen = port or free_port(host)
        require_port(host, chosen)
        node = CpuNode(
            port=chosen,
            host=host,
            cores=cores or default_cores(available_cores()),
            max_model_len=max_model_len,
            served_model_name=served_model_name,
            tools=tools,
            dtype=dtype,
            api_key=api_key,
            extra=tuple(vllm_arguments or ()),
        )
        python = ensure_cpu_runtime(_say)
        model = ensure_tiny_model(_say)
        where = (log or cache_home(os.environ) / "logs" / f"cpu-node-{chosen}.log").absolute()
        code = run_node(node, python, model, where, _say)
    raise typer.Exit(code)


@contextmanager
def _told_errors() -> Iterator[None]:
    """A person gets the sentence, not the stack: exit 1. Ctrl-C during a set-up: exit 130."""
    try:
        yield
    except WorkerError as error:
        typer.echo(f"fleetgate-worker: {error}", err=True)
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        typer.echo("fleetgate-worker: interrupted; the next run starts the unfinished step again", err=True)
        raise typer.Exit(130) from None


def _say(line: str) -> None:
    # Progress goes to standard error: what a command prints as its result can be piped.
    print(line, file=sys.stderr, flush=True)
