"""`fleetgate usage` and `fleetgate audit`: what was used, and who changed what."""

import csv
import json
import sys
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

import typer
from rich.table import Table

from gateway.cli.admin_client import path_of
from gateway.cli.options import LOCAL, AdminToken, AdminUrl, AsJson, asking, misused
from gateway.cli.tables import new_table, print_table
from gateway.cli.terminal import tell
from gateway.cli.times import moment_of, shown

WHERE = ("time", "tenant", "model", "key")
MEASURES = ("requests", "errors", "input", "cached", "output", "reasoning_tokens", "wasted", "cost_usd")

UNITS = {
    **dict.fromkeys(("input", "cached", "output", "reasoning_tokens", "thinking_budget", "wasted"), "tokens"),
    **dict.fromkeys(("ttft", "duration"), "s"),
}
"""Of the numbers in a request's record."""

Since = Annotated[str, typer.Option(help="Start: 24h, 7d, 2026-11-01.")]
Until = Annotated[str | None, typer.Option(help="End (default: now).")]


def show_usage(
    tenant: Annotated[list[str] | None, typer.Option(help="Only this one; repeatable.")] = None,
    since: Since = "7d",
    until: Until = None,
    per: Annotated[Literal["hour", "day"], typer.Option(help="The interval of the rows (UTC).")] = "day",
    by: Annotated[str, typer.Option(help="The columns to group by: any of time, tenant, model, key.")] = "tenant,model",
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV instead.")] = False,
    as_json: AsJson = False,
    admin: AdminUrl = LOCAL,
    token: AdminToken = None,
) -> None:
    """What tenants used and what it cost: requests, tokens, US dollars."""
    columns = [part.strip() for part in by.split(",") if part.strip()]
    if not set(columns) <= set(WHERE):
        raise misused(f"--by takes any of {', '.join(WHERE)}, separated by commas")
    start, end = _moment(since), None if until is None else _moment(until)
    with asking(admin, token) as control:
        found = control.get("/admin/usage", tenant=tenant, since=start, until=end, per=per, by=columns)
    for row in (*found["rows"], found["total"]):
        row.setdefault("reasoning_tokens", row.get("thinking", 0))  # the answer of an older gateway
    if as_json:
        typer.echo(json.dumps(found, indent=2))
    elif as_csv:
        _write_csv(found["rows"], columns)
    else:
        print_table(_usage_table(found, columns))


def show_request(
    request_id: Annotated[str, typer.Argument(metavar="ID", help="The x-request-id of an answer.")],
    as_json: AsJson = False,
    admin: AdminUrl = LOCAL,
    token: AdminToken = None,
) -> None:
    """What became of one request: tenant, node, status, tokens, cost, times; from the usage records in Redis."""
    with asking(admin, token) as control:
        found = control.get(path_of("admin", "requests", request_id))
    if as_json:
        typer.echo(json.dumps(found, indent=2))
        return
    for record in found:
        table = new_table("field", "value")
        for name, value in record.items():
            if value is not None and name != "thinking":  # the deprecated name of reasoning_tokens
                table.add_row(name, in_units(name, value))
        print_table(table)


def show_audit(
    since: Annotated[str | None, typer.Option(help="Start: 24h, 7d, 2026-11-01.")] = None,
    limit: Annotated[int, typer.Option(help="The number of lines, the newest first.")] = 50,
    as_json: AsJson = False,
    admin: AdminUrl = LOCAL,
    token: AdminToken = None,
) -> None:
    """Who changed what, and when; the newest last."""
    with asking(admin, token) as control:
        found = control.get("/admin/audit", since=None if since is None else _moment(since), limit=limit)
    if as_json:
        typer.echo(json.dumps(found, indent=2))
        return
    if not found:
        tell("Nothing is recorded. Without Redis the audit stands in the log alone: `admin_change`.", err=True)
    table = new_table("when (UTC)", "who", "what", "which", "how")
    for line in reversed(found):
        when = datetime.fromisoformat(line["at"]).strftime("%Y-%m-%d %H:%M:%S")
        detail = ", ".join(f"{name}={json.dumps(value)}" for name, value in line["detail"].items())
        table.add_row(when, line["who"], line["what"], line["subject"], detail)
    print_table(table)


def _usage_table(found: dict[str, Any], columns: list[str]) -> Table:
    span = f"{shown(found['since'])} to {shown(found['until'])} UTC"
    headers = {"cost_usd": "USD", "reasoning_tokens": "reasoning"}  # beside "output": the table fits 80 columns
    table = new_table(*columns, title=f"usage from {span}", footer=True)
    for index, column in enumerate(table.columns):
        column.footer = "all" if index == 0 else ""
    for measure in MEASURES:
        table.add_column(headers.get(measure, measure), justify="right", footer=_figure(measure, found["total"]))
    for row in found["rows"]:
        where = [shown(row[name]) if name == "time" else row[name] or "-" for name in columns]
        table.add_row(*where, *(_figure(measure, row) for measure in MEASURES))
    return table


def in_units(name: str, value: Any) -> str:
    """A field of a request's record, for people."""
    if type(value) not in (int, float):
        return str(value)
    if name == "at":
        return f"{datetime.fromtimestamp(value, UTC).replace(tzinfo=None).isoformat(' ', 'milliseconds')} UTC"
    if name == "cost_usd":
        return f"{value:,.6f} US dollars"
    unit = UNITS.get(name)
    return str(value) if unit is None else f"{value:,} {unit}"


def _figure(measure: str, row: dict[str, Any]) -> str:
    return f"{row[measure]:,.4f}" if measure == "cost_usd" else f"{row[measure]:,}"


def _write_csv(rows: list[dict[str, Any]], columns: list[str]) -> None:
    writer = csv.DictWriter(sys.stdout, [*columns, *MEASURES], extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)


def _moment(text: str) -> str:
    try:
        return moment_of(text, datetime.now(UTC)).isoformat()
    except ValueError as error:
        raise misused(str(error)) from None
