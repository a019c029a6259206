"""`fleetgate logs`: the lines that a gateway writes, found, filtered, followed over rotations."""

import asyncio
import contextlib
import json
import subprocess
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from gateway.cli.log_lines import in_words, other_line, read_line
from gateway.cli.log_source import LONGEST
from gateway.cli.log_summary import MOST_TENANTS, LogSummary
from gateway.cli.main import app
from gateway.cli.terminal import clean
from gateway.core.telemetry.request_stats import RequestStats
from gateway.core.usage.token_usage import Usage
from gateway.telemetry.logs import log_fields
from tests.support.gateway_process import FLEETGATE, gateway_process
from tests.support.gateways import eventually
from workers.fake import FakeSettings, serve_fake


def line(request_id: str, **facts: Any) -> str:
    """A request's line as the gateway writes it."""
    known: dict[str, Any] = {
        "dialect": "chat",
        "tenant": "acme",
        "model": "m",
        "node": "n:1",
        "status": 200,
        "attempts": 1,
        "stream": True,
        "ttft": 0.2,
        "duration": 2.0,
        "usage": Usage(10, 20, 5, 0),
    }
    stats = RequestStats(request_id, **(known | facts))
    opening = {"event": "request", "level": stats.level, "timestamp": "2026-11-27T09:14:02.118+00:00"}
    return json.dumps(opening | log_fields(stats))


LINES = [
    line("req_a"),
    line("req_b", tenant="beta", duration=40.0),
    line("req_c", status=503, ending="overloaded", node=None, attempts=0, usage=None),
    line("req_d", status=429, ending="rate_limit_exceeded", limit="tenant.requests_per_minute"),
    line("req_e", failures=(("n:2", "cut"),), attempts=2, model="other"),
    '{"event":"node_taken_out","level":"warning","timestamp":"2026-11-27T09:14:03+00:00","node":"n:2","cause":"silent"}',
    '{"event":"config_refused","level":"error","timestamp":"2026-11-27T10:00:00+00:00","problems":["x"]}',
    "Traceback (most recent call last):",
    '{"event": "request", broken',
]


def read(*arguments: str, given: Sequence[str] = LINES) -> list[str]:
    """What the command prints of `given` on standard input."""
    done = CliRunner().invoke(app, ["logs", *arguments], input="\n".join([*given, ""]))
    assert done.exit_code == 0, done.output
    return done.stdout.splitlines()


def ids(lines: Sequence[str]) -> list[str]:
    return [each.rpartition("req_")[2] for each in lines if "req_" in each]


@pytest.mark.parametrize(
    ("arguments", "shown", "others"),
    [
        ((), "abcde", 4),
        (("--tenant", "beta"), "b", 0),
        (("--tenant", "beta", "--tenant", "acme"), "abcde", 0),
        (("--slow", "30s"), "b", 0),
        (("--status", "5xx"), "c", 0),
        (("--status", "429", "--status", "503"), "cd", 0),
        (("--errors",), "c", 1),
        (("--node", "n:2"), "e", 1),
        (("--model", "other"), "e", 0),
        (("--request", "req_d"), "d", 0),
        (("--since", "2026-11-27T09:30"), "", 1),
        (("--tenant", "acme", "--slow", "1s", "--errors"), "c", 0),
    ],
    ids=lambda each: " ".join(each) if isinstance(each, tuple) else str(each),
)
def test_filters(arguments: tuple[str, ...], shown: str, others: int) -> None:
    lines = read(*arguments)
    assert "".join(ids(lines)) == shown and len(lines) - len(shown) == others


def test_a_line_says_what_matters_and_no_colours_leave_the_terminal() -> None:
    first, second = read(given=[LINES[1], LINES[3]])
    assert first == "09:14:02 200  beta  m  n:1  40.0 s  first token 200 ms  10 in, 20 out (5 thinking)  req_b"
    assert "429" in second and "rate_limit_exceeded  tenant.requests_per_minute" in second and "\x1b" not in second


