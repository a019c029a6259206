"""What a soak counts: a real gateway with a stream under way and after it, the line through memory, the faults."""

import time
from dataclasses import replace

import httpx
import pytest

from loadtest.answers import MODEL
from loadtest.load.fleet import FleetSize, LoadFleet
from loadtest.load.timetable import NODE_ACTIONS
from loadtest.soak.faults import CYCLE, PERIOD, QUIET, faults_of
from loadtest.soak.held import Held, count_held
from loadtest.soak.memory import Sample, behind_warm_up, slope_of

IDLE = Held(
    gauges={"fleetgate_open_requests": 0.0},
    tasks=17.0,
    processes=1,
    threads=1,
    files=15,
    sockets={"redis": 4, "node": 3},
    requests={"reservations": 0, "leases": 0},
    keys={"fg1:mark": 1},
    eternal={"fg1:mark": 1},
)


def held(fleet: LoadFleet) -> Held:
    ports = [node.port for node in fleet.nodes]
    return count_held(fleet.gateway_pid, fleet.port, fleet.admin_url, fleet.redis_port, ports)


def test_what_a_stream_holds_is_counted_and_gone_behind_it() -> None:
    with LoadFleet(FleetSize(nodes=1, tenants=("acme",))) as fleet:
        before = held(fleet)
        body = {"model": MODEL, "stream": True, "messages": [{"role": "user", "content": "[[answer=5000]]"}]}
        headers = {"authorization": f"Bearer {fleet.keys['acme']}"}
        with httpx.Client(timeout=30, trust_env=False) as client:
            with client.stream("POST", f"{fleet.url}/v1/chat/completions", json=body, headers=headers) as answer:
                chunks = answer.iter_raw()
                next(chunks)
                during = held(fleet)
        told = set(during.leaks(before))
        assert {
            "fleetgate_open_requests is 1",
            "fleetgate_node_in_flight is 1",
            "fleetgate_reservations is 1",
            "1 reservations in Redis",
            "1 leases in Redis",
            "1 places in Redis",
            "1 connections of clients",
        } <= told
        end = time.monotonic() + 30
        while (left := list(held(fleet).leaks(before))) and time.monotonic() < end:
            time.sleep(0.2)
        assert left == []


@pytest.mark.parametrize(
    ("after", "told"),
    [
        (replace(IDLE, gauges={"fleetgate_open_requests": 2.0}), ["fleetgate_open_requests is 2"]),
        (replace(IDLE, tasks=20.0), ["20 tasks, 17 before"]),
        (replace(IDLE, processes=2), ["2 processes, 1 before"]),
        (replace(IDLE, files=16), ["16 files, 15 before"]),
        (replace(IDLE, threads=100), ["100 threads, 1 before"]),
        (replace(IDLE, sockets={"client": 1}), ["1 connections of clients"]),
        (replace(IDLE, requests={"leases": 1}), ["1 leases in Redis"]),
        (replace(IDLE, eternal={"fg1:x:*": 7}), ["7 keys fg1:x:* without a time to live, 0 before"]),
        (replace(IDLE, tasks=16.0, threads=3, sockets={"node": 12}), []),
    ],
)
def test_each_kind_of_leak_is_told(after: Held, told: list[str]) -> None:
    assert list(after.leaks(IDLE)) == told


def test_a_slope_is_the_lines_and_knows_its_error() -> None:
    rising = slope_of([Sample(float(at), 90_000_000 + 1000 * at) for at in range(0, 600, 2)])
    assert rising is not None and rising.grows
    assert rising.bytes_per_second == pytest.approx(1000.0)
    assert rising.per_hour() == "+3.6 ± 0.0 MB/h"
    saw = slope_of([Sample(float(at), 90_000_000 + 50_000 * (at % 8)) for at in range(0, 600, 2)])
    assert saw is not None and not saw.grows
    assert slope_of([Sample(0.0, 1)]) is None


def test_the_warm_up_is_left_out() -> None:
    assert [sample.at for sample in behind_warm_up([Sample(float(at), 1) for at in range(0, 101, 20)])] == [
        40,
        60,
        80,
        100,
    ]
    assert behind_warm_up([Sample(float(at), 1) for at in range(0, 3601, 100)])[0].at == 300
    assert behind_warm_up([]) == []


@pytest.mark.parametrize("seconds", [45.0, 60.0, 180.0, 1800.0])
def test_faults_of_every_kind_come_again_and_the_end_is_quiet(seconds: float) -> None:
    faults = list(faults_of(seconds, 3))
    assert all(fault.at + fault.lasts <= seconds - QUIET for fault in faults)
    assert all(bool(fault.node) == (fault.action in NODE_ACTIONS) for fault in faults)
    if seconds >= 60:
        assert {fault.action for fault in faults} == {action for _, action, _, _ in CYCLE}
    if seconds > 3 * PERIOD:
        assert {fault.node for fault in faults if fault.action == "kill"} == {"1", "2", "3"}
