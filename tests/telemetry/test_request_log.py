"""The line of a request in the log: its fields are those that `RequestStats` declares as logged."""

import json
from asyncio import StreamReader, StreamWriter
from dataclasses import dataclass, field

from gateway.core.telemetry.request_stats import RequestStats, log_table, logged
from gateway.core.usage.token_usage import Usage
from gateway.telemetry.logs import log_fields
from tests.support.gateways import running_gateway
from tests.support.nodes import MODEL, Asked, ScriptedNode, answer, scripted_node
from tests.support.raw import head, raw_client


async def reply(node: ScriptedNode, asked: Asked, reader: StreamReader, writer: StreamWriter) -> None:
    writer.write(answer(b'{"id":"c","choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2}}'))


@dataclass(slots=True, eq=False)
class MoreStats(RequestStats):
    """A new field of the log: this declaration, and the line that sets it."""

    parsed: float | None = field(
        default=None, metadata=logged("parsed_ms", lambda seconds: None if seconds is None else seconds * 1000)
    )
    hedged: bool = field(default=False, metadata=logged())


def test_a_declared_field_is_logged() -> None:
    stats = MoreStats(request_id="r")
    assert log_fields(stats) == {**log_fields(RequestStats(request_id="r")), "parsed_ms": None, "hedged": False}
    stats.parsed, stats.hedged = 0.5, True
    line = log_fields(stats)
    assert (line["parsed_ms"], line["hedged"]) == (500, True)
    assert [*line][-2:] == ["parsed_ms", "hedged"], "in the order of the declarations"


def test_a_field_that_is_not_declared_as_logged_is_not_logged() -> None:
    names = {*log_table(RequestStats).names}
    assert log_fields(RequestStats()).keys() == names
    assert not names & {"work", "failures", "reported", "counted", "at"}


def test_tokens_and_times_have_their_units_in_their_names() -> None:
    stats = RequestStats(usage=Usage(10, 4, 3, 2), ttft=0.12345, duration=1.0)
    line = log_fields(stats)
    tokens = {name: value for name, value in line.items() if name.endswith("_tokens") and name != "max_tokens"}
    assert tokens == {
        "input_tokens": 10,
        "cached_tokens": 2,
        "output_tokens": 4,
        "reasoning_tokens": 3,
        "expected_cached_tokens": None,
    }
    assert (line["ttft_ms"], line["duration_ms"]) == (123.5, 1000.0)
    assert all(log_fields(RequestStats())[name] is None for name in (*tokens, "ttft_ms"))


def test_a_client_that_was_not_let_in_has_its_address_logged() -> None:
    line = log_fields(RequestStats(address="192.0.2.1", unauthenticated=True), requests=7)
    assert (line["address"], line["requests"]) == ("192.0.2.1", 7)
    assert "requests" not in log_fields(RequestStats(address="192.0.2.1"))


async def test_observers_get_what_pipeline_and_relay_have_noted() -> None:
    """One object from the first byte to the log: a fact is set once, and copied nowhere."""
    seen: list[RequestStats] = []
    body = json.dumps({"model": MODEL, "messages": [{"role": "user", "content": "hello"}]}).encode()
    async with (
        scripted_node(reply) as node,
        running_gateway(node.url) as gateway,
        raw_client(gateway.port) as client,
    ):
        pipeline = gateway.app.pipeline
        pipeline._observers = (*pipeline._observers, seen.append)
        await client.send(head("POST", "/v1/chat/completions", f"content-length: {len(body)}") + body)
        assert (await client.answer()).status == 200
    [stats] = seen
    assert (stats.node, stats.attempts, stats.sent, stats.answered) == (node.url.removeprefix("http://"), 1, True, True)
    assert (stats.reported, stats.usage, stats.estimated) == (Usage(3, 2), Usage(3, 2), False)
    assert (stats.request_bytes, stats.status, stats.ending) == (len(body), 200, "ok")
    assert stats.ttft is not None and 0 < stats.ttft <= stats.duration
