"""The page that Prometheus scrapes: its own tool has nothing to say against it, and exemplars name traces."""

import asyncio
import shutil
import signal
import subprocess
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import httpx
import pytest
from fastapi import Request
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from gateway.admin.app import MetricsPage
from gateway.telemetry.metrics import Metrics
from tests.support.gateway_process import gateway_process
from tests.support.gateways import running_gateway
from tests.telemetry.test_batches import ended
from workers.fake import FakeSettings, serve_fake

OPEN_METRICS = {"accept": "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5,*/*;q=0.1"}
CHAT = {"model": "nemotron-3-ultra", "messages": [{"role": "user", "content": "hello"}], "stream": True}
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"

needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="promtool is not installed (Debian: prometheus)"
)


def complaints(page: bytes) -> str:
    """What promtool says against names, help texts and the format of a page."""
    found = subprocess.run(["promtool", "check", "metrics"], input=page, capture_output=True, check=False)
    return (found.stdout + found.stderr).decode()


@needs_promtool
def test_promtool_finds_what_is_wrong() -> None:
    assert "counter metrics should have" in complaints(b"# HELP x y.\n# TYPE x counter\nx 1\n")


@needs_promtool
async def test_promtool_has_nothing_against_a_page_in_use() -> None:
    async with serve_fake(FakeSettings()) as node, running_gateway(node.url) as gateway, httpx.AsyncClient() as client:
        await client.post(f"{gateway.url}/v1/chat/completions", json=CHAT)
        page = (await client.get(f"{gateway.admin_url}/metrics")).content
    assert b'fleetgate_requests_total{dialect="chat"' in page
    assert complaints(page) == ""


def exemplars(page: str) -> dict[str, list[str]]:
    """The traces of each histogram."""
    found: dict[str, list[str]] = {}
    for family in text_string_to_metric_families(page):  # type: ignore[no-untyped-call]
        for each in family.samples:
            if each.exemplar is not None:
                found.setdefault(family.name, []).append(each.exemplar.labels["trace_id"])
    return found


def test_a_recorded_request_is_the_exemplar_of_its_buckets() -> None:
    metrics = Metrics()
    metrics.request_ended(ended(trace_id=TRACE, ttft=0.2, duration=30.0))
    metrics.request_ended(ended(duration=0.3))
    metrics.request_ended(ended(trace_id="f" * 32, ttft=None, duration=31.0))
    page, content_type = metrics.exposition(OPEN_METRICS["accept"])
    assert content_type.startswith("application/openmetrics-text")
    assert exemplars(page.decode()) == {
        "fleetgate_request_duration_seconds": ["f" * 32],
        "fleetgate_ttft_seconds": [TRACE],
    }
    plain, content_type = metrics.exposition("*/*")
    assert content_type.startswith("text/plain") and TRACE not in plain.decode()


async def test_both_formats_are_served_and_each_is_whole() -> None:
    async with serve_fake(FakeSettings()) as node, running_gateway(node.url) as gateway, httpx.AsyncClient() as client:
        await client.post(f"{gateway.url}/v1/chat/completions", json=CHAT)
        plain = await client.get(f"{gateway.admin_url}/metrics")
        opened = await client.get(f"{gateway.admin_url}/metrics", headers=OPEN_METRICS)
    assert plain.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert opened.headers["content-type"].startswith("application/openmetrics-text")
    families = text_string_to_metric_families(opened.text)  # type: ignore[no-untyped-call]
    assert {each.name for each in families} == {
        line.split()[2].removesuffix("_total") for line in plain.text.splitlines() if line.startswith("# TYPE")
    }


