"""Traces, as a collector gets them: spans of every part of a request, and what nodes and clients see of them."""

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.config.document import ConfigError
from gateway.config.source import load_config
from tests.support.gateway_process import gateway_process
from tests.support.gateways import RunningGateway, eventually, running_gateway
from workers.fake import FakeNode, FakeSettings, serve_fake
from workers.fake.stats import Seen

pytest.importorskip("opentelemetry.exporter.otlp.proto.http", reason="fleetgate[otel] is not installed")
from tests.telemetry.collector import Collector, Span, collector

MODEL = "nemotron-3-ultra"
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = "00f067aa0ba902b7"
SAMPLED = {"traceparent": f"00-{TRACE}-{PARENT}-01"}


def chat(text: str = "hello [[think=8]] [[answer=4]]", **more: Any) -> dict[str, Any]:
    return {"model": MODEL, "messages": [{"role": "user", "content": text}], "stream": True, **more}


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Spans are sent after 50 ms in place of five seconds."""
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")


def asked(node: FakeNode) -> Seen:
    """The last request for tokens that the node got."""
    return [each for each in node.stats.recent if each.path.startswith("/v1/") and each.method == "POST"][-1]


@asynccontextmanager
async def traced(*nodes: str, **settings: Any) -> AsyncIterator[tuple[RunningGateway, Collector, httpx.AsyncClient]]:
    """A gateway that records all, with its collector; spans are sent at its end, or within seconds."""
    traces = settings.pop("traces", {})
    async with collector() as found, httpx.AsyncClient(timeout=60) as client:
        telemetry = {"traces": {"endpoint": found.url, "ratio": 1, **traces}}
        async with running_gateway(*nodes, telemetry=telemetry, **settings) as gateway:
            yield gateway, found, client


async def ask(
    client: httpx.AsyncClient,
    gateway: RunningGateway,
    body: dict[str, Any],
    path: str = "chat/completions",
    **headers: str,
) -> httpx.Response:
    return await client.post(f"{gateway.url}/v1/{path}", json=body, headers=headers)


def began(span: Span) -> float:
    return span.began


async def spans_of(found: Collector, answer: httpx.Response) -> dict[str, Span]:
    """The spans of the request that got `answer`, by name, once they have come."""
    request_id = answer.headers["x-request-id"]
    await eventually(lambda: any(each.kind == 2 for each in found.of(request_id)))
    return {each.name: each for each in found.of(request_id)}


async def test_a_stream_has_spans_of_all_its_parts() -> None:
    async with serve_fake(FakeSettings(rate=400)) as node, traced(node.url) as (gateway, found, client):
        answer = await ask(
            client, gateway, chat(stream_options={"include_usage": True}), tracestate="a=1,b=2", **SAMPLED
        )
        told = json.loads(answer.text.split("data: ")[-2])["usage"]
        spans = await spans_of(found, answer)
        at_node = asked(node)
    assert spans.keys() == {
        *("POST /v1/chat/completions", "choice", f"chat {MODEL}", "prefill", "thinking", "answer"),
    }
    root, attempt = spans["POST /v1/chat/completions"], spans[f"chat {MODEL}"]
    assert {each.trace for each in spans.values()} == {TRACE} and root.parent == PARENT and root.state == "a=1,b=2"
    assert attempt.parent == spans["choice"].parent == root.span and (root.kind, attempt.kind) == (2, 3)
    for name in ("prefill", "thinking", "answer"):
        assert spans[name].parent == attempt.span
        assert root.began <= spans[name].began < spans[name].ended <= root.ended
    assert spans["prefill"].ended <= spans["thinking"].began < spans["thinking"].ended == spans["answer"].began
    assert at_node.header("traceparent") == f"00-{TRACE}-{attempt.span}-01", "the node's spans are below the attempt's"
    assert at_node.header("tracestate") == "a=1,b=2"
    facts = attempt.attributes
    assert facts["gen_ai.operation.name"] == "chat" and facts["gen_ai.provider.name"] == "vllm"
    assert facts["gen_ai.request.model"] == MODEL and facts["gen_ai.response.finish_reasons"] == ["stop"]
    assert facts["gen_ai.usage.input_tokens"] == told["prompt_tokens"]
    assert facts["gen_ai.usage.output_tokens"] == told["completion_tokens"]
    assert facts["gen_ai.usage.reasoning.output_tokens"] > 0 and facts["gen_ai.response.time_to_first_chunk"] > 0
    assert f"http://{facts['server.address']}:{facts['server.port']}" == node.url
    assert root.attributes["fleetgate.request_id"] == answer.headers["x-request-id"]
    assert root.attributes["http.response.status_code"] == 200 and root.attributes["fleetgate.tenant"] == "default"
    assert root.resource["service.name"] == "fleetgate" and root.error is None
    assert "hello" not in str(found.spans) and "messages" not in str(found.spans), "content is not recorded"


DIALECTS = pytest.mark.parametrize(
    ("path", "body", "name"),
    [
        ("chat/completions", chat(stream=False), f"chat {MODEL}"),
        ("completions", {"model": MODEL, "prompt": "x", "stream": True, "max_tokens": 8}, f"text_completion {MODEL}"),
        (
            "messages",
            {"model": MODEL, "max_tokens": 64, "stream": True, "messages": chat()["messages"]},
            f"chat {MODEL}",
        ),
        ("responses", {"model": MODEL, "input": "hello [[think=8]] [[answer=4]]", "stream": True}, f"chat {MODEL}"),
    ],
    ids=["plain", "completions", "messages", "responses"],
)


@DIALECTS
async def test_every_dialect_tells_usage_and_finish(path: str, body: dict[str, Any], name: str) -> None:
    async with serve_fake(FakeSettings()) as node, traced(node.url) as (gateway, found, client):
        spans = await spans_of(found, await ask(client, gateway, body, path))
    facts = spans[name].attributes
    assert facts["gen_ai.usage.output_tokens"] > 0 and len(facts["gen_ai.response.finish_reasons"]) == 1
    assert ("answer" in spans) == body.get("stream", True)
    assert ("thinking" in spans) == (path in ("messages", "responses"))


@DIALECTS
async def test_several_contexts_are_none_and_lists_of_state_are_one(path: str, body: dict[str, Any], name: str) -> None:
    """Of two `traceparent` nobody can say which is the client's trace. The second request has a head that is known."""
    other = f"00-{'ab' * 16}-{PARENT}-01"
    parents = [("traceparent", SAMPLED["traceparent"]), ("traceparent", other)]
    states = [("traceparent", other), ("tracestate", "a=1"), ("tracestate", "b=2,c=3")]
    for on in (False, True):
        async with serve_fake(FakeSettings()) as node, collector() as found, httpx.AsyncClient(timeout=60) as client:
            telemetry = {"traces": {"endpoint": found.url, "ratio": 0}} if on else {}
            async with running_gateway(node.url, telemetry=telemetry) as gateway:
                for headers in (parents, parents, states, states):
                    answer = await client.post(f"{gateway.url}/v1/{path}", json=body, headers=headers)
                    assert answer.status_code == 200
                    at_node, state = asked(node).header("traceparent"), asked(node).header("tracestate")
                    if headers is states:
                        assert at_node is not None and at_node[3:35] == "ab" * 16 and state == "a=1,b=2,c=3"
                    elif on:
                        assert at_node is not None and at_node.endswith("-00") and state is None
                        assert at_node[3:35] not in (TRACE, "ab" * 16), "a new trace begins"
                    else:
                        assert at_node is None and state is None


