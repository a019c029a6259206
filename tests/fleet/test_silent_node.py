"""Nodes of which nothing comes: by the answers that they have, and by those that were given up."""

import asyncio
import math
from typing import Any, cast

import pytest

from gateway.core.fleet.breaker import BreakerRules
from gateway.fleet import node_checks
from gateway.fleet.node import SILENT, Lease, Node
from gateway.fleet.node_checks import NodeChecks
from gateway.fleet.node_spec import NodeSpec
from gateway.fleet.probe import ProbeFailure
from gateway.fleet.probe_settings import ProbeSettings
from gateway.telemetry.shortages import ResourceShortages


def streaming_node(heard_at: float) -> tuple[Node, Lease]:
    """A node from whose one answer a byte last came at `heard_at`."""
    node = Node(NodeSpec("http://127.0.0.1:1"))
    lease = Lease(node, stream=True)
    lease.heard, node.heard_at = True, heard_at
    return node, lease


def test_a_node_is_silent_while_nothing_comes_of_what_streams_from_it() -> None:
    node, lease = streaming_node(heard_at=10.0)
    assert not node.is_silent(10.0 + SILENT)
    assert node.is_silent(10.1 + SILENT)
    lease.release()
    assert not node.is_silent(20.0), "nothing is asked of it"


def test_a_node_stays_silent_when_its_answers_have_been_given_up() -> None:
    """What would be asked of it next would stall as well."""
    node, lease = streaming_node(heard_at=10.0)
    node.stalled(14.0)
    lease.release()
    waiting = Lease(node, stream=True)
    assert node.is_silent(14.1)
    node.heard_at = 22.0
    assert not node.is_silent(22.0 + SILENT)
    waiting.release()
    assert not node.is_silent(99.0)


@pytest.mark.parametrize("sign", ["answered", "check_passed"])
def test_an_answer_to_the_prober_is_a_sign_of_life(sign: str) -> None:
    node, lease = streaming_node(heard_at=10.0)
    node.stalled(14.0)
    lease.release()
    if sign == "answered":
        node.answered(15.0)
    else:
        node.check_passed()
    assert not node.is_silent(16.0) and node.stalled_at == -math.inf


def test_one_answer_that_stalls_while_others_go_on_says_nothing_of_its_node() -> None:
    node, _ = streaming_node(heard_at=13.9)
    node.stalled(14.0)
    assert not node.is_silent(13.9 + SILENT)


@pytest.mark.parametrize("silent", [True, False])
async def test_a_silent_node_whose_trial_is_late_is_asked_again(silent: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing else may be asked of it that could show a sign of life. One that only has a full queue is left alone."""
    problems = [ProbeFailure("timed out", certain=False), None]

    async def ask(client: object, model: str) -> ProbeFailure | None:
        return problems.pop(0)

    monkeypatch.setattr(node_checks, "ask_one_token", ask)
    unused, now = cast(Any, None), asyncio.get_running_loop().time()
    node = Node(NodeSpec("http://127.0.0.1:1"), BreakerRules(retrial=0.0))
    node.probe_succeeded({"m": {}}, now)
    settings = ProbeSettings(1.0, 1.0, 1, canary=False, native=False)
    checks = NodeChecks(node, unused, unused, ResourceShortages(), lambda: settings, unused, unused)
    node.heard_at = now - 9.0 if silent else now
    node.stalled(now)
    node.doubt("stalled")
    for _ in range(2):
        checks.begin(now)
        await asyncio.sleep(0.01)
    assert problems == ([] if silent else [None])
    assert node.stalled_at == (-math.inf if silent else now)
