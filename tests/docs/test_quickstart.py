"""docs/quickstart.md: what of it needs no container and no cluster is run."""

import asyncio
import os
import re
import shutil
import subprocess
import sys
from asyncio.subprocess import PIPE, STDOUT
from pathlib import Path

import pytest

from tests.docs.site_hooks import ROOT
from tests.support.fake_process import fake_process
from tests.support.gateway_process import FLEETGATE, GatewayProcess, gateway_process
from tests.support.nodes import MODEL

PAGE = (ROOT / "docs" / "quickstart.md").read_text()


def section(title: str) -> str:
    found = re.search(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", PAGE, re.DOTALL | re.MULTILINE)
    assert found is not None, title
    return found[1]


def blocks(title: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", section(title), re.DOTALL | re.MULTILINE)


async def run(gateway: GatewayProcess, *command: str) -> str:
    """What the command prints; it must not fail."""
    environment = {
        **os.environ,
        "PATH": f"{FLEETGATE.parent}:{os.environ['PATH']}",
        "FLEETGATE_ADMIN_URL": gateway.admin_url,
        "KEY": "fg-any",
    }
    process = await asyncio.create_subprocess_exec(*command, stdout=PIPE, stderr=STDOUT, env=environment)
    output, _ = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 0, output.decode()
    return output.decode()


async def test_the_first_request_and_the_questions_behind_it(tmp_path: Path) -> None:
    """By curl and by the SDK, on a gateway that was started without a file as the page does it."""
    start = next(block for block in blocks("Plain process", "sh") if "serve --node" in block)
    assert re.search(r"^fleetgate serve --node http://gpu-1:8000 --node http://gpu-2:8000$", start, re.MULTILINE)
    named = ("--served-model-name", MODEL)
    async with fake_process(*named) as one, fake_process(*named) as two:
        async with gateway_process("--node", one.url, "--node", two.url) as gateway:

            async def shell(block: str) -> str:
                return await run(gateway, "bash", "-ec", block.replace("http://127.0.0.1:8080", gateway.url))

            (first,) = blocks("The first request", "sh")
            answer = await shell(first)
            assert '"reasoning":"' in answer and '"content":"' in answer
            (script,) = blocks("The first request", "python")
            file = tmp_path / "first.py"
            file.write_text(script.replace("http://127.0.0.1:8080", gateway.url))
            assert len(await run(gateway, sys.executable, str(file))) > 20
            (questions,) = blocks("Is it well?", "sh")
            told = await shell(questions)
            assert '"status":"ready"' in told and MODEL in told and "TTFT" in told


def test_the_unit_is_one_that_systemd_takes(tmp_path: Path) -> None:
    (unit,) = blocks("Plain process", "ini")
    assert "ExecReload=/bin/kill -HUP $MAINPID" in unit
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("there is no systemd-analyze on this machine")
    file = tmp_path / "fleetgate.service"
    file.write_text(unit.replace("/opt/fleetgate/bin/fleetgate", "/bin/true").replace("User=fleetgate\n", ""))
    checked = subprocess.run([analyze, "verify", "--man=no", file], capture_output=True, text=True, timeout=60)
    assert "fleetgate.service" not in checked.stderr, checked.stderr