async def test_a_resumed_answer_shows_both_tries_and_the_pause() -> None:
    async with serve_fake(FakeSettings(rate=200)) as one, serve_fake(FakeSettings(rate=200)) as two:
        async with traced(one.url, two.url) as (gateway, found, client):
            body = chat("hello [[think=20]] [[answer=40]]")
            async with client.stream("POST", f"{gateway.url}/v1/chat/completions", json=body) as answer:
                pieces = answer.aiter_bytes()
                await anext(pieces)
                (one if one.running else two).crash()
                assert b"[DONE]" in b"".join([piece async for piece in pieces])
            spans = await spans_of(found, answer)
            tries = sorted((each for each in found.of(answer.headers["x-request-id"]) if each.kind == 3), key=began)
    assert len(tries) == 2 and len({each.attributes["fleetgate.node"] for each in tries}) == 2
    assert tries[0].error in ("cut", "refused") and tries[1].error is None
    resume = spans["resume"]
    assert resume.attributes["fleetgate.outcome"] == "resumed" and resume.attributes["fleetgate.token"] > 0
    assert tries[0].ended <= resume.began < resume.ended <= tries[1].ended
    assert [("gen_ai.usage.output_tokens" in each.attributes) for each in tries] == [False, True]


async def test_waiting_in_the_queue_is_a_span() -> None:
    async with serve_fake(FakeSettings(rate=100)) as node:
        nodes = [{"url": node.url, "max_concurrency": 1}]
        async with traced(nodes=nodes) as (gateway, found, client):
            first = asyncio.create_task(ask(client, gateway, chat("a [[think=1]] [[answer=40]]")))
            await eventually(lambda: node.running == 1)
            second = await ask(client, gateway, chat("b [[think=1]] [[answer=4]]"))
            await first
            spans = await spans_of(found, second)
    assert spans["queue"].ended - spans["queue"].began > 0.01
    assert spans["choice"].ended == spans["queue"].began <= spans[f"chat {MODEL}"].began


