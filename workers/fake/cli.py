"""`fleetgate-worker fake`: the fake node as a process. The first line on stdout is JSON and names its URLs."""

import asyncio
import json
import os
import signal
import sys
from typing import Annotated, cast

import typer

from workers.fake.faults import parse_fault
from workers.fake.server import FakeNode, serve_fake
from workers.fake.settings import BudgetManners, FakeSettings, Version

_VERSIONS = ("vllm-0.22", "vllm-0.32", "vllm-0.33")
_MANNERS = ("obey", "disobey", "absent")


def fake(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port; 0 takes a free one.")] = 0,
    served_model_name: Annotated[
        list[str] | None, typer.Option(help="A name that is served; may be given several times.")
    ] = None,
    as_: Annotated[str, typer.Option("--as", help="vllm-0.22, vllm-0.32 or vllm-0.33.")] = "vllm-0.32",
    api_key: Annotated[str | None, typer.Option(help="Asked on /v1 paths.")] = None,
    max_model_len: Annotated[int, typer.Option(help="Context window, tokens.")] = 32768,
    rate: Annotated[float, typer.Option(help="Tokens per second and stream; 0: unpaced.")] = 0.0,
    prefill_rate: Annotated[float, typer.Option(help="Prompt tokens per second of the node; 0: no wait.")] = 0.0,
    max_num_seqs: Annotated[int, typer.Option(help="Requests at once; the rest waits.")] = 1024,
    tokens_per_event: Annotated[int, typer.Option(help="Tokens in one event, as with MTP.")] = 1,
    block_size: Annotated[int, typer.Option(help="Prefix cache: tokens per block.")] = 16,
    capacity: Annotated[int, typer.Option(help="Prefix cache: blocks.")] = 65536,
    thinking_tokens: Annotated[int, typer.Option(help="Length of a thought.")] = 24,
    answer_tokens: Annotated[int, typer.Option(help="Length of an answer.")] = 16,
    budget: Annotated[str, typer.Option(help="thinking_token_budget: obey, disobey or absent (400).")] = "obey",
    reasoning_parser: Annotated[bool, typer.Option(help="Without: <think> stays in the content.")] = True,
    tool_parser: Annotated[bool, typer.Option(help="Without: tool_choice auto is 400.")] = True,
    prompt_tokens_details: Annotated[bool, typer.Option(help="Whether usage tells cached tokens.")] = True,
    responses_store: Annotated[bool, typer.Option(help="Whether /v1/responses keeps answers.")] = True,
    pooling: Annotated[bool, typer.Option(help="The model pools (embeddings, rerank) and does not generate.")] = False,
    slow_start: Annotated[float, typer.Option(help="Seconds of 503 on /health after the start.")] = 0.0,
    fault: Annotated[
        list[str] | None, typer.Option(help="KIND[:name=value,...], e.g. die:after=5,next=10; may be repeated.")
    ] = None,
) -> None:
    """A vLLM-shaped node without a model, for tests, demos and load tests."""
    if as_ not in _VERSIONS or budget not in _MANNERS:
        raise typer.BadParameter(f"--as is one of {_VERSIONS}, --budget one of {_MANNERS}")
    try:
        faults = tuple(parse_fault(f) for f in fault or ())
    except (ValueError, TypeError) as error:
        raise typer.BadParameter(str(error)) from None
    settings = FakeSettings(
        models=tuple(served_model_name or ("nemotron-3-ultra",)),
        version=cast(Version, as_),
        host=host,
        port=port,
        api_key=api_key,
        max_model_len=max_model_len,
        rate=rate,
        prefill_rate=prefill_rate,
        max_num_seqs=max_num_seqs,
        tokens_per_event=tokens_per_event,
        block_size=block_size,
        capacity=capacity,
        thinking_tokens=thinking_tokens,
        answer_tokens=answer_tokens,
        budget=cast(BudgetManners, budget),
        reasoning_parser=reasoning_parser,
        tool_parser=tool_parser,
        prompt_tokens_details=prompt_tokens_details,
        responses_store=responses_store,
        pooling=pooling,
        slow_start=slow_start,
        faults=faults,
    )
    run_fake(settings)


def run_fake(settings: FakeSettings) -> None:
    """Runs a fake node until SIGTERM or SIGINT, on uvloop where there is one."""
    try:
        import uvloop
    except ImportError:
        asyncio.run(_run(settings))
    else:
        uvloop.run(_run(settings))


async def _run(settings: FakeSettings) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with serve_fake(settings) as node:
        # A process that is to exit is gone at once, with its sockets, as a killed one is.
        node.node.exit = lambda: os._exit(1)
        _announce(node)
        await stop.wait()


def _announce(node: FakeNode) -> None:
    shown = {
        "url": node.url,
        "control": node.control_url,
        "port": node.port,
        "pid": os.getpid(),
        "models": node.settings.models,
        "version": node.settings.vllm_version,
    }
    sys.stdout.write(json.dumps(shown) + "\n")
    sys.stdout.flush()
