"""An OTLP collector in this process: takes spans over HTTP as protobuf, and keeps them."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


@dataclass(slots=True)
class Span:
    """One span as it came; times in seconds."""

    name: str
    trace: str
    span: str
    parent: str
    kind: int
    began: float
    ended: float
    attributes: dict[str, Any]
    error: str | None
    state: str
    resource: dict[str, Any]


@dataclass(slots=True)
class Collector:
    """`status`: what exports are answered; `holds`: they are not answered at all."""

    url: str = ""
    status: int = 200
    holds: bool = False
    spans: list[Span] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)

    def of(self, request_id: str) -> list[Span]:
        """The spans of one request, once its own has come."""
        traces = {each.trace for each in self.spans if each.attributes.get("fleetgate.request_id") == request_id}
        return [each for each in self.spans if each.trace in traces]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
                headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in head[1:] if line)}
                body = await reader.readexactly(int(headers["content-length"]))
                if self.holds:
                    await reader.read()
                    return
                self.headers.append(headers | {":path": head[0].split()[1]})
                if self.status == 200:
                    self.spans += spans_in(body)
                writer.write(b"HTTP/1.1 %d x\r\ncontent-length: 0\r\n\r\n" % self.status)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


def spans_in(body: bytes) -> list[Span]:
    """The spans of one export."""
    found = []
    for group in ExportTraceServiceRequest.FromString(body).resource_spans:
        resource = attributes(group.resource.attributes)
        for scope in group.scope_spans:
            for span in scope.spans:
                found.append(
                    Span(
                        name=span.name,
                        trace=span.trace_id.hex(),
                        span=span.span_id.hex(),
                        parent=span.parent_span_id.hex(),
                        kind=span.kind,
                        began=span.start_time_unix_nano / 1e9,
                        ended=span.end_time_unix_nano / 1e9,
                        attributes=attributes(span.attributes),
                        error=span.status.message if span.status.code == 2 else None,
                        state=span.trace_state,
                        resource=resource,
                    )
                )
    return found


def attributes(given: Any) -> dict[str, Any]:
    """Attributes as Python has them."""
    found: dict[str, Any] = {}
    for each in given:
        kind = each.value.WhichOneof("value")
        value = getattr(each.value, kind)
        found[each.key] = [item.string_value for item in value.values] if kind == "array_value" else value
    return found


@contextlib.asynccontextmanager
async def collector() -> AsyncIterator[Collector]:
    """One that listens on a free port."""
    made = Collector()
    tasks: set[asyncio.Task[None]] = set()

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(made.serve(reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    made.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield made
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