async def test_a_refused_request_and_a_left_client_have_ends() -> None:
    async with serve_fake(FakeSettings(rate=50)) as node, traced(node.url) as (gateway, found, client):
        refused = await ask(client, gateway, chat() | {"model": "unknown"})
        async with client.stream("POST", f"{gateway.url}/v1/chat/completions", json=chat("x [[answer=900]]")) as left:
            await anext(left.aiter_bytes())
        unknown, gone = await spans_of(found, refused), await spans_of(found, left)
    assert unknown.keys() == {"POST /v1/chat/completions"}
    assert unknown["POST /v1/chat/completions"].attributes["http.response.status_code"] == 404
    assert unknown["POST /v1/chat/completions"].error == "model_not_found"
    assert gone[f"chat {MODEL}"].attributes["fleetgate.outcome"] == "client_gone"


async def test_content_is_recorded_where_it_is_switched_on_and_bounded() -> None:
    async with serve_fake(FakeSettings()) as node:
        async with traced(node.url, traces={"content": True, "content_bytes": 30}) as (gateway, found, client):
            body = chat("y" * 100 + " [[think=60]] [[answer=60]]")
            spans = await spans_of(found, await ask(client, gateway, body))
    facts = spans[f"chat {MODEL}"].attributes
    (turn,) = json.loads(facts["gen_ai.input.messages"])
    assert turn["role"] == "user" and len(turn["parts"][0]["content"]) == 30
    (told,) = json.loads(facts["gen_ai.output.messages"])
    assert [part["type"] for part in told["parts"]] == ["reasoning", "text"]
    assert all(0 < len(part["content"].encode()) <= 30 for part in told["parts"]) and told["finish_reason"] == "stop"


async def test_a_client_decides_for_its_trace_and_the_ratio_for_others() -> None:
    async with serve_fake(FakeSettings()) as node, traced(node.url, traces={"ratio": 0}) as (gateway, found, client):
        await ask(client, gateway, chat(), traceparent=f"00-{TRACE}-{PARENT}-00")
        assert asked(node).header("traceparent") == f"00-{TRACE}-{PARENT}-00"
        await ask(client, gateway, chat())
        own = asked(node).header("traceparent")
        assert own is not None and own.endswith("-00") and TRACE not in own
        answer = await ask(client, gateway, chat(), **SAMPLED)
        await spans_of(found, answer)
    assert {each.trace for each in found.spans} == {TRACE}
    assert len([each for each in found.spans if each.kind == 2]) == 1
    async with serve_fake(FakeSettings()) as node:
        async with traced(node.url, traces={"ratio": 0, "follow_clients": False}) as (gateway, found, client):
            await ask(client, gateway, chat(), **SAMPLED)
            assert asked(node).header("traceparent") == f"00-{TRACE}-{PARENT}-00"
    assert found.spans == []


