"""Every alert fires, and every panel has data: in a real Prometheus, on gateways at which everything goes wrong.

GPUs, DCGM and a node exporter are stand-ins. What is sped up of the rules stands in tests/observe/prometheus.py.
"""

import asyncio
import json
from pathlib import Path

import pytest

from gateway.limits import backlog
from tests.observe.boards import BOARDS, FOLDER, rendered
from tests.observe.prometheus import MISSING, installed, prometheus, rules_sped_up, sped_up
from tests.observe.scene import scene

WAITING = 30
"""Settlements that a gateway without Redis keeps here, in place of 100,000."""

EXPRESSIONS = {
    f"{board.name}: {panel.title}: {expression}": expression
    for board in BOARDS
    for panel in board.panels
    for expression, _ in panel.queries
}


def test_the_dashboards_are_those_of_the_table() -> None:
    for board in BOARDS:
        assert (FOLDER / f"{board.name}.json").read_text() == rendered(board), "python -m tests.observe.boards"
    assert {path.stem for path in FOLDER.glob("*.json")} == {board.name for board in BOARDS}


def test_panels_do_not_overlap_and_have_titles_of_their_own() -> None:
    for board in BOARDS:
        panels = json.loads(rendered(board))["panels"]
        taken = [
            (x, y)
            for place in (each["gridPos"] for each in panels)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        ]
        assert len(taken) == len(set(taken)) and max(x for x, _ in taken) < 24
        assert len({each["title"] for each in panels}) == len(panels)


@pytest.mark.skipif(not installed(), reason=MISSING)
async def test_every_alert_fires_and_every_panel_has_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backlog, "MAX_WAITING", WAITING)
    wanted = {rule["alert"] for group in rules_sped_up()["groups"] for rule in group["rules"]}
    fired: set[str] = set()
    empty = dict(EXPRESSIONS)
    async with scene(tmp_path) as made, prometheus(tmp_path, made.jobs) as told:
        loop = asyncio.get_running_loop()
        begun, fallen = loop.time(), False
        while (wanted - fired or empty) and loop.time() < begun + 120:
            fired = await told.fired()
            for name, expression in list(empty.items()):
                if await told.query(sped_up(expression)):
                    del empty[name]
            if not fallen and loop.time() > begun + 12:
                await made.go_wrong()
                fallen = True
            await asyncio.sleep(0.5)
        print(f"{loop.time() - begun:.1f} s")
        assert (sorted(wanted - fired), sorted(empty)) == ([], []), "alerts that did not fire, panels without data"
        assert await told.exemplars("fleetgate_ttft_seconds_bucket")
