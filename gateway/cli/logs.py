"""`fleetgate logs`: the log, for people."""

import re
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from gateway.cli.log_lines import LogFilter, in_json, in_words, other_line, read_line
from gateway.cli.log_source import lines_of
from gateway.cli.log_summary import LogSummary
from gateway.cli.options import FAILED, misused
from gateway.cli.tables import print_table
from gateway.cli.terminal import tell
from gateway.cli.times import moment_of, seconds_of

_STATUS = re.compile(r"[1-5](?:\d\d|\dx|xx)", re.IGNORECASE)


def logs(
    file: Annotated[Path | None, typer.Argument(help="The log's file; standard input without one.")] = None,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on with what comes, also when it is rotated.")
    ] = False,
    tenant: Annotated[list[str] | None, typer.Option(help="Only its requests; repeatable.")] = None,
    model: Annotated[list[str] | None, typer.Option(help="Only requests for it; repeatable.")] = None,
    node: Annotated[list[str] | None, typer.Option(help="Only what is about it; repeatable.")] = None,
    status: Annotated[list[str] | None, typer.Option(help="Only requests with it: 503, 5xx; repeatable.")] = None,
    slow: Annotated[str | None, typer.Option(help="Only requests that took as long: 30s.")] = None,
    errors: Annotated[
        bool, typer.Option("--errors", help="Only errors: what the gateway or its nodes failed.")
    ] = False,
    request: Annotated[str | None, typer.Option(help="Only the request with this x-request-id.")] = None,
    since: Annotated[str | None, typer.Option(help="Only from then on: 1h, 2026-11-01T12:00.")] = None,
    summary: Annotated[bool, typer.Option("--summary", help="Print sums by tenant at the end, and no lines.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the lines as they came, for programs.")] = False,
) -> None:
    """Read the gateway's log: one line a request, filtered."""
    if file is None and sys.stdin.isatty():
        raise misused(
            "name the log's file, or send the log: docker compose logs -f --no-log-prefix gateway | fleetgate logs"
        )
    if file is None and follow:
        follow = False  # a pipe is read until its end
    for each in status or ():
        if not _STATUS.fullmatch(each):
            raise misused(f"invalid status {each!r}: use 503 or 5xx")
    try:
        chosen = LogFilter(
            tuple(tenant or ()),
            tuple(model or ()),
            tuple(node or ()),
            tuple(status or ()),
            request,
            None if slow is None else seconds_of(slow),
            errors,
            None if since is None else moment_of(since, datetime.now(UTC)),
        )
    except ValueError as error:
        raise misused(str(error)) from None
    sums = LogSummary() if summary else None
    try:
        _read(file, follow, chosen, sums, as_json)
    except OSError as error:
        tell(f"fleetgate: {file}: {error.strerror or error}", err=True)
        raise typer.Exit(FAILED) from None
    except KeyboardInterrupt:  # the usual end of --follow
        pass
    if sums is not None:
        print_table(sums.table())


def _read(file: Path | None, follow: bool, chosen: LogFilter, sums: LogSummary | None, as_json: bool) -> None:
    """A line that is none of the log's is shown as it is, where nothing is filtered."""
    coloured = sys.stdout.isatty() and not as_json
    for text in lines_of(file, follow):
        line = read_line(text)
        if line is None:
            if sums is None and not as_json and text and chosen.passes_all:
                _show(other_line(text))
        elif not chosen.meets(line):
            continue
        elif sums is not None:
            sums.add(line)
        elif as_json:
            _show(in_json(text))
        else:
            _show(in_words(line, lambda words, colour: typer.style(words, fg=colour) if coloured else words))


def _show(text: str) -> None:
    try:
        sys.stdout.write(text.encode("utf-8", "replace").decode() + "\n")
        sys.stdout.flush()
    except BrokenPipeError:  # `| head` has enough
        sys.stdout = None  # else Python complains at its end
        raise typer.Exit from None