@pytest.mark.parametrize(
    ("given", "passed"),
    [
        ({}, None),
        (SAMPLED, SAMPLED["traceparent"]),
        ({"traceparent": "garbage", "tracestate": "a=1"}, None),
        ({"traceparent": f"00-{'0' * 32}-{PARENT}-01"}, None),
        ({"tracestate": "a=1"}, None),
    ],
    ids=["none", "valid", "garbage", "zero", "state alone"],
)
async def test_without_traces_a_valid_context_passes_and_no_other(given: dict[str, str], passed: str | None) -> None:
    async with serve_fake(FakeSettings()) as node, running_gateway(node.url) as gateway, httpx.AsyncClient() as client:
        answer = await ask(client, gateway, chat(), **given)
        assert answer.status_code == 200 and gateway.app.trace_export is None
        assert (asked(node).header("traceparent"), asked(node).header("tracestate")) == (passed, None)


async def test_a_collector_that_is_away_costs_one_line_and_no_request(capfd: pytest.CaptureFixture[str]) -> None:
    async with serve_fake(FakeSettings()) as node:
        async with traced(node.url, traces={"timeout": 1, "max_queue": 64, "flush": 0.5}) as (gateway, found, client):
            found.status = 503
            export = gateway.app.trace_export
            assert export is not None
            assert (await ask(client, gateway, chat())).status_code == 200
            await eventually(lambda: export.counts["failed"] > 0)
            found.holds = True
            while not export.counts["dropped"]:  # about 16 requests have 64 spans
                assert (await ask(client, gateway, chat())).status_code == 200
            assert export.counts["exported"] == 0 and export.waiting <= 64
            page = (await client.get(f"{gateway.admin_url}/metrics")).text
            assert 'fleetgate_spans_total{result="dropped"}' in page
            await ask(client, gateway, chat())  # the flush at the end is bounded
    lines = [line for line in capfd.readouterr().err.splitlines() if "trace_export" in line or "opentelemetry" in line]
    assert len([line for line in lines if "trace_export_failed" in line]) <= 1 and len(lines) <= 2, lines


async def test_a_small_queue_is_sent_before_it_is_full(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "600000")
    async with (
        serve_fake(FakeSettings()) as node,
        traced(node.url, traces={"max_queue": 64}) as (gateway, found, client),
    ):
        for _ in range(8):
            assert (await ask(client, gateway, chat())).status_code == 200
        await eventually(lambda: len(found.spans) >= 16)