@pytest.mark.parametrize(
    "before", ["gateway-1  | ", "Nov 27 09:14:02 host fleetgate[12]: ", "\x1b[36mgateway |\x1b[0m "]
)
def test_what_stands_before_a_line_does_not_matter(before: str) -> None:
    assert ids(read("--tenant", "beta", given=[before + each for each in LINES])) == ["b"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        '{"',
        '{"event": 5}',
        '{"a": 1}',
        '["event"]',
        '{"event": "request"',
        '{"a":' * 5000,
        '{"event":"x"}{"event":"y"}',
    ],
)
def test_what_is_no_line_of_the_log_ends_nothing(text: str) -> None:
    assert read_line(text) is None
    assert ids(read(given=[text, LINES[0]])) == ["a"]


@pytest.mark.parametrize("options", [(), ("--summary",), ("--json",)])
@pytest.mark.parametrize(
    "fields",
    [
        {"tenant": "\x1b[8mhidden", "model": "\x1b[30;40m", "node": "\x1b[1m"},
        {"tenant": "\x9b2J\u202e\x7f", "status": "\x1b[8m", "ending": "\x1b[8m", "level": "\x1b[8m"},
        {"tenant": "\ud800", "error": "\ud800"},
        {"tenant": "[/x]", "error": "[link=http://evil]x[/link] :bomb:"},
        {"duration_ms": 10**400, "ttft_ms": -(10**400), "cost_usd": 10**400, "output_tokens": 10**400},
        {"requests": -5, "duration_ms": "x", "cost_usd": [], "attempts": {}},
    ],
)
def test_fields_may_hold_anything(options: tuple[str, ...], fields: dict[str, Any]) -> None:
    for event in ("request", "\x1b[8mother"):
        hostile = json.dumps({"event": event, **fields}, ensure_ascii="ud800" in repr(fields))
        shown = "\n".join(read(*options, given=[hostile]))
        assert all(each.isprintable() or each == "\n" for each in shown), ascii(shown)
        if options == ("--json",):
            assert json.loads(shown) == json.loads(hostile), "for programs it is the same"


def test_what_a_client_writes_does_not_reach_the_terminal() -> None:
    hostile = line("req_x", model="m", error="\x1b]0;title\x07\x1b[2J\r\u202e", status=503, ending="node_error")
    (shown,) = read(given=[hostile])
    assert "\x1b" not in shown and "\r" not in shown and "\x07" not in shown and "\u202e" not in shown
    assert other_line("\x1b[31mred\x1b[0m\x1b[2J") == "red\ufffd[2J"
    assert clean("\x1b[8mhidden\x1b[0m\x1b[2J\x9b") == "\ufffd[8mhidden\ufffd[0m\ufffd[2J\ufffd"
    hidden = {"event": "x", "level": "\x1b[8m", "k\x1b[8m": "\x1b[8m", "deep": ["\x1b[8m\x9b\u202e"]}
    for each in (hidden, {**hidden, "event": "request", "status": "\x1b[8m", "output_tokens": "\x1b[8m"}):
        assert in_words(each, lambda words, _: words).isprintable()


def test_names_in_sums_are_no_commands_and_no_markup() -> None:
    hostile = line("req_x", model="m", status=200, ending="ok", tenant="\x1b]0;title\x07[bold]a[/bold]\x1b[8m")
    shown = "\n".join(read("--summary", given=[hostile]))
    assert "[bold]a[/bold]" in shown and "\x1b" not in shown and "\x07" not in shown


def test_a_line_without_facts_is_shown() -> None:
    assert in_words({"event": "request"}, lambda words, _: words).startswith("--:--:-- None")


