"""What the newest SDKs send, as it leaves the gateway, read by a real vLLM's own request classes.

A refusal has one of the reasons of docs/fields.md; over chat there is none, as the gateway knows them all.
"""

import contextlib
import json
import os
import random
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from gateway.core.dialects import DIALECTS
from gateway.core.errors import InvalidRequest
from gateway.core.plan import make_plan
from tests.sdks.drawing import Body
from tests.sdks.reasons import reasons_in
from tests.sdks.requests import CALLS, Call, draw_request
from tests.sdks.test_fields import BY_PATH, DECLARED
from workers.cpu_runtime import ensure_cpu_runtime

pytestmark = [pytest.mark.real, pytest.mark.timeout(900)]

JUDGE = Path(__file__).parent / "request_judge.py"
CHAT = "/v1/chat/completions"
DRAWN = range(1000)
"""Requests of each method."""


class Asked(NamedTuple):
    """A request as it was drawn, and what a node gets of it."""

    drawn: Body
    path: str
    body: Body
    over_chat: bool


def judged(bodies: list[tuple[str, Body]]) -> dict[str, Any]:
    python = ensure_cpu_runtime(print, os.environ)
    ran = subprocess.run([python, JUDGE], input=json.dumps(bodies), capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr[-2000:]
    said: dict[str, Any] = json.loads(ran.stdout.splitlines()[-1])
    return said


def test_a_node_reads_what_the_page_says() -> None:
    """Bodies in the request's own dialect, and as chat."""
    asked: list[Asked] = []
    for call in CALLS:
        for number in DRAWN:
            asked += as_sent(call, random.Random(number))
    said = judged([(each.path, each.body) for each in asked])
    faults = [
        f"{each.path}{' over chat' if each.over_chat else ''}: {fault}: {json.dumps(each.body)[:1500]}"
        for each, fault in zip(asked, said["faults"], strict=True)
        if fault is not None and (each.over_chat or not reasons_in(each.path, each.drawn))
    ]
    assert not faults, "\n".join([f"{len(faults)} of {len(asked)}", *faults[:10]])
    names = {dialect.path: dialect.name for dialect in DIALECTS}
    assert {names[path]: fields for path, fields in said["declared"].items()} == DECLARED


def as_sent(call: Call, rng: random.Random) -> Iterator[Asked]:
    """One drawn request as a node gets it."""
    dialect = BY_PATH[call.path]
    drawn = draw_request(rng, call, "m", call.streams and rng.random() < 0.5)
    try:
        plan = make_plan(dialect.read(json.dumps(drawn).encode()), dialect, "m", None, None)
    except InvalidRequest:
        assert reasons_in(call.path, drawn)
        return
    body = json.loads(plan.body)
    yield Asked(drawn, call.path, body, over_chat=False)
    with contextlib.suppress(InvalidRequest):
        over = dialect.over_chat(body)
        if over is not None:
            yield Asked(drawn, CHAT, over.chat, over_chat=True)