async def test_headers_are_secrets_and_the_line_and_the_exemplar_have_the_trace(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("Bearer secret-of-the-collector")
    async with serve_fake(FakeSettings()) as node:
        traces = {"headers": {"authorization": {"file": str(file)}}, "service_name": "gw"}
        async with traced(node.url, traces=traces) as (gateway, found, client):
            answer = await ask(client, gateway, chat())
            spans = await spans_of(found, answer)
            accept = {"accept": "application/openmetrics-text;version=1.0.0"}
            page = (await client.get(f"{gateway.admin_url}/metrics", headers=accept)).text
            assert "secret-of-the-collector" not in repr(gateway.app.config)
    root = spans["POST /v1/chat/completions"]
    assert found.headers[0]["authorization"] == "Bearer secret-of-the-collector"
    assert found.headers[0][":path"] == "/v1/traces" and root.resource["service.name"] == "gw"
    assert f'trace_id="{root.trace}"' in page


async def test_worker_processes_each_export_and_flush_at_their_end(tmp_path: Path) -> None:
    async with serve_fake(FakeSettings()) as node, collector() as found:
        file = tmp_path / "fleetgate.yaml"
        file.write_text(
            f"nodes: [{{url: '{node.url}'}}]\nworkers: 2\n"
            f"telemetry: {{traces: {{endpoint: '{found.url}', ratio: 1}}}}\n"
        )
        async with gateway_process("-c", file, OTEL_RESOURCE_ATTRIBUTES="deployment.environment.name=test") as gateway:
            ids = []
            for _ in range(12):
                async with httpx.AsyncClient() as client:
                    answer = await client.post(f"{gateway.url}/v1/chat/completions", json=chat())
                ids.append(answer.headers["x-request-id"])
            gateway.process.terminate()
            await gateway.ended()
        lines = {line["request_id"]: line["trace_id"] for line in gateway.events("request")}
    roots = {each.attributes["fleetgate.request_id"]: each for each in found.spans if each.kind == 2}
    assert roots.keys() == set(ids) and {name: each.trace for name, each in roots.items()} == lines
    assert {each.resource["deployment.environment.name"] for each in roots.values()} == {"test"}
    assert len({each.resource["service.instance.id"] for each in roots.values()}) <= 2


@pytest.mark.parametrize("variable", ["OTEL_BSP_SCHEDULE_DELAY=-5", "OTEL_ATTRIBUTE_COUNT_LIMIT=many"])
async def test_a_variable_that_the_library_refuses_ends_no_gateway(
    variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv(*variable.split("="))
    async with serve_fake(FakeSettings()) as node, gateway_process("--node", node.url) as gateway:
        async with httpx.AsyncClient(timeout=60) as client:
            answer = await client.post(f"{gateway.url}/v1/chat/completions", json=chat(), headers=SAMPLED)
            page = await client.get(f"{gateway.admin_url}/metrics")
        assert answer.status_code == 200 and answer.text.rstrip().endswith("[DONE]"), answer.text
        assert page.status_code == 200
        (told,) = gateway.events("traces_unavailable")
        (warned,) = gateway.events("config_warning")
    assert warned["where"] == f"the variable {variable.partition('=')[0]}" and "mend it" in warned["problem"]
    assert told["level"] == "error" and "OTEL_" in told["remedy"] and told["error"]


def test_off_does_not_load_the_library() -> None:
    """redis-py loads OpenTelemetry's metrics by itself, where they are installed."""
    code = "import sys, gateway.app; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = done.stdout.split()
    assert "gateway.telemetry.tracer" in loaded
    assert not [name for name in loaded if name.startswith(("opentelemetry.exporter", "opentelemetry.sdk.trace"))]


@pytest.mark.parametrize(
    ("variables", "enabled", "share"),
    [
        ({}, False, 0.01),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"}, True, 0.01),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://127.0.0.1:4318/v1/traces"}, True, 0.01),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x", "OTEL_TRACES_EXPORTER": "none"}, False, 0.01),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x", "OTEL_SDK_DISABLED": "TRUE"}, False, 0.01),
        ({"OTEL_TRACES_SAMPLER": "parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0.25"}, False, 0.25),
        ({"OTEL_TRACES_SAMPLER": "parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG": "x"}, False, 0.01),
        ({"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "nan"}, False, 0.01),
        ({"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "25"}, False, 0.01),
        ({"OTEL_TRACES_SAMPLER": "Always_On"}, False, 1.0),
        ({"OTEL_TRACES_SAMPLER": "parentbased_always_off"}, False, 0.0),
    ],
)
def test_variables_of_opentelemetry_are_read(
    variables: dict[str, str], enabled: bool, share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    traces = load_config(None).telemetry.traces
    assert (traces.enabled, traces.share) == (enabled, share)


@pytest.mark.parametrize(
    ("traces", "problem"),
    [
        ({"endpoint": "collector:4318"}, "http://otel-collector:4318"),
        ({"headers": {"a b": "x"}}, "is not the name of a header"),
        ({"ratio": 2}, "less than or equal to 1"),
    ],
)
def test_a_mistake_is_named(traces: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        load_config(None, {"telemetry": {"traces": traces}})