def test_sums_by_tenant() -> None:
    shown = read("--summary")
    cells = {row.split()[0]: row.split()[1:] for row in shown[2:] if row.strip()}
    assert cells["acme"][:6] == ["4", "1", "1", "30", "60", "15"] and cells["beta"][0] == "1"
    refused: dict[str, Any] = {"tenant": None, "status": 401, "ending": "invalid_api_key", "usage": None}
    storm = line("req_w", **refused, unauthenticated=True, address="10.0.0.9")
    storm = storm.replace('"requests": 1', '"requests": 2551')
    assert "  2,551 requests from 10.0.0.9  invalid_api_key  " in read(given=[storm])[0]
    shown = read("--summary", given=[storm])
    assert shown[-1].split()[:4] == ["-", "2,551", "2,551", "0"], "a line may stand for many"
    sums = LogSummary()
    for number in range(MOST_TENANTS + 50):
        sums.add({"event": "request", "tenant": f"t{number}", "duration_ms": 5.0, "requests": True})
    assert sums.table().row_count == MOST_TENANTS + 1


def test_json_is_passed_on_for_programs() -> None:
    assert [json.loads(each)["request_id"] for each in read("--json", "--slow", "30s")] == ["req_b"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--status", "7xx"), "use 503 or 5xx"),
        (("--slow", "fast"), "invalid duration"),
        (("--since", "yesterday"), "invalid time"),
        (("/nowhere/log",), "No such file"),
    ],
)
def test_a_mistake_is_named(arguments: tuple[str, ...], words: str) -> None:
    done = CliRunner().invoke(app, ["logs", *arguments], input="")
    assert done.exit_code in (1, 2) and words in done.stderr


def test_a_very_long_line_and_bytes_that_are_no_text_are_passed() -> None:
    given = b"x" * (LONGEST * 2 + 5) + b"\n\xff\xfe\n" + LINES[0].encode() + b"\n"
    done = subprocess.run([FLEETGATE, "logs", "--tenant", "acme"], input=given, capture_output=True, check=True)
    assert ids(done.stdout.decode().splitlines()) == ["a"]


@contextlib.asynccontextmanager
async def following(path: Path, *arguments: str) -> AsyncIterator[list[str]]:
    """What `fleetgate logs --follow` has printed so far."""
    process = await asyncio.create_subprocess_exec(
        FLEETGATE, "logs", str(path), "--follow", *arguments, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    shown: list[str] = []

    async def gather(stdout: asyncio.StreamReader) -> None:
        async for each in stdout:
            shown.append(each.decode().rstrip())

    reading = asyncio.create_task(gather(process.stdout))
    try:
        yield shown
    finally:
        process.kill()
        await process.wait()
        await reading


async def test_a_file_is_followed_over_rotations(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text(line("req_a") + "\n")
    async with following(path) as shown:
        await eventually(lambda: ids(shown) == ["a"])
        whole = line("req_b") + "\n"
        with path.open("a") as file:  # a line that comes in two pieces
            file.write(whole[:40])
            file.flush()
            await asyncio.sleep(0.3)
            file.write(whole[40:])
        await eventually(lambda: ids(shown) == ["a", "b"])
        with path.open("a") as file:
            path.rename(tmp_path / "log.1")  # moved, written to once more, and a new one begun
            file.write(line("req_c") + "\n")
        path.write_text(line("req_d") + "\n")
        await eventually(lambda: ids(shown) == ["a", "b", "c", "d"])
        path.write_text("")  # copied and truncated
        await asyncio.sleep(0.5)
        with path.open("a") as file:
            file.write(line("req_e") + "\n")
        await eventually(lambda: ids(shown) == ["a", "b", "c", "d", "e"])


async def test_the_log_of_a_real_gateway_is_read(tmp_path: Path) -> None:
    async with serve_fake(FakeSettings()) as node, gateway_process("--node", node.url) as gateway:
        body = {"model": "nemotron-3-ultra", "messages": [{"role": "user", "content": "hello"}]}
        async with httpx.AsyncClient() as client:
            answer = await client.post(f"{gateway.url}/v1/chat/completions", json=body)
        await eventually(lambda: len(gateway.events("request")) == 1)
        shown = read("--request", answer.headers["x-request-id"], given=gateway.lines)
        events = read(given=gateway.lines)
    assert len(shown) == 1 and shown[0].endswith(answer.headers["x-request-id"]) and " 200 " in shown[0]
    assert any("node_ready" in each for each in events)
