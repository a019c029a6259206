"""What a reload changed and who asked for it: in the log of each process, and once in the audit."""

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.flow.test_server_process import Stage
from tests.support.gateway_process import FLEETGATE, STARTED_SECONDS, GatewayProcess, gateway_process
from tests.support.gateways import eventually
from tests.support.nodes import scripted_node
from tests.support.redis import redis_server

TOKEN = "the-token-of-ada"
HUSH = "fg-hush-hush"


class Reloads:
    """A gateway, its config file, and the audit in its Redis."""

    def __init__(self, file: Path, settings: dict[str, Any], gateway: GatewayProcess) -> None:
        self._file = file
        self._settings = settings
        self.gateway = gateway

    def write(self, text: str | None = None, **changes: Any) -> None:
        self._settings |= changes
        new = self._file.with_suffix(".new")
        new.write_text(text or yaml.safe_dump(self._settings))
        new.replace(self._file)

    async def audited(self) -> list[dict[str, Any]]:
        """The lines of reloads, the oldest first."""
        async with httpx.AsyncClient(headers={"authorization": f"Bearer {TOKEN}"}, timeout=20) as admin:
            lines = (await admin.get(f"{self.gateway.admin_url}/admin/audit")).json()
        return [line for line in reversed(lines) if line["what"] == "config reloaded"]

    async def audit_grows_to(self, count: int) -> dict[str, Any]:
        async with asyncio.timeout(60):
            while len(lines := await self.audited()) < count:
                await asyncio.sleep(0.05)
        assert len(lines) == count
        return lines[-1]

    async def command(self, *words: str, **variables: str) -> tuple[int | None, str, str]:
        process = await asyncio.create_subprocess_exec(
            FLEETGATE,
            *words,
            env={
                **os.environ,
                "FLEETGATE_ADMIN_URL": self.gateway.admin_url,
                "FLEETGATE_ADMIN__TOKEN": TOKEN,
                **variables,
            },
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await asyncio.wait_for(process.communicate(), 60)
        return process.returncode, out.decode(), err.decode()


@contextlib.asynccontextmanager
async def reloads(folder: Path, workers: int) -> AsyncIterator[Reloads]:
    file = folder / "fleetgate.yaml"
    async with redis_server() as redis, scripted_node(Stage().reply) as node:
        settings: dict[str, Any] = {
            "nodes": [{"url": node.url}],
            "redis": redis.settings,
            "admin": {"tokens": [{"name": "ada", "token": TOKEN}]},
        }
        file.write_text(yaml.safe_dump(settings))
        async with gateway_process("-c", file, "--workers", str(workers)) as gateway:
            await eventually(lambda: len(gateway.events("max_connections_set")) == workers, 2 * STARTED_SECONDS)
            yield Reloads(file, settings, gateway)
            assert not any("Traceback" in line or HUSH in line for line in gateway.lines)


@pytest.mark.parametrize("workers", [1, 2])
async def test_each_way_to_reload_says_what_changed_and_who_asked(workers: int, tmp_path: Path) -> None:
    async with reloads(tmp_path, workers) as at:
        gateway = at.gateway

        async def logged(count: int) -> list[dict[str, Any]]:
            await eventually(lambda: len(gateway.events("config_reloaded")) >= count * workers)
            return gateway.events("config_reloaded")[(count - 1) * workers : count * workers]

        # the file
        at.write(timeouts={"idle": 77}, response_secret=HUSH)
        expected = ["response_secret: added", "timeouts.idle: 120.0 -> 77.0"]
        for line in await logged(1):
            assert (line["changed"], line["who"]) == (expected, "config file")
        line = await at.audit_grows_to(1)
        assert line["who"] == "config file" and line["detail"]["changed"] == expected
        assert line["detail"]["needs_restart"] == ["response_secret"]

        # a signal
        gateway.signal(signal.SIGHUP)
        for line in await logged(2):
            assert (line["changed"], line["who"]) == ([], "SIGHUP")
        assert (await at.audit_grows_to(2))["who"] == "SIGHUP"

        # an administrator, by the command
        code, out, err = await at.command("reload")
        assert (code, out) == (0, "reloaded; nothing changed\n") and "response_secret takes effect" in err
        assert all(line["who"] == "ada@127.0.0.1" for line in await logged(3))
        assert (await at.audit_grows_to(3))["who"] == "ada@127.0.0.1"

        # a file with mistakes, asked for
        at.write(text="listne: {}\ntimeouts: {idle: many}\n")
        code, out, err = await at.command("reload")
        assert (code, out) == (1, "") and "listne" in err and "timeouts.idle: expected a number" in err
        assert err.endswith("\ncorrect the file, and reload again; the old configuration stays in force\n"), err
        async with asyncio.timeout(60):
            while (await at.audited())[-1]["detail"]["ok"]:
                await asyncio.sleep(0.05)
        refused = (await at.audited())[-1]
        assert refused["who"] == "ada@127.0.0.1" and len(refused["detail"]["problems"]) == 2
        assert all(line["who"] in ("ada@127.0.0.1", "config file") for line in gateway.events("config_refused"))


async def test_a_touched_file_is_no_change_to_audit(tmp_path: Path) -> None:
    async with reloads(tmp_path, 1) as at:
        at.write()
        await eventually(lambda: at.gateway.events("config_reloaded"))
        at.write(timeouts={"idle": 5})
        line = await at.audit_grows_to(1)
        assert line["detail"]["changed"] == ["timeouts.idle: 120.0 -> 5.0"]
