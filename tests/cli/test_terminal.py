"""What the commands print for people holds no command to their terminal, whoever said it."""

import io
from typing import Any

import pytest
from typer.testing import CliRunner

from gateway.cli.main import app
from gateway.cli.status import render_fleet, render_nodes
from gateway.cli.tables import new_table, print_table
from gateway.cli.terminal import PlainConsole, clean, tell

HOSTILE = "a\x1b[2Jb\x1b]0;t\x07c\x9bd\u202ee\ud800f\rg"


def shown(text: str) -> bool:
    return all(each.isprintable() or each == "\n" for each in text)


@pytest.mark.parametrize("cell", [HOSTILE, "[/x]", "[red]x[/red]", "[link=http://evil]x[/link]", ":bomb:"])
def test_a_table_prints_what_there_is(cell: str, capsys: pytest.CaptureFixture[str]) -> None:
    table = new_table("one", "two")
    table.add_row(cell, "y")
    print_table(table)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3 and clean(cell) in lines[2] and shown(lines[2])


def test_a_cell_makes_no_rows(capsys: pytest.CaptureFixture[str]) -> None:
    table = new_table("one", "two")
    table.add_row("x\ny", "z")
    print_table(table)
    assert len(capsys.readouterr().out.splitlines()) == 3


def test_the_fleet_is_shown_as_text() -> None:
    node: dict[str, Any] = {
        **dict.fromkeys(("running", "waiting", "kv_use", "hit_rate", "tokens_per_second", "ttft_p50", "ttft_p99")),
        "name": HOSTILE,
        "state": "out",
        "breaker": "open",
        "in_flight": 0,
        "places": None,
        "seen": {"out": 1},
        "last_error": HOSTILE,
        "models": [HOSTILE, "[/x]"],
        "version": "[/y]",
        "cause": "[/z]",
    }
    view = {"nodes": [node], "redis": True, "gateways": 1, "views": 1, "process": 1, "redis_troubles": [HOSTILE]}
    out = io.StringIO()
    console = PlainConsole(file=out, width=900)
    console.print(render_fleet(view))
    console.print(render_nodes(view))
    assert shown(out.getvalue()) and "[/x]" in out.getvalue()


def test_lines_are_told_without_commands(capsys: pytest.CaptureFixture[str]) -> None:
    tell(f"{HOSTILE}\nnext")
    tell(HOSTILE, err=True)
    got = capsys.readouterr()
    assert shown(got.out) and got.out.endswith("\nnext\n") and shown(got.err)


def test_an_error_of_what_is_no_gateway_is_told_without_commands() -> None:
    got = CliRunner().invoke(app, ["status", "--once", "--admin", "http://\x1b[2J"])
    assert got.exit_code == 1 and shown(got.output)
