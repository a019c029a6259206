"""A real Prometheus for tests, on a free port, with our rules sped up: minutes are seconds there."""

import asyncio
import contextlib
import re
import shutil
import signal
import socket
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import yaml

from tests.support.gateways import eventually

RULES = Path(__file__).parents[2] / "charts" / "fleetgate" / "files" / "alerts.yaml"
MISSING = "prometheus is not installed (Debian: prometheus)"

WINDOW = "6s"
LONG = "24s"
"""In place of ranges in minutes, and of those in hours and days."""

SHORTENED = {
    'le="10.0"': 'le="0.025"',
    "fleetgate_expected_wait_seconds) > 30": "fleetgate_expected_wait_seconds) > 0.1",
}
"""Thresholds that a test cannot wait for: an objective of 25 ms, and a wait of 0.1 s."""


def installed() -> bool:
    return shutil.which("prometheus") is not None


def sped_up(expression: str) -> str:
    """An expression with its ranges in seconds, and with the thresholds of `SHORTENED`."""
    expression = expression.replace("$__rate_interval", "5m")
    expression = re.sub(r"\[\d+[hd]\]", f"[{LONG}]", expression)
    expression = re.sub(r"\[\d+m\]", f"[{WINDOW}]", expression)
    expression = re.sub(r"offset \d+m", f"offset {WINDOW}", expression)
    for slow, quick in SHORTENED.items():
        expression = expression.replace(slow, quick)
    return re.sub(r'=~"\$(?:model|tenant)"', '=~".*"', expression)


def rules_sped_up() -> dict[str, Any]:
    """Our rules as they are, but for their times and `SHORTENED`."""
    found: dict[str, Any] = yaml.safe_load(RULES.read_text())
    for group in found["groups"]:
        for rule in group["rules"]:
            rule["expr"] = sped_up(rule["expr"])
            rule["for"] = "1s" if "for" in rule else "0s"
    return found


@dataclass(slots=True)
class Prometheus:
    """Its HTTP API."""

    client: httpx.AsyncClient

    async def query(self, expression: str) -> list[dict[str, Any]]:
        """The samples of an expression now. Raises where it cannot be read."""
        answer = await self.client.get("/api/v1/query", params={"query": expression})
        told = answer.json()
        assert told["status"] == "success", f"{expression}: {told.get('error')}"
        result: list[dict[str, Any]] = told["data"]["result"]
        return result

    async def fired(self) -> set[str]:
        """The names of the alerts that fire, or have fired: some do for the six seconds of `WINDOW` only."""
        told = await self.query('last_over_time(ALERTS{alertstate="firing"}[10m])')
        return {each["metric"]["alertname"] for each in told}

    async def exemplars(self, series: str) -> list[str]:
        """The traces of a series' exemplars."""
        params: Mapping[str, str] = {"query": series, "start": "0", "end": "9999999999"}
        told = (await self.client.get("/api/v1/query_exemplars", params=params)).json()["data"]
        return [each["labels"]["trace_id"] for found in told for each in found["exemplars"]]


@contextlib.asynccontextmanager
async def prometheus(folder: Path, jobs: Mapping[str, Sequence[str]]) -> AsyncIterator[Prometheus]:
    """One that scrapes `jobs` (their targets) twice a second."""
    (folder / "rules.yml").write_text(yaml.safe_dump(rules_sped_up()))
    config = {
        "global": {"scrape_interval": "500ms", "scrape_timeout": "500ms", "evaluation_interval": "500ms"},
        "rule_files": [str(folder / "rules.yml")],
        "scrape_configs": [
            {
                "job_name": name,
                "metrics_path": path.partition("/")[1] + path.partition("/")[2] + "/metrics",
                "static_configs": [{"targets": [target.partition("/")[0] for target in targets]}],
            }
            for name, targets in jobs.items()
            for path in targets[:1]
        ],
    }
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    keeper = shutil.which("setpriv")  # has the kernel end it when this process does
    process = await asyncio.create_subprocess_exec(
        *((keeper, "--pdeathsig", "KILL") if keeper else ()),
        "prometheus",
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--enable-feature=exemplar-storage",
        "--log.level=error",
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=30, trust_env=False) as client:
            ready = False

            async def ask() -> None:
                nonlocal ready
                while not ready:
                    with contextlib.suppress(httpx.HTTPError):
                        ready = (await client.get("/-/ready")).status_code == 200
                    await asyncio.sleep(0.1)

            asking = asyncio.create_task(ask())
            await eventually(lambda: ready or process.returncode is not None)
            asking.cancel()
            assert process.returncode is None, "prometheus did not start"
            yield Prometheus(client)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGKILL)
        await process.wait()
