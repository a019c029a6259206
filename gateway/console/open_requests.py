"""The requests that are under way in this process: read from their own records when somebody looks.

Nothing is noted for this while a request runs, but that it is there: its phase is seen in what it waits for.

    it has                                     its phase
    no plan yet                                reading     its key, or its body
    a place to wait for                        waiting     in the queue, or for its limits
    broken off, and nothing has come since     resuming
    asked a node, of which nothing has come    prefill
    an answer of which thinking came last      thinking
    an answer in a stream                      answering
    an answer that comes whole                 working     its node does not tell how far it is
"""

import asyncio
import heapq
import time
from collections.abc import Iterable
from itertools import islice
from operator import attrgetter
from typing import Any, NamedTuple

from gateway.core.errors import EndedByOperator
from gateway.pipeline import Pipeline
from gateway.request_record import RequestRecord
from gateway.upstream.exchange import Exchange

MOST = 300
"""Requests that are listed of one process: those that have been under way for the longest time."""

AT_A_TIME = 200
"""Records that are read between two turns of the event loop."""

COLUMNS = (
    *("row", "id", "tenant", "model", "node", "phase", "began", "quiet", "thinking", "budget", "output", "input"),
    *("attempts", "resumes", "dialect", "stream", "class", "key", "address", "agent", "process"),
)
"""`row` names one request, though clients may give several the same id. `began` in seconds since 1970. `quiet`: seconds
for which nothing has come, 0 below `QUIET`. `thinking`, `budget`, `output` and `input` in tokens, null where they are
not known."""

QUIET = 3
"""Seconds of silence that are told."""

_WORD = 120


class OpenCounts(NamedTuple):
    """By tenant: the requests that have a node, and those that wait for a place."""

    running: dict[str, int]
    waiting: dict[str, int]


class OpenRequests:
    """Of this process, `name` to the others."""

    def __init__(self, pipeline: Pipeline, name: str) -> None:
        self._pipeline = pipeline
        self._name = name

    async def rows(self) -> tuple[list[list[Any]], OpenCounts]:
        """The rows of the oldest ones, and how many there are of each tenant."""
        records = list(self._pipeline.open_records)  # others begin and end meanwhile
        running: dict[str, int] = {}
        waiting: dict[str, int] = {}
        left = iter(records)
        while piece := list(islice(left, AT_A_TIME)):
            for record in piece:
                counted = waiting if phase_of(record) == "waiting" else running
                tenant = record.stats.tenant
                if tenant is not None:
                    counted[tenant] = counted.get(tenant, 0) + 1
            await asyncio.sleep(0)
        oldest = heapq.nsmallest(MOST, records, key=attrgetter("began"))
        rows: list[list[Any]] = []
        open_records = self._pipeline.open_records
        wall, perf, now = time.time(), time.perf_counter(), asyncio.get_running_loop().time()
        for record in oldest:
            if record in open_records:
                rows.append(_row(record, self._name, wall - perf, now))
            if len(rows) % AT_A_TIME == 0:
                await asyncio.sleep(0)
        return rows, OpenCounts(running, waiting)

    def end(self, records: Iterable[RequestRecord], person: str) -> None:
        """End those that are still under way."""
        for record in records:
            if record in self._pipeline.open_records:
                record.end(EndedByOperator(f"The request was ended by an administrator ({person})."))

    def find(self, request_id: str, tenant: str | None) -> list[RequestRecord]:
        """The requests of this process with this id, of `tenant` or (None) of whomever: clients choose ids."""
        return [
            each
            for each in self._pipeline.open_records
            if each.stats.request_id == request_id and tenant in (None, each.stats.tenant)
        ]


def phase_of(record: RequestRecord) -> str:
    stats = record.stats
    if record.plan is None:
        return "reading"
    exchange = record.request.listener
    if stats.resumes and stats.resumes[-1].pause is None and stats.ending == "ok":
        return "resuming"
    if not isinstance(exchange, Exchange):
        return "prefill" if stats.attempts else "waiting"
    if not exchange.answer_begun:
        return "prefill" if exchange.comes_in_events else "working"
    if exchange.thinks:
        return "thinking"
    return "answering" if exchange.stream_filter is not None else "working"


def _row(record: RequestRecord, process: str, offset: float, now: float) -> list[Any]:
    """`offset`: seconds since 1970 less `time.perf_counter`; `now`: loop time."""
    stats, plan = record.stats, record.plan
    listener = record.request.listener
    exchange = listener if isinstance(listener, Exchange) else None
    phase = phase_of(record)
    progress = None if exchange is None else exchange.progress
    quiet = 0 if progress is None else int(now - progress.last_heard)
    tokens = stats.made + (0 if progress is None else progress.events)
    agent = record.request.headers.get(b"user-agent", b"")
    return [
        f"{process}-{id(record):x}",
        stats.request_id,
        stats.tenant,
        stats.model or stats.model_asked,
        stats.node if stats.attempts else None,
        phase,
        round(record.began + offset, 1),
        quiet if quiet >= QUIET else 0,
        None if exchange is None else exchange.thought_tokens,
        stats.thinking_budget,
        tokens if exchange is not None and exchange.stream_filter is not None else None,
        None if plan is None else plan.input_tokens,
        stats.attempts,
        len(stats.resumes),
        stats.dialect,
        stats.stream,
        stats.service_class,
        stats.key,
        record.request.address,
        agent[:_WORD].decode("latin-1"),
        process,
    ]


def sum_counts(counts: Iterable[dict[str, int]]) -> dict[str, int]:
    """Those of several processes."""
    sums: dict[str, int] = {}
    for each in counts:
        for name, count in each.items():
            sums[name] = sums.get(name, 0) + count
    return sums
