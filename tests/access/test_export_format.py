"""The format of exports: what is no whole export is refused, with the line."""

from typing import Any

import pytest

from gateway.core.access.export_format import (
    MAX_LINE,
    ExportError,
    end_line,
    failed_line,
    header_line,
    line_of,
    read_export,
)

HEAD = header_line("2026-11-30T23:00:00Z")
TENANT: dict[str, Any] = {"kind": "tenant", "name": "acme", "record": {"settings": {}}}
SUMS: dict[str, Any] = {"kind": "usage", "tenant": "acme", "sums": {"input": 2**70}}


def test_a_whole_export_is_read_as_it_was_written() -> None:
    lines = [HEAD, line_of(TENANT), line_of(SUMS), line_of(SUMS), end_line(3, 0)]
    assert list(read_export(lines)) == [TENANT, SUMS, SUMS]
    assert list(read_export([HEAD, end_line(0, 1)])) == []


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ([], "empty"),
        ([b"{}\n"], "line 1 is not the header"),
        ([b"tenants:\n"], "line 1 is no JSON object"),
        ([line_of({"kind": "fleetgate-export", "version": 2})], "version 2"),
        ([HEAD, line_of(TENANT)], "cut off after line 2"),
        ([HEAD, line_of(TENANT)[:-9]], "line 2 is no JSON object"),
        ([HEAD, line_of(TENANT), end_line(2, 0)], "counts 2 records, not 1"),
        ([HEAD, end_line(0, 0), line_of(TENANT)], "behind the end"),
        ([HEAD, line_of(TENANT), line_of(TENANT), end_line(2, 0)], "acme is there twice"),
        ([HEAD, line_of({"kind": "nodes"}), end_line(1, 0)], "unknown kind 'nodes'"),
        ([HEAD, failed_line("Redis is down")], "Redis is down"),
        ([HEAD, b'{"kind": "' + b"x" * MAX_LINE], "longer than"),
    ],
)
def test_what_is_no_whole_export_is_refused(lines: list[bytes], words: str) -> None:
    with pytest.raises(ExportError, match=words):
        list(read_export(lines))
