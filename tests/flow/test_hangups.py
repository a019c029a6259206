"""SIGHUP reads the configuration again, good or spoilt, and costs no stream; among workers as alone."""

import os
import signal
from pathlib import Path

import pytest

from tests.flow.test_server_process import KEYS, Stage, all_processes, ask, ended_well, stream, write_config
from tests.support.gateways import eventually


@pytest.mark.parametrize("workers", [1, 2])
async def test_streams_live_through_hangups_with_good_and_spoilt_files(workers: int, tmp_path: Path) -> None:
    file = tmp_path / "fleetgate.yaml"
    stage = Stage()
    async with all_processes(stage, file, workers) as (node, gateway, pids):

        async def hang_up(event: str) -> None:
            before = len(gateway.events(event))
            gateway.signal(signal.SIGHUP)
            await eventually(lambda: len(gateway.events(event)) >= before + workers)

        async with stream(gateway, key=KEYS["one"]) as one, stream(gateway, key=KEYS["one"]) as other:
            write_config(file, [node.url], {"a": KEYS["one"], "b": KEYS["two"]})
            await hang_up("config_reloaded")
            assert (await ask(gateway, KEYS["two"])).status_code == 200
            good = file.read_text()
            for spoilt in ("nodes: none", "{", good + "\nredis: {url: 'redis://:hush/x@h'}\n"):
                file.write_text(spoilt)
                await hang_up("config_refused")
                assert (await ask(gateway, KEYS["two"])).status_code == 200, "the last good one is in force"
            for _ in range(20):
                os.kill(gateway.process.pid, signal.SIGHUP)
            file.write_text(good)
            await hang_up("config_reloaded")
            assert [gateway.process.pid, *gateway.workers()] == pids, "nobody ended"
            stage.curtain.set()
            assert await ended_well(one) and await ended_well(other)
        gateway.process.terminate()
        assert await gateway.ended() == 0
        assert not any("Traceback" in line or "hush" in line for line in gateway.lines)