async def test_worker_processes_share_the_bound_of_tenants(tmp_path: Path) -> None:
    """Eight tenants over two processes and room for three: all processes fold the same ones."""
    keys = {f"t{number}": f"fg-key-of-tenant-{number}" for number in range(8)}
    async with serve_fake(FakeSettings()) as node:
        file = tmp_path / "fleetgate.yaml"
        tenants = "".join(
            f"  - {{name: {name}, keys: [{{sha256: {sha256(key.encode()).hexdigest()}}}]}}\n"
            for name, key in keys.items()
        )
        bound = "telemetry: {metrics: {max_tenants: 3}}"
        file.write_text(f"nodes: [{{url: '{node.url}'}}]\nworkers: 2\n{bound}\ntenants:\n{tenants}")
        async with gateway_process("-c", file) as gateway:
            for _ in range(4):
                for key in keys.values():
                    async with httpx.AsyncClient(headers={"authorization": f"Bearer {key}"}) as client:  # a connection
                        answer = await client.post(f"{gateway.url}/v1/chat/completions", json=CHAT)
                        assert answer.status_code == 200, answer.text
            async with httpx.AsyncClient() as client:
                page = await _when_counted(client, f"{gateway.admin_url}/metrics", 32)
    by_tenant: dict[str, float] = {}
    for line in page.splitlines():
        if line.startswith("fleetgate_requests_total{"):
            tenant = line.partition('tenant="')[2].partition('"')[0]
            by_tenant[tenant] = by_tenant.get(tenant, 0) + float(line.rpartition(" ")[2])
    assert by_tenant == {"t0": 4, "t1": 4, "t2": 4, "(other)": 20}


async def test_what_left_the_fleet_leaves_the_page_of_worker_processes(tmp_path: Path) -> None:
    """A gauge that stays at 0 would be a node that is out, and a model without nodes: both are alerts."""
    file = tmp_path / "fleetgate.yaml"
    async with serve_fake(FakeSettings()) as one, serve_fake(FakeSettings(models=("leaves",))) as two:
        file.write_text(f"nodes: [{{url: '{one.url}'}}, {{url: '{two.url}'}}]\nworkers: 2\n")
        async with gateway_process("-c", file) as gateway, httpx.AsyncClient() as client:
            url = f"{gateway.admin_url}/metrics"
            place = two.url.partition("//")[2]
            names = (f'fleetgate_node_ready{{node="{place}"}}', 'fleetgate_model_ready{model="leaves"}')
            await _page_where(client, url, lambda page: all(f"{name} 2.0" in page for name in names))
            file.write_text(f"nodes: [{{url: '{one.url}'}}]\nworkers: 2\n")
            gateway.signal(signal.SIGHUP)
            page = await _page_where(client, url, lambda page: not any(name in page for name in names))
            assert "NaN" not in page and f'fleetgate_node_ready{{node="{one.url.partition("//")[2]}"}} 2.0' in page
            file.write_text(f"nodes: [{{url: '{one.url}'}}, {{url: '{two.url}'}}]\nworkers: 2\n")
            gateway.signal(signal.SIGHUP)
            await _page_where(client, url, lambda page: all(f"{name} 2.0" in page for name in names))


async def _page_where(client: httpx.AsyncClient, url: str, holds: Callable[[str], bool]) -> str:
    while True:
        page = (await client.get(url, headers={"connection": "close"})).text
        if holds(page):
            return page
        await asyncio.sleep(0.1)


async def _when_counted(client: httpx.AsyncClient, url: str, requests: int) -> str:
    """The page once all processes have counted: the one that is not asked does so every five seconds."""
    while True:
        page = (await client.get(url, headers={"connection": "close"})).text
        lines = [line for line in page.splitlines() if line.startswith("fleetgate_requests_total{")]
        if sum(float(line.rpartition(" ")[2]) for line in lines) >= requests:
            return page
        await asyncio.sleep(0.1)


async def test_the_loop_goes_on_while_a_page_is_made() -> None:
    """The page of many tenants takes long: another task has its turn meanwhile, and later requests wait in line."""
    metrics = Metrics()
    for number in range(200):
        for model in ("a", "b", "c"):
            metrics.request_ended(ended(tenant=f"t{number}", model=model))
    refreshed: list[int] = []
    page = MetricsPage(metrics, lambda: refreshed.append(turns))
    turns = 0

    async def take_turns() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    metrics.flush()
    task = asyncio.create_task(take_turns())
    request = Request({"type": "http", "method": "GET", "path": "/metrics", "headers": []})
    answers = await asyncio.gather(*(page.show(request) for _ in range(3)))
    task.cancel()
    assert len(refreshed) == 3 and refreshed[0] < refreshed[1] < refreshed[2] < turns
    assert all(b'tenant="t199"' in bytes(answer.body) for answer in answers)
